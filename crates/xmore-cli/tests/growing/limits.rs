//! What may be skipped, and when a memory is not replaced.

use std::fs;
use std::path::Path;

use super::support::files::{bytes_of, picture};
use super::{World, captions, expect};

#[test]
fn building_where_a_memory_of_other_sources_is_stays_refused() {
    let world = World::new();
    world.photos("photos", 0..4);
    world.table("first.csv", "photos", 0..2);
    world.table("other.csv", "photos", 2..4);
    world.table("both.csv", "photos", 0..4);
    expect(&world.build("@first.csv", "@m", &[]), 0, &[]);
    let before = bytes_of(&world.path("m"));
    expect(&world.build("@other.csv", "@m", &[]), 1, &["--overwrite", "memory append"]);
    assert_eq!(bytes_of(&world.path("m")), before);
    // One that lists all that is there is what it has become.
    expect(&world.build("@both.csv", "@m", &[]), 0, &["added 2: 4 pairs"]);
    // Pairs that the source no longer lists stay, and are counted.
    world.table("both.csv", "photos", 1..4);
    expect(
        &world.build("@both.csv", "@m", &[]),
        0,
        &["nothing to do", "1 pair of the memory no longer in these sources"],
    );
    expect(&world.build("@both.csv", "@m", &["--overwrite"]), 0, &["3 pairs of 3 images"]);
}

#[test]
fn a_memory_is_never_replaced_by_one_with_too_few_pairs() {
    let world = World::new();
    world.photos("photos", 0..10);
    world.table("pairs.csv", "photos", 0..10);
    expect(&world.build("@pairs.csv", "@m", &[]), 0, &[]);
    let good = bytes_of(&world.path("m"));
    // Nothing can be read, or there is nothing in the source.
    world.rename("photos", "moved");
    let overwrite =
        |source: &str, more: &[&str]| world.build(source, "@m", &[&["--overwrite"], more].concat());
    let kept = "is as it was";
    expect(&overwrite("@pairs.csv", &[]), 3, &["the sources gave no pair", kept]);
    expect(&overwrite("@pairs.csv", &["--max-skipped=100%"]), 3, &["the sources gave no pair", kept]);
    fs::write(world.path("empty.csv"), "image_path,caption\n").unwrap();
    expect(&overwrite("@empty.csv", &[]), 3, &["the sources gave no pair", kept]);
    expect(&world.append("@m", "@empty.csv", &[]), 3, &["the sources gave no pair", kept]);
    world.table("others.csv", "gone", 0..10);
    expect(&world.append("@m", "@others.csv", &[]), 3, &["the sources gave no pair", kept]);
    assert_eq!(bytes_of(&world.path("m")), good);
    world.rename("moved", "photos");

    // Too little can be read: what could be is kept, and the same command goes on when the rest is there.
    for i in 0..4 {
        world.rename(&format!("photos/{i}.png"), &format!("{i}.png"));
    }
    let run = overwrite("@pairs.csv", &[]);
    expect(&run, 3, &["4 of 10 images", "was not replaced"]);
    let now = bytes_of(&world.path("m"));
    assert!(good.iter().all(|(name, bytes)| now.get(name) == Some(bytes)), "{:?}", now.keys());
    world.verify("@m");
    for i in 0..4 {
        world.rename(&format!("{i}.png"), &format!("photos/{i}.png"));
    }
    expect(&overwrite("@pairs.csv", &[]), 0, &["resumed after 6 pairs", "10 pairs of 10 images"]);
    assert_eq!(world.captions("@m"), captions([4, 5, 6, 7, 8, 9, 0, 1, 2, 3]));
    // Or the user allows it.
    world.rename("photos/0.png", "0.png");
    world.rename("photos/1.png", "1.png");
    expect(&overwrite("@pairs.csv", &["--max-skipped=2"]), 0, &["8 pairs of 8 images"]);
    world.verify("@m");
}

#[test]
fn an_empty_source_makes_no_memory() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    fs::write(world.path("empty.csv"), "image_path,caption\n").unwrap();
    fs::create_dir(world.path("bare")).unwrap();
    picture(&world.path("bare/0.png"), 0);
    for source in ["@empty", "@empty.csv", "@bare"] {
        let run = world.build(source, "@m", &[]);
        expect(&run, 3, &["the sources gave no pair", "no memory was written"]);
        assert!(run.stdout.is_empty(), "{source}: {}", run.stdout);
        assert!(!world.path("m").exists(), "{source}");
    }
}

#[test]
fn how_much_may_be_skipped_is_a_number_or_a_share() {
    let world = World::new();
    world.photos("photos", 0..10);
    world.table("pairs.csv", "photos", 0..10);
    let build = |more: &[&str]| {
        let _ = fs::remove_dir_all(world.path("m"));
        world.build("@pairs.csv", "@m", more)
    };
    fs::remove_file(world.path("photos/0.png")).unwrap();
    expect(&build(&[]), 0, &["9 pairs", "1 images that could not be read"]);
    expect(&build(&["--max-skipped=0"]), 3, &["1 of 10", "--max-skipped allows 0"]);
    expect(&build(&["--max-skipped=9.9%"]), 3, &["1 of 10"]);
    fs::remove_file(world.path("photos/1.png")).unwrap();
    expect(&build(&[]), 3, &["2 of 10"]);
    expect(&build(&["--max-skipped=2"]), 0, &["8 pairs"]);
    expect(&build(&["--max-skipped=20%"]), 0, &["8 pairs"]);
    for bad in ["-1", "101%", "some"] {
        assert_eq!(build(&[&format!("--max-skipped={bad}")]).code, 2, "{bad}");
    }
    // Photos without a caption are no failures.
    fs::remove_file(world.path("photos/0.txt")).unwrap();
    for i in 3..9 {
        fs::remove_file(world.path(&format!("photos/{i}.txt"))).unwrap();
    }
    let _ = fs::remove_dir_all(world.path("m"));
    expect(&world.build("@photos", "@m", &[]), 0, &["2 pairs", "6 without a caption"]);
}

#[test]
fn commands_that_read_images_share_one_rule_for_those_they_cannot() {
    let world = World::new();
    world.photos("photos", 0..10);
    for name in ["cat", "dog"] {
        fs::create_dir_all(world.path("set").join(name)).unwrap();
        for i in 0..5 {
            fs::copy(world.path("photos/0.png"), world.path(&format!("set/{name}/{i}.png"))).unwrap();
        }
    }
    let commands: [&[&str]; 3] = [
        &["classify", "@photos", "--labels=a,b", &world.tiny],
        &["embed", "@photos", "-o", "@out.npy", &world.tiny],
        &["eval", "@set", "--methods=zero-shot", "--bootstrap=200", &world.tiny],
    ];
    let run = |more: &[&str]| commands.map(|args| world.run(&[args, more].concat()).run().code);
    assert_eq!(run(&[]), [0, 0, 0]);
    let break_one = |i: u64, class: &str| {
        fs::write(world.path(&format!("photos/{i}.png")), "no picture").unwrap();
        fs::write(world.path(&format!("set/{class}/{i}.png")), "no picture").unwrap();
    };
    break_one(0, "cat");
    // Rows of a file must be those of the photos, so `embed` leaves none out unless it is told to.
    assert_eq!(run(&[]), [0, 3, 0]);
    assert_eq!(run(&["--max-skipped=10%"]), [0, 0, 0]);
    assert_eq!(run(&["--max-skipped=0"]), [3, 3, 3]);
    break_one(1, "dog");
    assert_eq!(run(&[]), [3, 3, 3]);
    assert_eq!(run(&["--max-skipped=2"]), [0, 0, 0]);
    let none: Vec<String> =
        (0..10).map(|i| world.path(&format!("photos/{i}.png")).display().to_string()).collect();
    for path in &none {
        fs::write(path, "no picture").unwrap();
    }
    let photos = world.run(&["classify", "@photos", "--labels=a,b", "--max-skipped=100%", &world.tiny]).run();
    expect(&photos, 3, &["10 of 10 images could not be read"]);
    fs::remove_file(world.path("out.npy")).unwrap();
    let embed = world.run(&["embed", "@photos", "-o", "@out.npy", "--skip-broken", &world.tiny]).run();
    expect(&embed, 3, &["10 of 10 images could not be read", "nothing was written"]);
    assert!(!Path::new(&world.path("out.npy")).exists());
}

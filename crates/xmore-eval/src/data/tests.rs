//! Every layout, whole and damaged.

use super::*;

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Dataset {
        Dataset::read(&self.path(name)).unwrap()
    }

    fn error(&self, name: &str) -> String {
        Dataset::read(&self.path(name)).unwrap_err().to_string()
    }
}

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.labels.names().iter().map(String::as_str).collect()
}

#[test]
fn reads_a_folder_per_class() {
    let world = World::new();
    for file in ["fire_truck/b.JPG", "fire_truck/a.png", "dog/x.webp", "dog/notes.txt", "empty/readme.txt"] {
        world.write(file, "");
    }
    let dataset = Dataset::read(world.0.path()).unwrap();
    assert_eq!((names(&dataset), &dataset.truth[..]), (vec!["dog", "fire truck"], &[0, 1, 1][..]));
    assert!(dataset.images[1].to_string().ends_with("fire_truck/a.png"));
    assert!(world.error("dog").contains("found 0 such"));
}

#[test]
fn a_class_has_all_below_its_folder_and_hidden_folders_are_none() {
    let world = World::new();
    for file in [
        "set/b/2023/06/1.jpg",
        "set/b/0.bmp",
        "set/a/1.png",
        "set/a.b/1.png",
        "set/.ipynb_checkpoints/1-checkpoint.jpg",
        "set/@eaDir/1.jpg",
        "set/loose.jpg",
        "set/empty/sub/notes.txt",
    ] {
        world.write(file, "");
    }
    let dataset = world.read("set");
    assert_eq!((names(&dataset), &dataset.truth[..]), (vec!["a", "a.b", "b"], &[0, 1, 2, 2][..]));
    assert_eq!(dataset.empty_classes, ["empty"]);
    let expected = "left out: 3 files: 1 hidden, 1 thumbnail, 1 in no class folder";
    assert_eq!(dataset.left_out.to_string(), expected);

    world.write("one/a/1.png", "");
    world.write("one/b/1.heic", "");
    let error = world.error("one");
    assert!(error.contains("found 1 such") && error.contains("1 HEIC (not read yet)"), "{error}");
}

#[test]
fn the_test_split_is_taken_of_folders_that_are_splits() {
    let world = World::new();
    for file in
        ["set/train/a/1.png", "set/train/b/1.png", "set/test/a/2.png", "set/test/b/2.png", "set/val/a/3.png"]
    {
        world.write(file, "");
    }
    let dataset = world.read("set");
    assert_eq!((dataset.images.len(), dataset.name.as_str()), (2, "set"));
    let options = DatasetOptions { split: Some("train".into()), ..Default::default() };
    let train = Dataset::read_with(&world.path("set"), &options).unwrap();
    assert!(train.images[0].to_string().contains("train"));
    let options = DatasetOptions { split: Some("dev".into()), ..Default::default() };
    let error = Dataset::read_with(&world.path("set"), &options).unwrap_err().to_string();
    assert!(error.contains("dev") && error.contains("test, train, val"), "{error}");
}

#[test]
fn rows_of_a_table_without_image_or_label_are_left_out_and_counted() {
    let world = World::new();
    world.write("t.csv", "\u{feff}image_path,label\na.png,x\n,y\nb.png,\nsub/c.png,y\n");
    let dataset = world.read("t.csv");
    assert_eq!((dataset.images.len(), dataset.skipped.len()), (2, 2));
    assert!(dataset.skipped[0].contains("line 3"), "{:?}", dataset.skipped);
    assert_eq!(dataset.images[1].to_string(), world.path("sub/c.png").display().to_string());
    world.write("t.tsv", "label\tfilepath\nx\ta b.png\ny\tc.png\n");
    assert_eq!(names(&world.read("t.tsv")), ["x", "y"]);
    world.write("one.csv", "image_path,label\na.png,x\n");
    assert!(world.error("one.csv").contains("at least 2"));
    world.write("empty.csv", "");
    assert!(world.error("empty.csv").contains("empty file"));
}

#[test]
fn a_coop_split_has_labels_of_all_its_splits_and_finds_its_images() {
    let world = World::new();
    let split = r#"{"train": [["a/1.jpg", 2, "blue_jay"], ["a/2.jpg", 0, "owl"]], "test": [["a/3.jpg", 0, "owl"], ["a/4.jpg", 1, "wren"]]}"#;
    world.write("birds/split_zhou_Birds.json", split);
    world.write("birds/JPEG/a/4.jpg", "");
    let dataset = world.read("birds");
    assert_eq!((names(&dataset), &dataset.truth[..]), (vec!["owl", "wren", "blue jay"], &[0, 1][..]));
    assert_eq!(dataset.images[0].to_string(), world.path("birds/JPEG/a/3.jpg").display().to_string());
    world.write("birds/split_zhou_Birds.json", split.replace("wren", "owl\", \"more"));
    assert!(world.error("birds").contains("[[path, label, classname]"));
    world.write("birds/split_zhou_Birds.json", split.replace("1, \"wren", "0, \"wren"));
    assert!(world.error("birds").contains("also \"wren\""));
    world.write("birds/split_zhou_Birds.json", split.replace("2, ", "-2, "));
    assert!(world.error("birds").contains("expected"));
}

#[test]
fn a_tar_that_is_cut_off_keeps_what_came_before() {
    let world = World::new();
    let mut tar = tar::Builder::new(Vec::new());
    let members: [(&str, &[u8]); 8] = [
        ("a.cls", b"1\n"),
        ("a.jpg", b"picture"),
        ("dir.x/b.png", b"picture"),
        ("dir.x/b.cls", b"0"),
        ("c.webp", b"no class"),
        ("d.jpg", b"odd class"),
        ("d.cls", b"one"),
        ("._a.jpg", b"hidden"),
    ];
    for (name, data) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    world.write("set/test/0.tar", &bytes);
    world.write("set/classnames.txt", "cat\ndog\n");
    let dataset = world.read("set");
    assert_eq!((&dataset.truth[..], dataset.skipped.len()), (&[1, 0][..], 2));
    assert_eq!(dataset.left_out.to_string(), "left out: 1 file: 1 hidden");
    let reader = xmore_memory::ingest::ImageReader::new();
    assert_eq!(reader.read(&dataset.images[1]).unwrap(), b"picture");
    // Cut in the fifth header.
    world.write("set/test/0.tar", &bytes[..4 * 1024 + 300]);
    let cut = world.read("set");
    assert_eq!((cut.images.len(), cut.skipped.len()), (2, 1));
    world.write("set/classnames.txt", "cat\n");
    assert!(world.error("set").contains("at least 2"));
    world.write("set/test/nshards.txt", "many");
    world.write("set/classnames.txt", "cat\ndog\n");
    assert!(world.error("set").contains("a number of tars"));
}

#[test]
fn wordnet_ids_get_their_names_and_classes_of_one_name_stay_two() {
    let world = World::new();
    // ImageNet's two kinds of missile.
    for id in ["n03773504", "n04008634", "n01440764"] {
        world.write(&format!("in/{id}/x.jpeg"), "");
    }
    let dataset = world.read("in");
    assert_eq!(names(&dataset), ["tench", "missile", "missile"]);
    assert_eq!(dataset.truth, [0, 1, 2]);
    world.write("in/x/y.png", "");
    // One more folder makes it a folder of classes.
    assert_eq!(names(&world.read("in"))[3], "x");
}

#[test]
fn aircraft_is_read_from_its_lists() {
    let world = World::new();
    world.write("fgvc/variants.txt", "707-320\nA 300\n");
    world.write("fgvc/images_variant_test.txt", "17 A 300\n18 707-320\nodd\n");
    let dataset = world.read("fgvc");
    assert_eq!((&dataset.truth[..], dataset.skipped.len()), (&[1, 0][..], 1));
    assert_eq!(dataset.images[0].to_string(), world.path("fgvc/images/17.jpg").display().to_string());
    world.write("fgvc/images_variant_test.txt", "17 Zeppelin\n");
    assert!(world.error("fgvc").contains("Zeppelin"));
    #[cfg(unix)]
    {
        std::fs::remove_file(world.path("fgvc/variants.txt")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", world.path("fgvc/variants.txt")).unwrap();
        assert!(world.error("fgvc").contains("not a regular file: character device"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_of_any_bytes_are_those_of_images() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let folder = world.0.path().join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&folder).unwrap();
    let image = folder.join(OsStr::from_bytes(b"\xe9.jpg"));
    std::fs::write(&image, "").unwrap();
    let rows = b"image,label\n\xe9.jpg,church\nshard.tar#1.jpg,dog\nfile:%E9.jpg,dog\n";
    std::fs::write(folder.join("t.csv"), rows).unwrap();
    let dataset = Dataset::read(&folder.join("t.csv")).unwrap();
    let member = |name: &[u8]| ImageRef::TarMember {
        tar: folder.join("shard.tar").into(),
        name: name.to_vec(),
        span: None,
    };
    let file = ImageRef::File(image);
    assert_eq!(dataset.images, [file.clone(), member(b"1.jpg"), file]);

    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in [(&b"\xe9.jpg"[..], "x"), (b"\xe9.cls", "1"), (b"\xe8.jpg", "x")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        tar.append_data(&mut header, OsStr::from_bytes(name), data.as_bytes()).unwrap();
    }
    world.write("set/classnames.txt", "cat\ndog\n");
    world.write("set/test/0.tar", tar.into_inner().unwrap());
    let dataset = world.read("set");
    let tar = world.path("set/test/0.tar").display().to_string();
    assert_eq!(dataset.images[0].to_string(), format!("{tar}#file:%E9.jpg"));
    assert_eq!((&dataset.truth[..], dataset.images.len()), (&[1][..], 1));
    assert_eq!(dataset.skipped, [format!("{tar}#file:%E8.jpg: no number in a member file:%E8.cls")]);
}

#[test]
fn formats_have_names_that_are_read_back() {
    for (name, format) in DatasetFormat::NAMES {
        assert_eq!((name.parse::<DatasetFormat>().unwrap(), format.to_string().as_str()), (format, name));
    }
    assert!("zip".parse::<DatasetFormat>().unwrap_err().contains("webdataset"));
}

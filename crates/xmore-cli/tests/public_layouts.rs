//! Small trees in the layouts of the fifteen public datasets, read by name and by path.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::files::picture;
use support::{tiny_model, xmore_in};

/// CoOp's name, place, split file, folder of images, and images with their classes.
type Split = (&'static str, &'static str, &'static str, &'static str, [(&'static str, &'static str); 2]);

const SPLITS: [Split; 9] = [
    (
        "oxford_flowers",
        "oxford_flowers",
        "split_zhou_OxfordFlowers.json",
        "jpg",
        [("image_06734.jpg", "pink primrose"), ("image_06639.jpg", "globe thistle")],
    ),
    (
        "describable_textures",
        "dtd",
        "split_zhou_DescribableTextures.json",
        "images",
        [("banded/banded_0002.jpg", "banded"), ("zigzagged/zigzagged_0012.jpg", "zigzagged")],
    ),
    (
        "OxfordPets",
        "oxford_pets",
        "split_zhou_OxfordPets.json",
        "images",
        [("Abyssinian_201.jpg", "abyssinian"), ("yorkshire_terrier_99.jpg", "yorkshire_terrier")],
    ),
    (
        "stanford_cars",
        "stanford_cars",
        "split_zhou_StanfordCars.json",
        "",
        [
            ("cars_test/00001.jpg", "2012 Suzuki Aerio Sedan"),
            ("cars_test/00002.jpg", "2012 Ferrari 458 Italia Convertible"),
        ],
    ),
    (
        "ucf101",
        "ucf101",
        "split_zhou_UCF101.json",
        "UCF-101-midframes",
        [
            ("Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg", "Apply_Eye_Makeup"),
            ("Yo_Yo/v_YoYo_g01_c01.jpg", "Yo_Yo"),
        ],
    ),
    (
        "caltech101",
        "caltech-101",
        "split_zhou_Caltech101.json",
        "101_ObjectCategories",
        [("Faces/image_0345.jpg", "face"), ("yin_yang/image_0041.jpg", "yin_yang")],
    ),
    (
        "food101",
        "food-101",
        "split_zhou_Food101.json",
        "images",
        [("apple_pie/1011328.jpg", "apple_pie"), ("waffles/971843.jpg", "waffles")],
    ),
    (
        "sun397",
        "sun397",
        "split_zhou_SUN397.json",
        "SUN397",
        [
            ("a/abbey/sun_aaalbzqrimafwbiv.jpg", "abbey"),
            ("y/youth_hostel/sun_aqwzzbkvhdjyzekf.jpg", "youth_hostel"),
        ],
    ),
    (
        "eurosat",
        "eurosat",
        "split_zhou_EuroSAT.json",
        "2750",
        [("AnnualCrop/AnnualCrop_1275.jpg", "Annual Crop Land"), ("SeaLake/SeaLake_1096.jpg", "Sea or Lake")],
    ),
];

/// The name in CoOp, a path to give, the folder of the classes, class folders, and the number of labels.
type Folders = (&'static str, &'static str, &'static str, [&'static str; 2], usize);

const IMAGENETS: [Folders; 5] = [
    ("imagenet", "imagenet", "imagenet/images/val", ["n01440764", "n15075141"], 1000),
    ("ImageNetA", "imagenet-adversarial", "imagenet-adversarial/imagenet-a", ["n01498041", "n12267677"], 200),
    (
        "ImageNetV2",
        "imagenetv2/imagenetv2-matched-frequency-format-val",
        "imagenetv2/imagenetv2-matched-frequency-format-val",
        ["0", "999"],
        1000,
    ),
    (
        "imagenet_r",
        "imagenet-rendition/imagenet-r",
        "imagenet-rendition/imagenet-r",
        ["n01443537", "n12267677"],
        200,
    ),
    ("ImageNetSketch", "imagenet-sketch", "imagenet-sketch/images", ["n01440764", "n15075141"], 1000),
];

struct Root(tempfile::TempDir);

impl Root {
    /// All of them, each with two images in the split that is measured.
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for (_, place, file, images, items) in SPLITS {
            for (image, _) in items {
                root.image(&format!("root/{place}/{images}/{image}"));
            }
            let row = |(i, (image, class)): (usize, &(&str, &str))| json!([image, i, class]);
            let rows: Vec<Value> = items.iter().enumerate().map(row).collect();
            root.write(
                &format!("root/{place}/{file}"),
                &json!({"train": [[items[0].0, 0, items[0].1]], "val": [], "test": rows}).to_string(),
            );
        }
        root.write("root/fgvc_aircraft/variants.txt", "707-320\nYak-42\n");
        root.write("root/fgvc_aircraft/images_variant_test.txt", "1514522 707-320\n0715386 Yak-42\n");
        root.image("root/fgvc_aircraft/images/1514522.jpg");
        root.image("root/fgvc_aircraft/images/0715386.jpg");
        for (_, _, folder, classes, _) in IMAGENETS {
            for class in classes {
                root.image(&format!("root/{folder}/{class}/{class}_1.jpg"));
            }
        }
        root
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn image(&self, name: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture(&path, name.len() as u64);
    }

    /// The results, and what was told.
    #[track_caller]
    fn eval(&self, args: &[&str]) -> (Vec<Value>, String) {
        let (model, common) = (tiny_model(), ["--format=json", "--methods=zero-shot,dataset-prompts"]);
        let run = xmore_in(self.0.path(), &[&["eval", &model], args, &common].concat()).run();
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        (serde_json::from_str(&run.stdout).unwrap(), run.stderr)
    }
}

fn figures(entry: &Value) -> [&Value; 4] {
    ["images", "classes", "metrics", "unreadable"].map(|key| &entry[key])
}

/// By name and by path the same images, labels and prompts; by path what it was taken for is told.
#[test]
fn every_dataset_is_read_by_name_and_by_path() {
    let root = Root::new();
    let splits = SPLITS.map(|(name, place, ..)| (name, place, 2));
    let imagenets = IMAGENETS.map(|(name, path, _, _, classes)| (name, path, classes));
    let aircraft = [("fgvc_aircraft", "fgvc_aircraft", 2)];
    let all: Vec<_> = splits.into_iter().chain(aircraft).chain(imagenets).collect();
    assert_eq!(all.len(), 15);
    let names = all.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(",");
    let (by_name, _) = root.eval(&["--data-root", "@root", "--dataset", &names]);
    let paths: Vec<String> = all.iter().map(|(_, path, _)| format!("@root/{path}")).collect();
    let (by_path, told) = root.eval(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((by_name.len(), by_path.len()), (30, 30));
    for (i, (name, _, classes)) in all.iter().enumerate() {
        let entry = &by_name[2 * i];
        assert_eq!((&entry["images"], &entry["classes"]), (&2.into(), &(*classes).into()), "{name}");
        let known = entry["dataset"].as_str().unwrap();
        assert!(told.contains(&format!("taken for {known}")), "{known}: {told}");
        for (a, b) in [2 * i, 2 * i + 1].map(|j| (&by_name[j], &by_path[j])) {
            assert_eq!(figures(a), figures(b), "{name}");
        }
    }
}

#[test]
fn the_suites_find_all_of_them() {
    let root = Root::new();
    for (suite, count) in [("paper-table1", 10), ("paper-table2", 5)] {
        let (entries, told) = root.eval(&["--suite", suite, "--data-root", "@root"]);
        assert_eq!(entries.len(), 2 * count, "{told}");
    }
}

/// The folders of the authors' scripts have other names.
#[test]
fn the_layout_of_the_authors_scripts_is_found() {
    let root = Root::new();
    let from = |name: &str| root.0.path().join("root").join(name);
    let to = |name: &str| root.0.path().join("tpt").join(name);
    fs::create_dir_all(to("ImageNet")).unwrap();
    for (a, b) in [
        ("oxford_flowers", "Flower102"),
        ("caltech-101", "Caltech101"),
        ("imagenet/images/val", "ImageNet/val"),
        ("imagenet-adversarial/imagenet-a", "imagenet-a"),
    ] {
        fs::rename(from(a), to(b)).unwrap();
    }
    let (entries, _) = root.eval(&["--data-root", "@tpt", "--dataset", "flower102,caltech101,I,A"]);
    let classes: Vec<u64> =
        entries.iter().step_by(2).map(|entry| entry["classes"].as_u64().unwrap()).collect();
    assert_eq!(classes, [2, 2, 1000, 200]);
}

#[test]
fn what_a_layout_was_taken_for_is_told_before_work() {
    let root = Root::new();
    let run = |args: &[&str]| {
        let model = tiny_model();
        xmore_in(root.0.path(), &[&["eval", &model], args].concat()).run()
    };
    // No prompt is known: refused before the first image.
    for i in 0..3 {
        root.image(&format!("plain/cat/{i}.jpg"));
        root.image(&format!("plain/dog/{i}.jpg"));
    }
    let refused = run(&["@plain", "--methods", "zero-shot,dataset-prompts", "--cache-dir", "@cache"]);
    assert!(refused.code == 1 && refused.stderr.contains("no prompts on plain"), "{}", refused.stderr);
    assert!(!root.0.path().join("cache").exists(), "nothing was encoded");
    // Labels that are numbers.
    root.image("numbers/0/a.jpg");
    root.image("numbers/1/a.jpg");
    let numbers = run(&["@numbers", "--methods", "zero-shot"]);
    assert!(numbers.stderr.contains("warning: numbers: all 2 labels are numbers"), "{}", numbers.stderr);
    // A split file of another name.
    fs::rename(
        root.0.path().join("root/dtd/split_zhou_DescribableTextures.json"),
        root.0.path().join("root/dtd/split_zhou_Mine.json"),
    )
    .unwrap();
    let mine = run(&["@root/dtd", "--methods", "zero-shot"]);
    assert!(mine.stderr.contains("no dataset that is known"), "{}", mine.stderr);
    let mine = run(&["@root/dtd", "--methods", "dataset-prompts"]);
    assert_eq!(mine.code, 1, "{}", mine.stderr);
    // Another dataset's folder, and the root of several, are not the one asked for.
    for root in ["@root/oxford_pets", "@root"] {
        let other = run(&["--dataset", "DTD", "--data-root", root]);
        assert!(other.code == 1 && other.stderr.contains("DTD is missing"), "{}", other.stderr);
    }
}

/// The first images of a list may be missing, or lie in another folder.
#[test]
fn the_folder_with_most_of_the_images_is_taken() {
    let root = Root::new();
    let rows: Vec<Value> =
        (0..40).map(|i| json!([format!("{i}.jpg"), i % 2, if i % 2 == 0 { "cat" } else { "dog" }])).collect();
    root.write("pets/split_zhou_OxfordPets.json", &json!({ "test": rows }).to_string());
    (0..6).for_each(|i| root.image(&format!("pets/a_sample/{i}.jpg")));
    (8..40).for_each(|i| root.image(&format!("pets/images/{i}.jpg")));
    let (entries, _) = root.eval(&["@pets", "--max-skipped", "8"]);
    assert_eq!((&entries[0]["images"], &entries[0]["unreadable"]), (&40.into(), &8.into()));
}

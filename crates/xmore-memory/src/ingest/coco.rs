//! Pairs from COCO's captions (`captions_train2017.json`): `images` and `annotations`, joined by the image's id.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use xmore_files::json::{Fields, Key, Value};
use xmore_files::open_regular;

use super::caption::MAX_CAPTION_BYTES;
use super::group::Grouping;
use super::{Ingested, Skip, SkipReason};
use crate::error::{AtPath, MemoryError, Result};

/// Largest file that is read; COCO's largest captions have 92 MB.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Images that are looked for to find out in which folder they are.
const PROBED_IMAGES: usize = 64;

/// Reads a captions file. Images are looked for in `image_root`, beside the file, and in folders that its name tells.
pub(super) fn read(path: &Path, image_root: Option<&Path>) -> Result<Ingested> {
    let file = open_regular(path).at("open", path)?;
    let size = file.metadata().at("open", path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(MemoryError::WrongSource {
            path: path.to_owned(),
            expected: "COCO captions of at most 2 GiB",
            found: format!("{size} bytes"),
            hint: "split it, or write its pairs to a .csv".to_owned(),
        });
    }
    let (contents, error) = parse(BufReader::with_capacity(1 << 16, file.take(MAX_FILE_BYTES)));
    if contents.images.is_empty() || contents.annotations.is_empty() {
        return Err(not_coco(path, &contents, error));
    }
    let names: Vec<&str> =
        contents.images.iter().filter_map(|(_, name)| name.as_deref()).take(PROBED_IMAGES).collect();
    let root = find_root(path, image_root, &names)?;
    let mut ingested = join(path, &root, contents);
    if let Some(error) = error {
        let message = format!("the rest is missing: {error}");
        ingested.skipped.push(Skip { path: path.to_owned(), reason: SkipReason::Damaged(message) });
    }
    Ok(ingested)
}

/// What a captions file holds.
#[derive(Debug, Default)]
struct Contents {
    /// Id and file name of each image.
    images: Vec<(Value, Option<String>)>,
    /// Image id and caption of each annotation.
    annotations: Vec<(Value, Option<String>)>,
}

/// Reads as much as is whole; also gives what is wrong with the rest.
fn parse(input: impl Read) -> (Contents, Option<serde_json::Error>) {
    let mut contents = Contents::default();
    let mut parser = serde_json::Deserializer::from_reader(input);
    let error = parser.deserialize_any(&mut contents).and_then(|()| parser.end()).err();
    (contents, error)
}

impl<'de> Visitor<'de> for &mut Contents {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with images and annotations")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key(&["images", "annotations"]))? {
            match key {
                Some(0) => {
                    map.next_value_seed(List { rows: &mut self.images, names: ["id", "file_name"] })?
                }
                Some(_) => {
                    map.next_value_seed(List { rows: &mut self.annotations, names: ["image_id", "caption"] })?
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A list of objects, of which an id and a text are kept.
struct List<'a> {
    rows: &'a mut Vec<(Value, Option<String>)>,
    names: [&'static str; 2],
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of objects with {} and {}", self.names[0], self.names[1])
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(fields) = list.next_element_seed(Fields(&self.names))? {
            let mut values = fields.unwrap_or_default().into_iter();
            let (id, text) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
            self.rows.push((id, text.into_text()));
        }
        Ok(())
    }
}

/// Gives each image its captions. What has no partner or no text is skipped.
fn join(path: &Path, root: &Path, contents: Contents) -> Ingested {
    let mut skipped = Vec::new();
    let mut skip = |list: &str, index: usize, what: &str| {
        let what = format!("{list}[{index}]: {what}");
        skipped.push(Skip { path: path.to_owned(), reason: SkipReason::Element { what } });
    };
    let mut captions: HashMap<Value, Vec<String>> = HashMap::new();
    let known: HashMap<&Value, ()> = contents.images.iter().map(|(id, _)| (id, ())).collect();
    for (index, (image, caption)) in contents.annotations.into_iter().enumerate() {
        let caption = caption.as_deref().map(str::trim).unwrap_or_default();
        if !matches!(image, Value::Integer(_) | Value::Text(_)) {
            skip("annotations", index, "it has no image_id");
        } else if caption.is_empty() {
            skip("annotations", index, "its caption is empty or no text");
        } else if caption.len() > MAX_CAPTION_BYTES {
            skip("annotations", index, &format!("its caption is longer than {MAX_CAPTION_BYTES} bytes"));
        } else if !known.contains_key(&image) {
            skip("annotations", index, "no image has its image_id");
        } else {
            captions.entry(image).or_default().push(caption.to_owned());
        }
    }
    drop(known);
    let mut grouping = Grouping::default();
    for (index, (id, name)) in contents.images.into_iter().enumerate() {
        match (name.filter(|name| !name.is_empty()), captions.remove(&id)) {
            (None, _) => skip("images", index, "it has no file_name"),
            (Some(_), None) => skip("images", index, "it has no caption"),
            (Some(name), Some(captions)) => grouping.add(root.join(name), captions),
        }
    }
    Ingested { pairs: grouping.pairs, skipped, ..Ingested::default() }
}

/// The first of the folders in which one of these images is.
fn find_root(path: &Path, image_root: Option<&Path>, names: &[&str]) -> Result<PathBuf> {
    let candidates: Vec<PathBuf> = match image_root {
        Some(root) => vec![root.to_owned()],
        None => roots(path),
    };
    let holds = |root: &PathBuf| names.iter().any(|name| root.join(name).is_file());
    match candidates.iter().find(|root| holds(root)) {
        Some(root) => Ok(root.clone()),
        None => Err(MemoryError::ImagesNotFound {
            path: path.to_owned(),
            looked_for: names.len(),
            places: candidates,
        }),
    }
}

/// Folders in which the images of `annotations/captions_train2017.json` may be, without links to parents in their paths.
fn roots(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let above = match folder.parent() {
        Some(above) => above.to_owned(),
        None => folder.join(".."),
    };
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let split = stem.rsplit('_').next().unwrap_or_default();
    let mut roots = vec![folder.to_owned()];
    for base in [above.as_path(), folder] {
        roots.extend([base.join(split), base.join("images").join(split), base.join("images")]);
    }
    roots.push(above);
    roots
}

/// Why a file gives nothing.
fn not_coco(path: &Path, contents: &Contents, error: Option<serde_json::Error>) -> MemoryError {
    let found = match error {
        Some(error) => format!("{error}"),
        None => format!("{} images and {} annotations", contents.images.len(), contents.annotations.len()),
    };
    MemoryError::WrongSource {
        path: path.to_owned(),
        expected: "COCO captions: an object with lists images (id, file_name) and annotations (image_id, caption)",
        found,
        hint: "to read images with .json captions beside them, give their folder".to_owned(),
    }
}

//! Pairs from COCO's captions (`captions_train2017.json`): `images` and `annotations`, joined by the image's id.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use xmore_files::json::{Fields, Key, LimitedStrings, Value};
use xmore_files::text::TextReader;
use xmore_files::{open_regular, path_from_text};

use super::caption::MAX_CAPTION_BYTES;
use super::group::Grouping;
use super::note::Conversions;
use super::skips::Skips;
use super::{Ingested, Skip, SkipReason};
use crate::error::{AtPath, MemoryError, Result};
use crate::ingest::SourceError;

/// Largest file that is read; COCO's largest captions have 92 MB.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Bytes of a string that are read: more than a caption may have.
const MAX_STRING_BYTES: usize = MAX_CAPTION_BYTES + 1024;

/// Elements without a field of use of which the numbers are kept.
const MAX_LISTED: usize = 10_000;

/// Images that are looked for to find out in which folder they are.
const PROBED_IMAGES: usize = 64;

/// Reads a captions file. Images are looked for in `image_root`, beside the file, and in folders that its name tells.
pub(super) fn read(path: &Path, image_root: Option<&Path>) -> Result<Ingested> {
    let file = open_regular(path).at("open", path)?;
    let size = file.metadata().at("open", path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(SourceError::WrongKind {
            path: path.to_owned(),
            expected: "COCO captions of at most 2 GiB",
            found: format!("{size} bytes"),
            hint: "split it, or write its pairs to a .csv".to_owned(),
        }
        .into());
    }
    let mut text = TextReader::new(file.take(MAX_FILE_BYTES));
    let (contents, error) =
        parse(BufReader::with_capacity(1 << 16, LimitedStrings::new(&mut text, MAX_STRING_BYTES)));
    let mut conversions = Conversions::default();
    conversions.add(text.conversion());
    if contents.images.rows.is_empty() || contents.annotations.rows.is_empty() {
        return Err(not_coco(path, &contents, error));
    }
    let names = contents.images.rows.iter().filter_map(|row| row.text.as_deref());
    let names: Vec<&str> = names.take(PROBED_IMAGES).collect();
    let root = find_root(path, image_root, &names)?;
    let mut ingested = join(path, &root, contents);
    if let Some(error) = error {
        let message = format!("the rest is missing: {error}");
        ingested.skipped.push(Skip::of(path, SkipReason::Damaged(message)));
    }
    ingested.notes.extend(conversions.note(path));
    Ok(ingested)
}

/// What a captions file holds.
#[derive(Debug, Default)]
struct Contents {
    /// Id and file name of each image.
    images: Rows,
    /// Image id and caption of each annotation.
    annotations: Rows,
}

/// The elements of a list.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
    /// Indices of elements that have neither id nor text; the first of them.
    empty: Vec<usize>,
    /// Elements in all.
    count: usize,
}

/// An element of a list.
#[derive(Debug)]
struct Row {
    index: usize,
    /// A number or a text, else null.
    id: Value,
    text: Option<String>,
}

impl Rows {
    fn push(&mut self, id: Value, text: Option<String>) {
        let index = self.count;
        self.count += 1;
        match (matches!(id, Value::Integer(_) | Value::Text(_)), text) {
            (true, text) => self.rows.push(Row { index, id, text }),
            (false, Some(text)) => self.rows.push(Row { index, id: Value::Null, text: Some(text) }),
            (false, None) if self.empty.len() < MAX_LISTED => self.empty.push(index),
            (false, None) => {}
        }
    }
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
    rows: &'a mut Rows,
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
            self.rows.push(id, text.into_text());
        }
        Ok(())
    }
}

/// Gives each image its captions. What has no partner or no text is skipped.
fn join(path: &Path, root: &Path, contents: Contents) -> Ingested {
    let mut skips = Skips::of(path);
    let mut skip = |list: &str, index: usize, what: &str| {
        skips.add(SkipReason::Element { what: format!("{list}[{index}]: {what}") });
    };
    let Contents { images, annotations } = contents;
    let more = |rows: &Rows| rows.count - rows.rows.len() - rows.empty.len();
    let not_listed = more(&images) + more(&annotations);
    let mut captions: HashMap<Value, Vec<String>> = HashMap::new();
    let known: HashSet<&Value> = images.rows.iter().map(|row| &row.id).collect();
    annotations.empty.iter().for_each(|&index| skip("annotations", index, "it has no image_id"));
    for Row { index, id: image, text: caption } in annotations.rows {
        let caption = caption.as_deref().map(str::trim).unwrap_or_default();
        if image == Value::Null {
            skip("annotations", index, "it has no image_id");
        } else if caption.is_empty() {
            skip("annotations", index, "its caption is empty or no text");
        } else if caption.len() > MAX_CAPTION_BYTES {
            skip("annotations", index, &format!("its caption is longer than {MAX_CAPTION_BYTES} bytes"));
        } else if !known.contains(&image) {
            skip("annotations", index, "no image has its image_id");
        } else {
            captions.entry(image).or_default().push(caption.to_owned());
        }
    }
    drop(known);
    let mut grouping = Grouping::default();
    for Row { index, id, text: name } in images.rows {
        match (name.filter(|name| !name.is_empty()), captions.remove(&id)) {
            (None, _) => skip("images", index, "it has no file_name"),
            (Some(_), None) => skip("images", index, "it has no caption"),
            (Some(name), Some(captions)) => grouping.add(root.join(path_from_text(&name)), captions),
        }
    }
    images.empty.iter().for_each(|&index| skip("images", index, "it has no file_name"));
    if not_listed > 0 {
        skips.add_last(SkipReason::NotListed { count: not_listed as u64 });
    }
    Ingested { pairs: grouping.pairs, skipped: skips.finish(), ..Ingested::default() }
}

/// The first of the folders in which one of these images is.
fn find_root(path: &Path, image_root: Option<&Path>, names: &[&str]) -> Result<PathBuf> {
    let candidates: Vec<PathBuf> = match image_root {
        Some(root) => vec![root.to_owned()],
        None => roots(path),
    };
    let holds = |root: &PathBuf| names.iter().any(|name| root.join(path_from_text(name)).is_file());
    match candidates.iter().find(|root| holds(root)) {
        Some(root) => Ok(root.clone()),
        None => Err(SourceError::ImagesNotFound {
            path: path.to_owned(),
            looked_for: names.len(),
            places: candidates,
        }
        .into()),
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
        None => format!("{} images and {} annotations", contents.images.count, contents.annotations.count),
    };
    SourceError::WrongKind {
        path: path.to_owned(),
        expected: "COCO captions: an object with lists images (id, file_name) and annotations (image_id, caption)",
        found,
        hint: "to read images with .json captions beside them, give their folder".to_owned(),
    }.into()
}

//! Captions from the tables of Hugging Face's ImageFolder: `metadata.csv`, `.jsonl` or `.parquet` beside the images or above them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use xmore_files::table::TableKind;

use super::column_names::ColumnNames;
use super::parquet::{self, Image, Listing};
use super::sidecar::Sidecars;
use super::{Note, Skip, table};

/// Name of the tables, without the extension.
const STEM: &str = "metadata";

/// What the tables of a folder say.
#[derive(Default)]
pub(super) struct Metadata {
    /// Captions by image.
    captions: HashMap<PathBuf, Vec<String>>,
    /// Images in the order of the tables.
    order: Vec<PathBuf>,
    pub skipped: Vec<Skip>,
    pub notes: Vec<Note>,
}

impl Metadata {
    /// Reads the tables in the folders of these images and in those above, up to `root`. One that is of no use is skipped.
    pub fn read(root: &Path, images: &[PathBuf], sidecars: &mut Sidecars, names: &ColumnNames) -> Metadata {
        let mut folders = BTreeSet::from([root.to_owned()]);
        for image in images {
            let below = image.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
            for folder in below {
                // Those above it are there too.
                if !folders.insert(folder.to_owned()) {
                    break;
                }
            }
        }
        let mut metadata = Metadata::default();
        for folder in folders {
            for extension in TableKind::EXTENSIONS.iter().chain(&["parquet"]) {
                if let Some(path) = sidecars.file(&folder, format!("{STEM}.{extension}").as_bytes()) {
                    metadata.read_table(&path, &folder, names);
                }
            }
        }
        metadata
    }

    fn read_table(&mut self, path: &Path, folder: &Path, names: &ColumnNames) {
        let mut add = |image: PathBuf, captions: Vec<String>| {
            // Without `.` in it, as the images' own paths are.
            let image: PathBuf = image.components().collect();
            let known = self.captions.entry(image).or_insert_with_key(|image| {
                self.order.push(image.clone());
                Vec::new()
            });
            for caption in captions {
                // The same rows are often there as .csv and as .jsonl.
                if !known.contains(&caption) {
                    known.push(caption);
                }
            }
        };
        let read = match TableKind::of_name(path) {
            Some(kind) => table::read_rows(path, kind, folder, names, &mut add),
            None => {
                let mut listing = Listing::default();
                let mut add = |image, captions| match image {
                    Image::File(path) => add(path, captions),
                    // Images within the table are a source of their own.
                    Image::Cell(_) => {}
                };
                parquet::read_file(path, folder, names, &mut listing, &mut add)
                    .map(|()| (listing.skipped, listing.notes))
            }
        };
        match read {
            Ok((skipped, notes)) => {
                self.skipped.extend(skipped);
                self.notes.extend(notes);
            }
            Err(error) => self.skipped.push(Skip::file(path, &error)),
        }
    }

    /// Takes the captions of an image, if a table has some.
    pub fn take(&mut self, image: &Path) -> Option<Vec<String>> {
        self.captions.remove(image)
    }

    /// Images that nobody took and that are not there, with their captions. What is there was left out on purpose.
    pub fn missing(mut self) -> impl Iterator<Item = (PathBuf, Vec<String>)> {
        self.order.into_iter().filter_map(move |image| {
            let captions = self.captions.remove(&image)?;
            let absent = matches!(image.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
            absent.then_some((image, captions))
        })
    }
}

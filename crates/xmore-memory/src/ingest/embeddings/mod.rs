//! Embeddings as clip-retrieval's inference writes them, and LAION publishes them: no images, their embeddings.
//!
//! ```text
//! img_emb/img_emb_0.npy          float16 or float32 [rows, dim]
//! text_emb/text_emb_0.npy        the same, or no such folder
//! metadata/metadata_0.parquet    columns image_path or url or both, and caption
//! ```
//! Part numbers have any number of digits. Rows are aligned; parts are in the order of their images' file names.

mod batches;
mod matrix;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use batches::{Batches, EmbeddingsBatch, SkippedRows};

use xmore_files::table::{MissingColumn, Role};

use self::matrix::Matrix;
use super::parquet::{Leaf, ParquetFile};
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::{AtPath, Result};
use crate::ingest::SourceError;
use crate::store::{IMAGES, METADATA, Series, TEXTS};

/// Names of the caption column: clip-retrieval's, LAION's.
const CAPTION_COLUMNS: &[&str] = &["caption", "text"];
/// Names of the columns that say which image it is.
const IMAGE_COLUMNS: &[&str] = &["image_path", "url"];

/// A folder of embeddings whose parts fit each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingsFolder {
    path: PathBuf,
    parts: Vec<EmbeddingsPart>,
}

/// One part: files whose rows are aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingsPart {
    images: Matrix,
    texts: Option<Matrix>,
    metadata: PathBuf,
}

impl EmbeddingsFolder {
    /// Opens a folder and checks that its parts align: the same numbers, rows and lengths. Reads headers and footers only.
    ///
    /// # Errors
    /// [`SourceError::Misaligned`] says which part differs; [`SourceError::Damaged`] and [`MemoryError::Parquet`] name a file that
    /// is no npy matrix or no parquet; [`SourceError::MissingColumn`] if the metadata lack captions, or both paths and urls.
    pub fn open(path: impl AsRef<Path>) -> Result<EmbeddingsFolder> {
        let path = path.as_ref();
        let misaligned = |reason: String| SourceError::Misaligned { path: path.to_owned(), reason }.into();
        let images = part_files(path, IMAGES)?;
        let texts = part_files(path, TEXTS)?;
        let metadata = part_files(path, METADATA)?;
        if images.is_empty() {
            return Err(misaligned(format!("it has no {0}/{0}_N{1}", IMAGES.name, IMAGES.extension)));
        }
        let others = [(METADATA, &metadata), (TEXTS, &texts)];
        for (series, files) in others.into_iter().filter(|(s, files)| *s == METADATA || !files.is_empty()) {
            let missing = images.keys().find(|number| !files.contains_key(number));
            let extra = files.keys().find(|number| !images.contains_key(number));
            let (has, lacks, number) = match (missing, extra) {
                (Some(number), _) => (IMAGES, series, number),
                (None, Some(number)) => (series, IMAGES, number),
                (None, None) => continue,
            };
            return Err(misaligned(format!("{} has a part {number}, and {} has none", has.name, lacks.name)));
        }

        let mut parts = Vec::with_capacity(images.len());
        for (number, file) in &images {
            let metadata = metadata[number].clone();
            let part = EmbeddingsPart {
                images: Matrix::open(file)?,
                texts: texts.get(number).map(|file| Matrix::open(file)).transpose()?,
                metadata,
            };
            part.check().map_err(misaligned)?;
            let columns = Columns::open(&part.metadata)?;
            if columns.file.rows() != part.rows() {
                let (found, expected) = (columns.file.rows(), part.rows());
                return Err(misaligned(format!(
                    "{} has {found} rows, and {} has {expected}",
                    part.metadata.display(),
                    file.display()
                )));
            }
            parts.push(part);
        }
        parts.sort_by(|a, b| a.images.path.cmp(&b.images.path));
        let dim = parts[0].dim();
        if let Some(other) = parts.iter().find(|part| part.dim() != dim) {
            return Err(misaligned(format!(
                "{} has rows of {} values, and {} of {dim}",
                other.images.path.display(),
                other.dim(),
                parts[0].images.path.display()
            )));
        }
        Ok(EmbeddingsFolder { path: path.to_owned(), parts })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parts, at least one.
    pub fn parts(&self) -> &[EmbeddingsPart] {
        &self.parts
    }

    /// Rows of all parts together.
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(EmbeddingsPart::rows).sum()
    }

    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        self.parts[0].dim()
    }

    /// Whether captions have embeddings too.
    pub fn has_texts(&self) -> bool {
        self.parts[0].texts.is_some()
    }

    /// All rows in order, `rows` at a time, of all parts.
    pub fn batches(&self, rows: usize) -> Batches<'_> {
        Batches::new(&self.parts, rows)
    }
}

impl EmbeddingsPart {
    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.images.rows
    }

    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        self.images.dim
    }

    /// The file of the image embeddings.
    pub fn images(&self) -> &Path {
        &self.images.path
    }

    /// The file of the text embeddings.
    pub fn texts(&self) -> Option<&Path> {
        self.texts.as_ref().map(|texts| texts.path.as_path())
    }

    /// The file of image paths and captions.
    pub fn metadata(&self) -> &Path {
        &self.metadata
    }

    /// This part's rows in order, `rows` at a time.
    pub fn batches(&self, rows: usize) -> Batches<'_> {
        Batches::new(std::slice::from_ref(self), rows)
    }

    fn check(&self) -> Result<(), String> {
        let shape = |matrix: &Matrix| (matrix.rows, matrix.dim);
        match &self.texts {
            Some(texts) if shape(texts) != shape(&self.images) => Err(format!(
                "{} has shape {:?}, and {} has {:?}",
                texts.path.display(),
                shape(texts),
                self.images.path.display(),
                shape(&self.images)
            )),
            _ => Ok(()),
        }
    }
}

/// The columns of a metadata file that matter.
struct Columns {
    file: std::sync::Arc<ParquetFile>,
    caption: Leaf,
    image_path: Option<Leaf>,
    url: Option<Leaf>,
}

impl Columns {
    fn open(path: &Path) -> Result<Columns> {
        let file = ParquetFile::open(path)?;
        let leaf = |name: &str| file.leaf(&[name]).filter(|leaf| !leaf.list);
        let missing = |role, expected| {
            SourceError::MissingColumn {
                path: path.to_owned(),
                missing: MissingColumn {
                    role,
                    expected,
                    wanted: None,
                    columns: file.names(),
                    has_header: true,
                }
                .into(),
                hint: String::new(),
            }
            .into()
        };
        let caption = CAPTION_COLUMNS.iter().find_map(|name| leaf(name));
        let caption = caption.ok_or_else(|| missing(Role::Caption, CAPTION_COLUMNS))?;
        let (image_path, url) = (leaf(IMAGE_COLUMNS[0]), leaf(IMAGE_COLUMNS[1]));
        if image_path.is_none() && url.is_none() {
            return Err(missing(Role::Image, IMAGE_COLUMNS));
        }
        Ok(Columns { caption, image_path, url, file })
    }
}

/// Files of a series by part number; none if there is no such folder.
fn part_files(path: &Path, series: Series) -> Result<BTreeMap<u64, PathBuf>> {
    let folder = path.join(series.name);
    let mut files = BTreeMap::new();
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries.at("read", &folder)?,
    };
    for entry in entries {
        let file = entry.at("read", &folder)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name
            .strip_prefix(series.name)
            .and_then(|rest| rest.strip_prefix('_')?.strip_suffix(series.extension))
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let Some(number) = digits.and_then(|digits| digits.parse().ok()) else { continue };
        if let Some(other) = files.insert(number, file.clone()) {
            let reason = format!("{} and {} are both part {number}", other.display(), file.display());
            return Err(SourceError::Misaligned { path: path.to_owned(), reason }.into());
        }
    }
    Ok(files)
}

//! Rows of embeddings in batches: what is no unit vector is made one, or skipped and counted.

use xmore_files::text::decode_text;

use super::matrix::MatrixReader;
use super::{Columns, EmbeddingsPart};
use crate::error::Result;
use crate::ingest::SourceError;
use crate::ingest::caption::MAX_CAPTION_BYTES;
use crate::ingest::parquet::{Cell, Cursor, Rows};

/// How far a row's length may be from 1: that of a vector normalized in float16, whose length and quotients were each rounded
/// by 2⁻¹¹ at most.
const ROUNDING: f64 = 1.0 / 1024.0;

/// Some rows that follow one another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddingsBatch {
    /// Unit rows `[len, dim]`: embeddings of the images.
    pub images: Vec<f32>,
    /// Unit rows `[len, dim]`: embeddings of the captions, where the folder has them.
    pub texts: Option<Vec<f32>>,
    /// For each row the image's path, else its url; empty where the metadata have neither.
    pub image_paths: Vec<String>,
    /// For each row the caption; none is blank.
    pub captions: Vec<String>,
    /// Rows among these that were left out.
    pub skipped: SkippedRows,
    /// Rows, of images or of texts, that were off unit length by more than float16's rounding and were divided by their length.
    pub renormalized: u64,
}

impl EmbeddingsBatch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// Whether all rows were left out.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }
}

/// Rows that were left out, by why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedRows {
    /// The caption is null, blank, or longer than 64 KiB.
    pub caption: u64,
    /// An embedding holds a NaN or an infinity.
    pub not_finite: u64,
    /// An embedding is all zeros.
    pub zero: u64,
}

impl SkippedRows {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.caption + self.not_finite + self.zero
    }
}

/// Batches of the rows of some parts, in order.
///
/// A part that turns out damaged gives one error in the place of the rest of its rows; the next part follows.
pub struct Batches<'a> {
    parts: std::slice::Iter<'a, EmbeddingsPart>,
    open: Option<OpenPart>,
    rows: usize,
}

impl<'a> Batches<'a> {
    pub(super) fn new(parts: &'a [EmbeddingsPart], rows: usize) -> Batches<'a> {
        Batches { parts: parts.iter(), open: None, rows: rows.max(1) }
    }
}

impl std::fmt::Debug for Batches<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("parts_left", &self.parts.len()).finish_non_exhaustive()
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<EmbeddingsBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => match OpenPart::new(self.parts.next()?) {
                    Ok(open) => self.open.insert(open),
                    Err(error) => return Some(Err(error)),
                },
            };
            let batch = if open.left == 0 { Ok(None) } else { open.batch(self.rows).map(Some) };
            match batch {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => self.open = None,
                Err(error) => {
                    self.open = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// A part that is being read.
struct OpenPart {
    images: MatrixReader,
    texts: Option<MatrixReader>,
    captions: Cursor,
    image_paths: Option<Cursor>,
    urls: Option<Cursor>,
    dim: usize,
    left: u64,
}

impl OpenPart {
    fn new(part: &EmbeddingsPart) -> Result<OpenPart> {
        let columns = Columns::open(&part.metadata)?;
        let cursor = |leaf| Cursor::new(&columns.file, leaf, MAX_CAPTION_BYTES);
        Ok(OpenPart {
            images: part.images.reader()?,
            texts: part.texts.as_ref().map(|texts| texts.reader()).transpose()?,
            captions: cursor(columns.caption),
            image_paths: columns.image_path.map(cursor),
            urls: columns.url.map(cursor),
            dim: part.dim(),
            left: part.rows(),
        })
    }

    /// The next rows, up to `max` of them.
    fn batch(&mut self, max: usize) -> Result<EmbeddingsBatch> {
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(max);
        // Fewer where a row group ends.
        let captions = self.captions.read(max)?;
        let rows = captions.len();
        let aligned = |cursor: &mut Option<Cursor>| -> Result<Option<Rows>> {
            let Some(cursor) = cursor else { return Ok(None) };
            let found = cursor.read(rows)?;
            if found.len() == rows && rows > 0 {
                return Ok(Some(found));
            }
            Err(SourceError::Damaged {
                path: cursor.file().to_owned(),
                expected: format!("{max} more rows in every column"),
                found: format!("{} and {rows}", found.len()),
            }
            .into())
        };
        let image_paths = aligned(&mut self.image_paths)?;
        let urls = aligned(&mut self.urls)?;
        self.left -= rows as u64;

        let mut batch = EmbeddingsBatch {
            images: Vec::with_capacity(rows * self.dim),
            texts: self.texts.as_ref().map(|_| Vec::with_capacity(rows * self.dim)),
            ..EmbeddingsBatch::default()
        };
        let (mut image, mut text) = (vec![0.0; self.dim], vec![0.0; self.dim]);
        for row in 0..rows {
            self.images.read_row(&mut image)?;
            if let Some(texts) = &mut self.texts {
                texts.read_row(&mut text)?;
            }
            let Some(caption) = caption(captions.first(row)) else {
                batch.skipped.caption += 1;
                continue;
            };
            let mut lengths = vec![normalize(&mut image)];
            if self.texts.is_some() {
                lengths.push(normalize(&mut text));
            }
            if lengths.contains(&Length::NotFinite) {
                batch.skipped.not_finite += 1;
                continue;
            }
            if lengths.contains(&Length::Zero) {
                batch.skipped.zero += 1;
                continue;
            }
            batch.renormalized += u64::from(lengths.contains(&Length::Other));
            batch.images.extend_from_slice(&image);
            if let Some(texts) = &mut batch.texts {
                texts.extend_from_slice(&text);
            }
            let name =
                [&image_paths, &urls].into_iter().flatten().find_map(|column| match column.first(row) {
                    Cell::Bytes(name) if !name.is_empty() => Some(decode_text(name).text),
                    _ => None,
                });
            batch.image_paths.push(name.unwrap_or_default());
            batch.captions.push(caption);
        }
        Ok(batch)
    }
}

/// A caption that is worth keeping.
fn caption(value: Cell<'_>) -> Option<String> {
    let Cell::Bytes(value) = value else { return None };
    let caption = decode_text(value).text.trim().to_owned();
    (!caption.is_empty()).then_some(caption)
}

/// What a row's length was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Unit,
    Zero,
    NotFinite,
    Other,
}

/// Divides a row by its length unless that is 1, within rounding, or none.
fn normalize(row: &mut [f32]) -> Length {
    // The squares of finite f32 neither overflow nor vanish in f64.
    let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return Length::NotFinite;
    }
    if length == 0.0 {
        return Length::Zero;
    }
    if (length - 1.0).abs() <= ROUNDING {
        return Length::Unit;
    }
    for value in row {
        *value = (f64::from(*value) / length) as f32;
    }
    Length::Other
}

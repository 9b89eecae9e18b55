//! The part that rows go to: embeddings in growing npy files, strings in a journal, everything else when it is closed.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;

use super::checksum::Running;
use super::files::remove_file_if_there;
use super::layout::{ALL_SERIES, IMAGES, LOOKUP, METADATA, Modality, Series, TEXTS};
use super::manifest::{Checksums, PartInfo};
use super::metadata::Metadata;
use super::npy::{NpyMatrix, NpyWriter};
use super::staging::OpenRows;
use super::{checksum, lookup};
use crate::error::{AtPath, Result};
use crate::search::codes;
use crate::store::StoreError;

/// A part that is being written, below a staging folder.
pub(super) struct OpenPart {
    root: PathBuf,
    number: usize,
    dim: usize,
    images: NpyWriter,
    texts: NpyWriter,
    journal: Journal,
    metadata: Metadata,
}

impl OpenPart {
    /// Starts part `number`.
    pub fn create(root: &Path, number: usize, dim: usize) -> Result<OpenPart> {
        Ok(OpenPart {
            root: root.to_owned(),
            number,
            dim,
            images: NpyWriter::create(IMAGES.path(root, number), dim)?,
            texts: NpyWriter::create(TEXTS.path(root, number), dim)?,
            journal: Journal::create(journal_path(root, number))?,
            metadata: Metadata::default(),
        })
    }

    /// Takes part `number` up where `left` says.
    pub fn resume(root: &Path, number: usize, dim: usize, left: &OpenRows) -> Result<OpenPart> {
        let (journal, metadata) = Journal::resume(journal_path(root, number), left)?;
        let resume = |series: Series| {
            NpyWriter::resume(series.path(root, number), dim, left.rows, left.sha256(series.name))
        };
        Ok(OpenPart {
            root: root.to_owned(),
            number,
            dim,
            images: resume(IMAGES)?,
            texts: resume(TEXTS)?,
            journal,
            metadata,
        })
    }

    /// The files of part `number` that grow.
    pub fn growing_files(root: &Path, number: usize) -> Vec<PathBuf> {
        let mut files = vec![journal_path(root, number)];
        for series in [IMAGES, TEXTS] {
            let path = series.path(root, number);
            files.push(path.with_extension("npy.tmp"));
            files.push(path);
        }
        files
    }

    /// Appends a row.
    pub fn push(
        &mut self,
        image_path: &str,
        caption: &str,
        image_row: &[f16],
        text_row: &[f16],
    ) -> Result<()> {
        self.images.push(image_row)?;
        self.texts.push(text_row)?;
        self.journal.push(image_path, caption)?;
        self.metadata.image_paths.push(image_path);
        self.metadata.captions.push(caption);
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.images.rows()
    }

    /// Bytes of all strings, which are also held in memory until the part is closed.
    pub fn text_bytes(&self) -> usize {
        self.metadata.image_paths.bytes() + self.metadata.captions.bytes()
    }

    /// The strings so far.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads an image embedding back.
    pub fn read_image(&mut self, row: u64, out: &mut [f16]) -> Result<()> {
        self.images.read_row(row, out)
    }

    /// Reads a text embedding back.
    pub fn read_text(&mut self, row: u64, out: &mut [f16]) -> Result<()> {
        self.texts.read_row(row, out)
    }

    /// Makes all rows durable; returns what a checkpoint keeps of them.
    pub fn sync(&mut self) -> Result<OpenRows> {
        let (images, texts) = (self.images.sync()?, self.texts.sync()?);
        let (journal_bytes, journal) = self.journal.sync()?;
        let sha256 = [(IMAGES.name, images), (TEXTS.name, texts), (JOURNAL, journal)];
        let sha256 = sha256.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(OpenRows { rows: self.rows(), journal_bytes, sha256 })
    }

    /// Writes what a whole part has, under its final names. The journal stays until [`remove_journal`]: an
    /// earlier checkpoint may still need it.
    pub fn close(self) -> Result<PartInfo> {
        let OpenPart { root, number, dim, images, texts, metadata, .. } = self;
        let rows = images.rows();
        images.finish()?;
        texts.finish()?;
        metadata.write(&METADATA.path(&root, number))?;
        lookup::write(&LOOKUP.path(&root, number), &metadata)?;
        for modality in [Modality::Image, Modality::Text] {
            write_codes(&root, number, modality, rows, dim)?;
        }
        Ok(PartInfo { number, rows, sha256: checksums(&root, number, &ALL_SERIES)? })
    }
}

/// Writes the 8-bit copy of a part's embeddings.
pub(super) fn write_codes(
    root: &Path,
    number: usize,
    modality: Modality,
    rows: u64,
    dim: usize,
) -> Result<()> {
    let matrix = NpyMatrix::open(&modality.series().path(root, number), rows, dim)?;
    codes::write(&modality.codes().path(root, number), matrix.data(), dim)
}

/// Checksums of a part's files.
pub(super) fn checksums(root: &Path, number: usize, series: &[Series]) -> Result<Checksums> {
    series
        .iter()
        .map(|series| Ok((series.name.to_owned(), checksum::of_file(&series.path(root, number))?)))
        .collect()
}

fn journal_path(root: &Path, number: usize) -> PathBuf {
    root.join(METADATA.name).join(format!("strings_{number:04}.journal"))
}

/// Removes the journal of a part that a checkpoint calls closed.
pub(super) fn remove_journal(root: &Path, number: usize) -> Result<()> {
    remove_file_if_there(&journal_path(root, number))
}

/// Strings in the order of the rows: length of the path and of the caption as u32, then both.
struct Journal {
    file: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    checksum: Running,
}

/// The journal's name among checksums.
const JOURNAL: &str = "strings";

impl Journal {
    fn create(path: PathBuf) -> Result<Journal> {
        let file = File::create(&path).at("create", &path)?;
        Ok(Journal { file: BufWriter::new(file), path, bytes: 0, checksum: Running::default() })
    }

    fn push(&mut self, image_path: &str, caption: &str) -> Result<()> {
        let lengths = [image_path, caption].map(|s| (s.len() as u32).to_le_bytes());
        for bytes in [&lengths[0], &lengths[1], image_path.as_bytes(), caption.as_bytes()] {
            self.file.write_all(bytes).at("write", &self.path)?;
            self.checksum.update(bytes);
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes all of it durable; returns its length and checksum.
    fn sync(&mut self) -> Result<(u64, String)> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).at("write", &self.path)?;
        Ok((self.bytes, self.checksum.value()))
    }

    /// Reads the rows back that `left` speaks of and goes on behind them.
    fn resume(path: PathBuf, left: &OpenRows) -> Result<(Journal, Metadata)> {
        let (rows, bytes) = (left.rows, left.journal_bytes);
        let damaged = |found: &str| {
            StoreError::Damaged {
                path: path.clone(),
                expected: format!("{rows} rows"),
                found: found.to_owned(),
            }
            .into()
        };
        let mut file = File::options().read(true).write(true).open(&path).at("open", &path)?;
        let checksum = Running::of_next(&mut file, bytes, &path)?;
        if checksum.value() != left.sha256(JOURNAL) {
            return Err(damaged("other strings"));
        }
        file.rewind().at("read", &path)?;
        let mut reader = BufReader::new(&file).take(bytes);
        let mut metadata = Metadata::default();
        let mut lengths = [0; 8];
        for _ in 0..rows {
            reader.read_exact(&mut lengths).map_err(|_| damaged("its end"))?;
            let [path_bytes, caption_bytes] = [&lengths[..4], &lengths[4..]]
                .map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            for (length, strings) in
                [(path_bytes, &mut metadata.image_paths), (caption_bytes, &mut metadata.captions)]
            {
                if length > reader.limit() {
                    return Err(damaged("a string beyond its end"));
                }
                let mut string = vec![0; length as usize];
                reader.read_exact(&mut string).map_err(|_| damaged("its end"))?;
                strings
                    .push(std::str::from_utf8(&string).map_err(|_| damaged("a string that is not UTF-8"))?);
            }
        }
        if reader.limit() != 0 {
            return Err(damaged("more"));
        }
        file.set_len(bytes).at("cut", &path)?;
        file.seek(SeekFrom::Start(bytes)).at("read", &path)?;
        Ok((Journal { file: BufWriter::new(file), path, bytes, checksum }, metadata))
    }
}

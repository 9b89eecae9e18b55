//! Sources of pairs by kind, and how a path's kind is found out.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use xmore_files::table::TableKind;
use xmore_files::text::TextReader;
use xmore_files::{LeftOut, MAX_DEPTH, Reason, WalkOptions, has_images, open_regular, walk_extension};

use super::column_names::ColumnNames;
use super::embeddings::EmbeddingsFolder;
use super::{Ingested, coco, extension, folder, parquet, table, tar_members, webdataset};
use crate::error::{AtPath, MemoryError, Result};
use crate::ingest::SourceError;
use crate::store::IMAGES;

/// What a path is to be read as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputFormat {
    /// What it looks like.
    #[default]
    Auto,
    /// A folder of images with captions beside them.
    Files,
    /// A table: `.csv`, `.tsv`, `.jsonl`, or a `.json` with a list of objects.
    Table,
    /// `.parquet` files.
    Parquet,
    /// Tars, as img2dataset writes them.
    Webdataset,
    /// COCO's captions, a `.json`.
    Coco,
    /// Embeddings, as clip-retrieval writes them.
    Embeddings,
}

impl InputFormat {
    /// All formats by the names that a command line takes.
    pub const NAMES: [(&str, InputFormat); 7] = [
        ("auto", InputFormat::Auto),
        ("files", InputFormat::Files),
        ("table", InputFormat::Table),
        ("parquet", InputFormat::Parquet),
        ("webdataset", InputFormat::Webdataset),
        ("coco", InputFormat::Coco),
        ("embeddings", InputFormat::Embeddings),
    ];
}

impl fmt::Display for InputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = InputFormat::NAMES.iter().find(|(_, format)| format == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for InputFormat {
    type Err = String;

    /// Reads one of [`InputFormat::NAMES`].
    fn from_str(text: &str) -> Result<InputFormat, String> {
        let found = InputFormat::NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, format)| *format)
            .ok_or_else(|| format!("expected one of {}", InputFormat::NAMES.map(|(name, _)| name).join(", ")))
    }
}

/// What [`Source::detect`] should know beyond the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Folder that the relative image paths of a table, of parquet files and of COCO are relative to; by default that of the file.
    pub image_root: Option<PathBuf>,
    /// Which files of a folder are looked at.
    pub walk: WalkOptions,
    /// Columns that are not to be found by their usual names.
    pub columns: ColumnNames,
}

/// A source of pairs, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A folder of images, each with its captions in a file beside it or in a `metadata` table.
    Folder {
        /// The folder.
        path: PathBuf,
        /// See [`SourceOptions::walk`].
        walk: WalkOptions,
        /// See [`SourceOptions::columns`].
        columns: ColumnNames,
    },
    /// A table with an image column and a caption column.
    Table {
        /// The table.
        path: PathBuf,
        /// How its rows are written.
        kind: TableKind,
        /// See [`SourceOptions::image_root`].
        image_root: Option<PathBuf>,
        /// See [`SourceOptions::columns`].
        columns: ColumnNames,
    },
    /// Parquet files with captions, and images or their paths.
    Parquet {
        /// The files in order.
        files: Vec<PathBuf>,
        /// See [`SourceOptions::image_root`].
        image_root: Option<PathBuf>,
        /// See [`SourceOptions::columns`].
        columns: ColumnNames,
        /// What was left out of the folder that was given, if it was one.
        left_out: LeftOut,
    },
    /// Tars, as img2dataset writes them.
    WebDataset {
        /// The tars in order.
        tars: Vec<PathBuf>,
        /// The folder that was given, if it was one: its loose images are counted.
        folder: Option<PathBuf>,
        /// See [`SourceOptions::walk`].
        walk: WalkOptions,
        /// What was left out of that folder.
        left_out: LeftOut,
    },
    /// COCO's captions.
    Coco {
        /// The `.json`.
        path: PathBuf,
        /// See [`SourceOptions::image_root`].
        image_root: Option<PathBuf>,
    },
    /// Embeddings, as clip-retrieval writes them. They have rows, not pairs of images: [`EmbeddingsFolder::batches`].
    Embeddings(EmbeddingsFolder),
}

impl Source {
    /// Finds out what kind of source `path` is, by its name and its first bytes, or takes it as `format` says.
    ///
    /// A folder with `img_emb` in it is clip-retrieval's; one with tars that hold images is a webdataset; one with an image
    /// anywhere below is a folder of images, else a folder of parquet files if there are some.
    ///
    /// # Errors
    /// [`MemoryError::Io`] if there is nothing at `path`, [`SourceError::UnknownKind`] or [`SourceError::WrongKind`] if it
    /// is of another kind, and those of [`EmbeddingsFolder::open`].
    pub fn detect(path: impl AsRef<Path>, format: InputFormat, options: &SourceOptions) -> Result<Source> {
        let path = path.as_ref();
        if std::fs::metadata(path).at("open", path)?.is_dir() {
            return of_folder(path, format, options);
        }
        let (path_buf, image_root, columns) =
            (path.to_owned(), options.image_root.clone(), options.columns.clone());
        let format = match format {
            InputFormat::Auto => guess(path)?,
            format => format,
        };
        let (expected, extensions, magic): (_, &[&str], _) = match format {
            InputFormat::Table => ("a table", &[], Magic::Other),
            InputFormat::Parquet => ("parquet", &["parquet"], Magic::Parquet),
            InputFormat::Webdataset => ("a webdataset tar", &["tar"], Magic::Tar),
            InputFormat::Coco => ("COCO captions in .json", &["json"], Magic::Other),
            InputFormat::Files => {
                return Err(wrong(path, "a folder of images", "a file", "give the folder that holds it"));
            }
            InputFormat::Embeddings => {
                let hint = "give the folder that holds img_emb and metadata";
                return Err(wrong(path, "a folder of clip-retrieval's embeddings", "a file", hint));
            }
            InputFormat::Auto => unreachable!("guessed above"),
        };
        let found = Magic::of(path)?;
        if found != magic {
            return Err(wrong(path, expected, found.name(), found.hint()));
        }
        // References to tars and parquet files are told from plain paths by the extension.
        if !extensions.is_empty() && !extensions.contains(&extension(path).as_str()) {
            return Err(wrong(
                path,
                expected,
                "another extension",
                &format!("rename it to .{}", extensions[0]),
            ));
        }
        Ok(match format {
            InputFormat::Table => {
                Source::Table { kind: table_kind(path), path: path_buf, image_root, columns }
            }
            InputFormat::Coco => Source::Coco { path: path_buf, image_root },
            InputFormat::Webdataset => Source::WebDataset {
                tars: vec![path_buf],
                folder: None,
                walk: options.walk.clone(),
                left_out: LeftOut::default(),
            },
            _ => {
                let (files, left_out) = (vec![path_buf], LeftOut::default());
                Source::Parquet { files, image_root, columns, left_out }
            }
        })
    }

    /// Reads all pairs of the source, as light references: no image is opened. Bad rows and images without a caption are skipped
    /// and listed; where a file is damaged, what comes before is kept.
    ///
    /// # Errors
    /// Only what makes the source as a whole unusable: it cannot be opened, lacks a column, holds no images; and
    /// [`Source::Embeddings`], which has none.
    pub fn read(&self) -> Result<Ingested> {
        let mut ingested = match self {
            Source::Folder { path, walk, columns } => folder::read(path, walk, columns),
            Source::Table { path, kind, image_root, columns } => {
                table::read(path, *kind, image_root.as_deref(), columns)
            }
            Source::Parquet { files, image_root, columns, .. } => {
                parquet::read(files, image_root.as_deref(), columns)
            }
            Source::WebDataset { tars, .. } => return self.read_files(0..tars.len()),
            Source::Coco { path, image_root } => coco::read(path, image_root.as_deref()),
            Source::Embeddings(folder) => {
                let hint = "its embeddings are taken as they are, without an encoder";
                return Err(wrong(folder.path(), "images with captions", "embeddings", hint));
            }
        }?;
        if let Source::Parquet { left_out, .. } = self {
            ingested.left_out.merge(left_out.clone());
        }
        Ok(ingested)
    }

    /// The files that can be read apart from each other: what they give together, in their order, is what [`read`](Self::read) gives.
    /// `None` for a source that is read as a whole.
    pub fn files(&self) -> Option<&[PathBuf]> {
        match self {
            Source::WebDataset { tars, .. } => Some(tars),
            _ => None,
        }
    }

    /// As [`read`](Self::read), but reads only a range of [`files`](Self::files); all of a source that has none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_files(&self, range: Range<usize>) -> Result<Ingested> {
        let Source::WebDataset { tars, folder, walk, left_out } = self else { return self.read() };
        let is_last = range.end == tars.len();
        let mut ingested = webdataset::read(tars, range, folder.as_deref(), walk)?;
        if is_last {
            ingested.left_out.merge(left_out.clone());
        }
        Ok(ingested)
    }
}

fn of_folder(path: &Path, format: InputFormat, options: &SourceOptions) -> Result<Source> {
    let walk = &options.walk;
    let columns = || options.columns.clone();
    let files = || Source::Folder { path: path.to_owned(), walk: walk.clone(), columns: columns() };
    let tars = |depth| files_below(path, "tar", depth, walk);
    let parquets = || files_below(path, "parquet", MAX_DEPTH, walk);
    let webdataset = |(tars, left_out)| Source::WebDataset {
        tars,
        folder: Some(path.to_owned()),
        walk: walk.clone(),
        left_out,
    };
    let image_root = || options.image_root.clone();
    let parquet =
        |(files, left_out)| Source::Parquet { files, image_root: image_root(), columns: columns(), left_out };
    match format {
        InputFormat::Auto => {}
        InputFormat::Files => return Ok(files()),
        InputFormat::Embeddings => return EmbeddingsFolder::open(path).map(Source::Embeddings),
        InputFormat::Webdataset => {
            let found = tars(MAX_DEPTH)?;
            return match found.0.is_empty() {
                true => Err(without(path, "a folder of webdataset tars", "no .tar in it", &found.1)),
                false => Ok(webdataset(found)),
            };
        }
        InputFormat::Parquet => {
            let found = parquets()?;
            return match found.0.is_empty() {
                true => Err(without(path, "a folder of parquet files", "no .parquet in it", &found.1)),
                false => Ok(parquet(found)),
            };
        }
        InputFormat::Table => return Err(wrong(path, "a table", "a folder", "give the file")),
        InputFormat::Coco => return Err(wrong(path, "COCO captions in .json", "a folder", "give the file")),
    }
    if path.join(IMAGES.name).is_dir() {
        return EmbeddingsFolder::open(path).map(Source::Embeddings);
    }
    let hold_images = |tars: &[PathBuf]| tars.iter().any(|tar| webdataset::holds_images(tar));
    let found = tars(1)?;
    if hold_images(&found.0) {
        return Ok(webdataset(found));
    }
    if has_images(path, walk).at("list", path)? {
        return Ok(files());
    }
    let found = tars(MAX_DEPTH)?;
    if hold_images(&found.0) {
        return Ok(webdataset(found));
    }
    let mut left_out = found.1;
    let found = parquets()?;
    if !found.0.is_empty() {
        return Ok(parquet(found));
    }
    left_out.merge(found.1);
    if left_out.reasons().iter().any(|row| matches!(row.reason, Reason::NotRegular { .. })) {
        return Err(without(path, "images, tars or parquet files", "none of them", &left_out));
    }
    Ok(files())
}

/// The error for a folder that has nothing of what is looked for.
fn without(path: &Path, expected: &'static str, found: &str, left_out: &LeftOut) -> MemoryError {
    let left_out = if left_out.is_empty() { String::new() } else { format!(" ({left_out})") };
    wrong(path, expected, &format!("{found}{left_out}"), "check the path")
}

/// Files of an extension in a folder, down to a depth, sorted by path, and what was left out.
fn files_below(
    folder: &Path,
    wanted: &str,
    depth: usize,
    options: &WalkOptions,
) -> Result<(Vec<PathBuf>, LeftOut)> {
    let walked = walk_extension(folder, wanted, depth, options).at("list", folder)?;
    Ok((walked.files, walked.left_out))
}

/// The format that a file's extension promises.
fn guess(path: &Path) -> Result<InputFormat> {
    let extension = extension(path);
    let hint = match extension.as_str() {
        _ if TableKind::of_name(path).is_some() => return Ok(InputFormat::Table),
        "parquet" => return Ok(InputFormat::Parquet),
        "tar" => return Ok(InputFormat::Webdataset),
        "json" if holds_objects(path).at("read", path)? => return Ok(InputFormat::Table),
        "json" => return Ok(InputFormat::Coco),
        other => match (Magic::of(path)?, other) {
            (magic @ (Magic::Tar | Magic::Parquet | Magic::Gzip), _) => {
                format!("it is {}: {}", magic.name(), magic.hint())
            }
            (_, "txt") => "rename the file to .csv or .tsv if it is a table".to_owned(),
            _ if super::is_image_name(path) => "give the folder that holds the image".to_owned(),
            (_, "npy") => "give the folder that holds img_emb and metadata".to_owned(),
            (_, "") => "the file has no extension".to_owned(),
            (_, other) => format!("a .{other} file cannot be read"),
        },
    };
    Err(SourceError::UnknownKind { path: path.to_owned(), hint }.into())
}

/// How the rows of a table are written, by its name; anything but JSON has separators.
fn table_kind(path: &Path) -> TableKind {
    let json = extension(path) == "json";
    let other = if json { TableKind::Objects } else { TableKind::Separated { preferred: b',' } };
    TableKind::of_name(path).unwrap_or(other)
}

/// Whether a `.json` holds objects one after another, in a list or in lines, rather than one object as COCO's.
fn holds_objects(path: &Path) -> std::io::Result<bool> {
    const HEAD_BYTES: u64 = 64 * 1024;
    let mut head = Vec::new();
    TextReader::new(open_regular(path)?).take(HEAD_BYTES).read_to_end(&mut head)?;
    let head = head.trim_ascii_start();
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let is_object = |line: &[u8]| line.starts_with(b"{") && line.ends_with(b"}");
    Ok(head.starts_with(b"[")
        || (lines.next().is_some_and(is_object) && lines.next().is_some_and(|line| line.starts_with(b"{"))))
}

/// What a file's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magic {
    Parquet,
    Tar,
    Gzip,
    Zip,
    Empty,
    Other,
}

impl Magic {
    fn of(path: &Path) -> Result<Magic> {
        let mut head = Vec::new();
        open_regular(path).and_then(|file| file.take(512).read_to_end(&mut head)).at("read", path)?;
        Ok(match &head[..] {
            [] => Magic::Empty,
            head if head.starts_with(b"PAR1") => Magic::Parquet,
            head if head.starts_with(b"\x1f\x8b") => Magic::Gzip,
            head if head.starts_with(b"PK\x03\x04") => Magic::Zip,
            head if tar_members::is_tar(head) => Magic::Tar,
            _ => Magic::Other,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Magic::Parquet => "a parquet file",
            Magic::Tar => "a tar",
            Magic::Gzip => "a gzip file",
            Magic::Zip => "a zip file",
            Magic::Empty => "an empty file",
            Magic::Other => "something else, or a damaged file",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Magic::Parquet => "rename it to .parquet",
            Magic::Tar => "rename it to .tar",
            Magic::Gzip => "unpack it first, with gunzip",
            Magic::Zip => "unpack it and give the folder",
            Magic::Empty => "fetch or write it again",
            Magic::Other => "check the path and the format",
        }
    }
}

fn wrong(path: &Path, expected: &'static str, found: &str, hint: &str) -> MemoryError {
    SourceError::WrongKind { path: path.to_owned(), expected, found: found.to_owned(), hint: hint.to_owned() }
        .into()
}

#[cfg(test)]
mod tests;

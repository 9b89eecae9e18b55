//! Where an image's bytes are: a file, a member of a tar, a cell of a parquet file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore_files::{path_from_text, path_to_text};

/// Where an image's bytes are. [`ImageReader`](super::ImageReader) reads them.
///
/// Its text, by [`Display`](fmt::Display), is what a memory records as the image's path, and [`ImageRef::parse`] is the way back:
/// a file's plain path, `PATH.tar#NAME`, or `PATH.parquet#ROW`, with paths as [`path_to_text`] has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageRef {
    /// A file of its own.
    File(PathBuf),
    /// A member of an uncompressed tar.
    TarMember {
        /// The tar; its name ends in `.tar`.
        tar: Arc<Path>,
        /// The member's name.
        name: String,
        /// Where its data are, `None` where only its name is known.
        span: Option<Span>,
    },
    /// A cell of a parquet file's image column.
    ParquetCell {
        /// The file; its name ends in `.parquet`.
        file: Arc<Path>,
        /// Row of the file, counted from 0.
        row: u64,
    },
}

/// A range of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Where it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl ImageRef {
    /// Reads what [`Display`](fmt::Display) wrote. Whatever is neither `….tar#…` nor `….parquet#` and a number is a file.
    pub fn parse(text: &str) -> ImageRef {
        if let Some((file, row)) = text.rsplit_once('#')
            && has_extension(file, ".parquet")
            && row.bytes().all(|b| b.is_ascii_digit())
            && let Ok(row) = row.parse()
        {
            return ImageRef::ParquetCell { file: path_from_text(file).into(), row };
        }
        let member = text.match_indices('#').find(|&(at, _)| has_extension(&text[..at], ".tar"));
        if let Some((at, _)) = member.filter(|(at, _)| at + 1 < text.len()) {
            let (tar, name) = (path_from_text(&text[..at]).into(), text[at + 1..].to_owned());
            return ImageRef::TarMember { tar, name, span: None };
        }
        ImageRef::File(path_from_text(text))
    }

    /// Whether its text is faithful: a path that is not UTF-8 cannot be read back from it.
    pub(super) fn is_utf8(&self) -> bool {
        let path = match self {
            ImageRef::File(path) => path,
            ImageRef::TarMember { tar, .. } => &**tar,
            ImageRef::ParquetCell { file, .. } => &**file,
        };
        path.to_str().is_some()
    }
}

/// Whether a path ends in `extension` (with its dot, any case) after something else.
fn has_extension(path: &str, extension: &str) -> bool {
    let (path, extension) = (path.as_bytes(), extension.as_bytes());
    path.len() > extension.len() && path[path.len() - extension.len()..].eq_ignore_ascii_case(extension)
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageRef::File(path) => f.write_str(&path_to_text(path)),
            ImageRef::TarMember { tar, name, .. } => write!(f, "{}#{name}", path_to_text(tar)),
            ImageRef::ParquetCell { file, row } => write!(f, "{}#{row}", path_to_text(file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(tar: &str, name: &str) -> ImageRef {
        ImageRef::TarMember { tar: Path::new(tar).into(), name: name.to_owned(), span: None }
    }

    #[test]
    fn each_kind_is_known_by_its_text() {
        for (text, image) in [
            ("/data/a b.jpg", ImageRef::File("/data/a b.jpg".into())),
            ("00000.tar#000000001.jpg", member("00000.tar", "000000001.jpg")),
            ("a/B.TAR#x/y#z.png", member("a/B.TAR", "x/y#z.png")),
            ("a#1/00.tar#x.tar#y.png", member("a#1/00.tar", "x.tar#y.png")),
            ("x.parquet#12", ImageRef::ParquetCell { file: Path::new("x.parquet").into(), row: 12 }),
            ("x.parquet#", ImageRef::File("x.parquet#".into())),
            ("x.parquet#1a", ImageRef::File("x.parquet#1a".into())),
            ("x.parquet#99999999999999999999", ImageRef::File("x.parquet#99999999999999999999".into())),
            ("00000.tar#", ImageRef::File("00000.tar#".into())),
            (".tar#a", ImageRef::File(".tar#a".into())),
            ("photo #3.jpg", ImageRef::File("photo #3.jpg".into())),
        ] {
            assert_eq!(ImageRef::parse(text), image);
            assert_eq!(image.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_parsed_back(folder in "[a-z#./é]{0,12}", name in "[a-z#./é0-9]{1,12}", row: u64) {
            let cell = ImageRef::ParquetCell { file: Path::new(&format!("{folder}x.parquet")).into(), row };
            prop_assert_eq!(ImageRef::parse(&cell.to_string()), cell);
            let tar = format!("{}x.tar", folder.replace(".tar#", ""));
            // A name that ends as a cell does would be read as one; img2dataset's end in an image's extension.
            let image = member(&tar, &format!("{name}.jpg"));
            prop_assert_eq!(ImageRef::parse(&image.to_string()), image);
        }

        #[test]
        fn any_text_keeps_its_spelling(text in "\\PC{0,20}|[a-z.#]{0,6}(\\.tar|\\.parquet)#[a-z0-9.#]{0,6}") {
            let again = ImageRef::parse(&text).to_string();
            // Numbers lose their leading zeros.
            let cell = matches!(ImageRef::parse(&text), ImageRef::ParquetCell { .. });
            prop_assert!(cell || again == text, "{} became {}", text, again);
        }
    }
}

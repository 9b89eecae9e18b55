//! Where an image's bytes are: a file, a member of a tar, a cell of a parquet file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore_files::{name_from_text, name_to_text, name_to_uri, path_from_text, path_to_text};

/// Where an image's bytes are. [`ImageReader`](super::ImageReader) reads them.
///
/// Its text, by [`Display`](fmt::Display), is what a memory records as the image's path, and [`ImageRef::parse`] is the way back:
/// a file's plain path, `PATH.tar#NAME`, or `PATH.parquet#ROW`, with paths and names as [`path_to_text`] has them. Those whose own `#`
/// could be taken for the separator are escaped as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageRef {
    /// A file of its own.
    File(PathBuf),
    /// A member of an uncompressed tar.
    TarMember {
        /// The tar; its name ends in `.tar`.
        tar: Arc<Path>,
        /// The member's name, which may be any bytes.
        name: Vec<u8>,
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
            let (tar, name) = (path_from_text(&text[..at]).into(), name_from_text(&text[at + 1..]));
            return ImageRef::TarMember { tar, name, span: None };
        }
        ImageRef::File(path_from_text(text))
    }

    /// The same with the path of its file relative to `folder`, unless it is absolute.
    pub fn below(self, folder: &Path) -> ImageRef {
        match self {
            ImageRef::File(path) => ImageRef::File(folder.join(path)),
            ImageRef::TarMember { tar, name, span } => {
                ImageRef::TarMember { tar: folder.join(tar).into(), name, span }
            }
            ImageRef::ParquetCell { file, row } => {
                ImageRef::ParquetCell { file: folder.join(file).into(), row }
            }
        }
    }

    /// Its text with paths and names written by `text_of`.
    fn text(&self, text_of: impl Fn(&[u8]) -> String) -> String {
        let of_path = |path: &Path| text_of(path.as_os_str().as_encoded_bytes());
        match self {
            ImageRef::File(path) => of_path(path),
            ImageRef::TarMember { tar, name, .. } => format!("{}#{}", of_path(tar), text_of(name)),
            ImageRef::ParquetCell { file, row } => format!("{}#{row}", of_path(file)),
        }
    }

    /// Whether it is the image of a text.
    fn is_parsed_from(&self, text: &str) -> bool {
        match (ImageRef::parse(text), self) {
            (
                ImageRef::TarMember { tar: parsed, name: parsed_name, .. },
                ImageRef::TarMember { tar, name, .. },
            ) => parsed == *tar && parsed_name == *name,
            (parsed, image) => parsed == *image,
        }
    }
}

/// Whether a path ends in `extension` (with its dot, any case) after something else.
fn has_extension(path: &str, extension: &str) -> bool {
    let (path, extension) = (path.as_bytes(), extension.as_bytes());
    path.len() > extension.len() && path[path.len() - extension.len()..].eq_ignore_ascii_case(extension)
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ImageRef::File(path) = self {
            let text = path_to_text(path);
            if !text.contains('#') {
                return f.write_str(&text);
            }
        }
        let text = self.text(|name| name_to_text(name).into_owned());
        match self.is_parsed_from(&text) {
            true => f.write_str(&text),
            false => f.write_str(&self.text(name_to_uri)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(tar: &str, name: &str) -> ImageRef {
        ImageRef::TarMember { tar: Path::new(tar).into(), name: name.into(), span: None }
    }

    #[cfg(unix)]
    #[test]
    fn names_of_any_bytes_have_a_text() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let member = |tar: &[u8], name: &[u8]| ImageRef::TarMember {
            tar: path(tar).into(),
            name: name.to_vec(),
            span: None,
        };
        for (image, text) in [
            (ImageRef::File(path(b"caf\xe9.jpg")), "file:caf%E9.jpg"),
            (member(b"caf\xe9/0.tar", b"1.jpg"), "file:caf%E9/0.tar#1.jpg"),
            (member(b"0.tar", b"\xe9#1.jpg"), "0.tar#file:%E9%231.jpg"),
            (ImageRef::ParquetCell { file: path(b"\xff#.parquet").into(), row: 3 }, "file:%FF%23.parquet#3"),
        ] {
            assert_eq!(image.to_string(), text);
            assert_eq!(ImageRef::parse(text), image);
        }
    }

    #[test]
    fn a_name_that_looks_like_another_kind_is_escaped() {
        for (image, text) in [
            (ImageRef::File("a.tar#b.jpg".into()), "file:a.tar%23b.jpg"),
            (ImageRef::File("a.parquet#7".into()), "file:a.parquet%237"),
            (member("a.tar#b/0.tar", "1.jpg"), "file:a.tar%23b/0.tar#file:1.jpg"),
            (member("a.tar", "b.parquet#7"), "file:a.tar#file:b.parquet%237"),
        ] {
            assert_eq!(image.to_string(), text);
            assert_eq!(ImageRef::parse(text), image);
        }
    }

    #[test]
    fn what_a_table_names_is_relative_to_its_folder() {
        for (text, below) in
            [("a.jpg", "/d/a.jpg"), ("a.tar#b.jpg", "/d/a.tar#b.jpg"), ("/x.parquet#1", "/x.parquet#1")]
        {
            assert_eq!(ImageRef::parse(text).below(Path::new("/d")).to_string(), below);
        }
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
            for image in [
                member(&format!("{folder}x.tar"), &name),
                member(&format!("{folder}x.tar"), &format!("{name}.parquet#{row}")),
                ImageRef::File(format!("{folder}{name}").into()),
                ImageRef::File(format!("{folder}.tar#{name}").into()),
            ] {
                prop_assert_eq!(ImageRef::parse(&image.to_string()), image);
            }
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

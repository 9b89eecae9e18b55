//! The files beside an image that hold its captions, under any of the names that programs give them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use xmore_files::open_regular;

use super::caption::{self, Captions, Lines};
use super::note::Conversions;
use super::{SkipReason, extension};

/// Extensions of files with a text: img2dataset's, and kohya's trainers'.
pub(super) const TEXTS: [&str; 2] = ["txt", "caption"];
/// Extension of img2dataset's metadata.
pub(super) const JSON: &str = "json";

/// Names of files by what [`folded`] makes of them.
type Names = HashMap<Vec<u8>, Vec<OsString>>;

/// Looks for captions beside images. Folders are listed once, since a name may be in any case.
#[derive(Default)]
pub(super) struct Sidecars {
    folders: HashMap<PathBuf, Names>,
    /// Those that are not UTF-8.
    pub conversions: Conversions,
}

impl Sidecars {
    /// The first line of `a.txt`, `a.caption` or `a.jpg.txt`; where that gives nothing, the captions in `a.json` or `a.jpg.json`.
    pub fn captions_of(&mut self, image: &Path) -> Result<Vec<String>, SkipReason> {
        let (Some(folder), Some(name)) = (image.parent(), image.file_name()) else {
            return Err(SkipReason::NoCaption);
        };
        let name = name.as_encoded_bytes();
        let stem = name.iter().rposition(|&byte| byte == b'.').map_or(name, |dot| &name[..dot]);
        let mut text = None;
        for path in self.find(folder, [stem, name], &TEXTS) {
            let found = self.read(&path, |file| caption::of_text(file, Lines::First));
            text = caption::first(text, Some(found));
            if matches!(text, Some(Ok(_))) {
                break;
            }
        }
        let mut json = None;
        if !matches!(text, Some(Ok(_))) {
            let path = self.find(folder, [stem, name], &[JSON]).into_iter().next();
            json = path.map(|path| self.read(&path, caption::of_json));
        }
        caption::choose(text, json)
    }

    /// Files in a folder of one of these stems and extensions, in this order.
    fn find(&mut self, folder: &Path, stems: [&[u8]; 2], extensions: &[&str]) -> Vec<PathBuf> {
        let name = |stem: &[u8], extension: &&str| [stem, b".", extension.as_bytes()].concat();
        let names = stems.iter().flat_map(|stem| extensions.iter().map(move |e| name(stem, e)));
        names.filter_map(|name| self.file(folder, &name)).collect()
    }

    /// The file of this name in a folder, in any case; that of the very name where there are several.
    pub fn file(&mut self, folder: &Path, name: &[u8]) -> Option<PathBuf> {
        if !self.folders.contains_key(folder) {
            self.folders.insert(folder.to_owned(), list(folder));
        }
        let names = self.folders[folder].get(&folded(name))?;
        let found = names.iter().find(|found| found.as_encoded_bytes() == name).or(names.first())?;
        Some(folder.join(found))
    }

    fn read<T>(
        &mut self,
        path: &Path,
        read: impl FnOnce(File) -> io::Result<Captions<T>>,
    ) -> Result<T, SkipReason> {
        let unreadable = |error: io::Error| SkipReason::Unreadable(format!("{}: {error}", path.display()));
        let (captions, conversion) = open_regular(path).and_then(read).map_err(unreadable)?;
        if captions.is_ok() {
            self.conversions.add(conversion);
        }
        captions
    }
}

/// A name in lower case; bytes that are not UTF-8 stay as they are.
fn folded(name: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        folded.extend(chunk.valid().to_lowercase().as_bytes());
        folded.extend(chunk.invalid());
    }
    folded
}

/// Files of a folder that may hold captions. One that cannot be listed has none.
fn list(folder: &Path) -> Names {
    let mut names = Names::new();
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let extension = extension(Path::new(&name));
        let holds_captions = TEXTS.contains(&extension.as_str()) || extension == JSON;
        let folded = folded(name.as_encoded_bytes());
        if holds_captions || folded.starts_with(b"metadata.") {
            names.entry(folded).or_default().push(name);
        }
    }
    // The order of a folder's list is the file system's.
    names.values_mut().for_each(|names| names.sort());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn captions_are_found_under_any_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let captions = |files: &[(&str, &str)], image: &str| {
            let folder = tempfile::tempdir_in(dir.path()).unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            Sidecars::default().captions_of(&folder.path().join(image)).map(|captions| captions.join("|"))
        };
        for (name, image) in [
            ("a.txt", "A.JPG"),
            ("A.TXT", "a.jpg"),
            ("a.Txt", "a.jpg"),
            ("a.jpg.txt", "a.jpg"),
            ("a.caption", "a.jpg"),
            ("a.JPG.txt", "a.jpg"),
            ("a.b.txt", "a.b.png"),
        ] {
            assert_eq!(captions(&[(name, "one\ntwo")], image), Ok("one".to_owned()), "{name} of {image}");
        }
        for name in ["a.json", "A.Json", "a.jpg.json"] {
            assert_eq!(captions(&[(name, r#"{"caption": "one"}"#)], "a.jpg"), Ok("one".to_owned()), "{name}");
        }
        let both = [("a.txt", "small"), ("A.txt", "large"), ("a.caption", "other")];
        assert_eq!(captions(&both, "A.jpg"), Ok("large".to_owned()));
        assert_eq!(captions(&both, "a.jpg"), Ok("small".to_owned()));
        assert_eq!(captions(&[("a.txt", " "), ("a.caption", "one")], "a.jpg"), Ok("one".to_owned()));
        assert_eq!(captions(&[("a.txt", " "), ("a.json", "{}")], "a.jpg"), Err(SkipReason::EmptyCaption));
        assert_eq!(captions(&[("b.txt", "x"), ("a.md", "x")], "a.jpg"), Err(SkipReason::NoCaption));
    }

    #[test]
    fn text_of_other_encodings_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut sidecars = Sidecars::default();
        let files = [("a", &b"caf\xe9"[..]), ("b", b"\xff\xfec\0\xe9\0"), ("c", b"caf\xe9")];
        for (name, text) in files {
            fs::write(dir.path().join(name).with_extension("txt"), text).unwrap();
        }
        for (name, _) in files {
            assert!(
                sidecars.captions_of(&dir.path().join(name).with_extension("jpg")).unwrap()[0].contains('é')
            );
        }
        let note = sidecars.conversions.note("x").unwrap().to_string();
        assert_eq!(note, "x: in 2 files of captions: 2 bytes not UTF-8, read as Windows-1252");
    }
}

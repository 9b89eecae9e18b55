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
const TEXTS: [&str; 2] = ["txt", "caption"];
/// Extension of img2dataset's metadata.
const JSON: &str = "json";

/// Looks for captions beside images. Folders are listed once, since a name may be in any case.
#[derive(Default)]
pub(super) struct Sidecars {
    folders: HashMap<PathBuf, HashMap<String, Vec<OsString>>>,
    /// Those that are not UTF-8.
    pub conversions: Conversions,
}

impl Sidecars {
    /// The first line of `a.txt`, `a.caption` or `a.jpg.txt`; where that gives nothing, the captions in `a.json` or `a.jpg.json`.
    pub fn captions_of(&mut self, image: &Path) -> Result<Vec<String>, SkipReason> {
        let (Some(folder), Some(name)) = (image.parent(), image.file_name().and_then(|name| name.to_str()))
        else {
            return Err(SkipReason::PathNotUtf8);
        };
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let mut text = None;
        for path in self.find(folder, [stem, name], &TEXTS) {
            let found = self.read(&path, |file| caption::of_text(file, Lines::First));
            // The reason of the first is told, unless another has a caption.
            if found.is_ok() || text.is_none() {
                text = Some(found);
            }
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
    fn find(&mut self, folder: &Path, stems: [&str; 2], extensions: &[&str]) -> Vec<PathBuf> {
        let names = stems.iter().flat_map(|stem| extensions.iter().map(move |e| format!("{stem}.{e}")));
        names.filter_map(|name| self.file(folder, &name)).collect()
    }

    /// The file of this name in a folder, in any case; that of the very name where there are several.
    pub fn file(&mut self, folder: &Path, name: &str) -> Option<PathBuf> {
        if !self.folders.contains_key(folder) {
            self.folders.insert(folder.to_owned(), list(folder));
        }
        let names = self.folders[folder].get(&name.to_lowercase())?;
        let found = names.iter().find(|found| *found == name).or(names.first())?;
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

/// Files of a folder that may hold captions, by their names in lower case. One that cannot be listed has none.
fn list(folder: &Path) -> HashMap<String, Vec<OsString>> {
    let mut names: HashMap<String, Vec<OsString>> = HashMap::new();
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let extension = extension(Path::new(&name));
        let holds_captions = TEXTS.contains(&extension.as_str()) || extension == JSON;
        let lower = name.to_str().map(str::to_lowercase);
        if let Some(lower) = lower.filter(|lower| holds_captions || lower.starts_with("metadata.")) {
            names.entry(lower).or_default().push(name);
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

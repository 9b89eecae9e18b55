//! What makes two pairs the same, and which pairs a memory has, as 16-byte digests.
//!
//! A pair of an image and a caption is known by the image's path and the caption's text. Paths are compared with the links of their
//! folders resolved and without `.` and `..`, so that one file has one key however its folder was named; a name that is itself a link
//! stays what it is. The same picture under another name is another pair. A row of embeddings has no file to tell it from others, so
//! its image embedding, as it is stored, counts too.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::hash::{BuildHasher, Hash, RandomState};
use std::path::{Component, Path, PathBuf};

use half::f16;

use super::reader::Memory;
use crate::error::Result;
use crate::ingest::ImageRef;

/// Digest of a pair under keys of this process: two of a billion pairs collide with a chance below 10⁻²⁰.
pub type PairKey = [u64; 2];

/// Folders whose resolved path is kept.
const KEPT_FOLDERS: usize = 1 << 16;

/// Makes the keys of pairs. Keys of different makers do not compare.
#[derive(Default)]
pub struct PairKeys {
    hashers: [RandomState; 2],
    folders: HashMap<PathBuf, PathBuf>,
}

impl PairKeys {
    /// Key of a pair of an image, by the text of its [`ImageRef`], and a caption.
    pub fn of_pair(&mut self, image: &str, caption: &str) -> PairKey {
        let image = self.resolved(&ImageRef::parse(image));
        self.key(&(image, caption))
    }

    /// Key of a row of embeddings: the path or name that it came with, its caption, and its image embedding.
    pub fn of_row(&self, name: &str, caption: &str, image: &[f32]) -> PairKey {
        let stored: Vec<u16> = image.iter().map(|&value| f16::from_f32(value).to_bits()).collect();
        self.key(&(name, caption, stored))
    }

    /// Key of an image alone, by the text of its [`ImageRef`].
    pub fn of_image(&mut self, image: &str) -> PairKey {
        let image = self.resolved(&ImageRef::parse(image));
        self.key(&image)
    }

    fn key(&self, value: &impl Hash) -> PairKey {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(value))
    }

    /// File, and what tells the image within it.
    fn resolved(&mut self, image: &ImageRef) -> (PathBuf, Vec<u8>) {
        match image {
            ImageRef::File(path) => (self.resolved_path(path), Vec::new()),
            ImageRef::TarMember { tar, name, .. } => (self.resolved_path(tar), [b"#", &**name].concat()),
            ImageRef::ParquetCell { file, row } => (self.resolved_path(file), format!("#{row}").into()),
        }
    }

    fn resolved_path(&mut self, path: &Path) -> PathBuf {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return plain(path) };
        if let Some(resolved) = self.folders.get(folder) {
            return resolved.join(name);
        }
        // A folder that is not there now has no links to resolve; a relative one is a name that came with embeddings.
        let resolved = match folder.is_absolute() {
            true => std::fs::canonicalize(folder).unwrap_or_else(|_| plain(folder)),
            false => plain(folder),
        };
        if self.folders.len() == KEPT_FOLDERS {
            self.folders.clear();
        }
        self.folders.insert(folder.to_owned(), resolved.clone());
        resolved.join(name)
    }
}

/// A path without `.` and `..`, by its text alone.
fn plain(path: &Path) -> PathBuf {
    let mut parts: Vec<OsString> = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if parts.last().is_some_and(|last| last != ".." && last != "/") => {
                parts.pop();
            }
            component => parts.push(component.as_os_str().to_owned()),
        }
    }
    parts.iter().collect()
}

/// By which keys pairs are to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBy {
    /// By [`PairKeys::of_pair`].
    pub pairs: bool,
    /// By [`PairKeys::of_row`].
    pub rows: bool,
}

/// Keys of the rows that are there.
#[derive(Debug, Default)]
pub struct KnownPairs {
    /// Keys of pairs of an image and a caption.
    pub pairs: HashSet<PairKey>,
    /// Keys of rows of embeddings.
    pub rows: HashSet<PairKey>,
}

impl KnownPairs {
    /// Keys of all rows of a memory.
    ///
    /// # Errors
    /// Those of reading its strings.
    pub fn of_memory(memory: &Memory, keys: &mut PairKeys, by: KnownBy) -> Result<KnownPairs> {
        let mut known = KnownPairs::default();
        let mut image = vec![0.0; memory.dim()];
        for id in 0..memory.len() {
            if by.rows {
                memory.image_embedding(id, &mut image)?;
            }
            known.add(keys, by, memory.image_path(id)?, memory.caption(id)?, &image);
        }
        Ok(known)
    }

    /// Adds a row's keys.
    pub(super) fn add(&mut self, keys: &mut PairKeys, by: KnownBy, path: &str, caption: &str, image: &[f32]) {
        if by.pairs {
            self.pairs.insert(keys.of_pair(path, caption));
        }
        if by.rows {
            self.rows.insert(keys.of_row(path, caption, image));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_one_key_however_it_is_spelled() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let text = |name: &str| root.join(name).display().to_string();
        let mut keys = PairKeys::default();
        let plain = keys.of_pair(&text("a/x.jpg"), "a dog");
        for same in ["a/./x.jpg", "a/b/../x.jpg", "a//x.jpg", "../"] {
            let same = if same == "../" {
                format!("{}/../{}/a/x.jpg", root.display(), root.file_name().unwrap().display())
            } else {
                text(same)
            };
            assert_eq!(keys.of_pair(&same, "a dog"), plain, "{same}");
        }
        for other in ["a/X.jpg", "a/b/x.jpg", "x.jpg", "a/x.jpg#1"] {
            assert_ne!(keys.of_pair(&text(other), "a dog"), plain, "{other}");
        }
        assert_ne!(keys.of_pair(&text("a/x.jpg"), "a Dog"), plain);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
            assert_eq!(keys.of_pair(&text("link/x.jpg"), "a dog"), plain);
            let member = keys.of_pair(&text("a/0.tar#x.jpg"), "a dog");
            assert_eq!(keys.of_pair(&text("link/0.tar#x.jpg"), "a dog"), member);
            assert_ne!(keys.of_pair(&text("link/0.tar#y.jpg"), "a dog"), member);
            // A name that is a link is a name of its own.
            std::os::unix::fs::symlink(root.join("a/x.jpg"), root.join("a/y.jpg")).unwrap();
            assert_ne!(keys.of_pair(&text("a/y.jpg"), "a dog"), plain);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_compared_by_its_text() {
        let mut keys = PairKeys::default();
        let gone = keys.of_pair("/not/there/x.jpg", "a");
        assert_eq!(keys.of_pair("/not/there/./y/../x.jpg", "a"), gone);
        assert_eq!(keys.of_pair("000000001", "a"), keys.of_pair("./000000001", "a"));
        assert_eq!(plain(Path::new("../../x")), Path::new("../../x"));
        assert_eq!(plain(Path::new("/../x")), Path::new("/../x"));
    }

    #[test]
    fn rows_of_embeddings_are_told_apart_by_what_is_stored_of_them() {
        let keys = PairKeys::default();
        let row = keys.of_row("0", "a", &[0.6, 0.8]);
        assert_eq!(keys.of_row("0", "a", &[0.6 + 1e-6, 0.8]), row, "the same in float16");
        assert_ne!(keys.of_row("0", "a", &[0.8, 0.6]), row);
        assert_ne!(keys.of_row("1", "a", &[0.6, 0.8]), row);
    }
}

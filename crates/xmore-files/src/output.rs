//! Result files: whole or not at all where the target is a regular file or absent, written through where it is anything else.
//!
//! | target | what happens |
//! |---|---|
//! | absent, regular file | written to a temporary file beside it, made durable, renamed; permissions and owner are kept |
//! | link to one of these | the same for the file that it leads to; the link stays |
//! | file with further names, or of an owner that cannot be given | as above, but the finished bytes are copied into it |
//! | `-`, `/dev/stdout`, `/dev/stderr`, `/dev/fd/N` | written to that open file |
//! | FIFO, character or block device | opened and written through |
//! | folder, socket | refused |

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

use crate::regular::{FileKind, NotRegular};
use crate::replace::{folder_of, temporary_beside};

/// Links that are followed to one target, as on Linux.
const MAX_LINKS: usize = 40;

/// Temporary files that are not yet renamed, for [`remove_unfinished_outputs`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Writes a result file: `write` gets a buffered writer, and a regular target changes only if it succeeds. Missing folders are made.
///
/// # Errors
/// Those of `write` and of the system; [`NotRegular`] for a folder or a socket.
pub fn write_output(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut output = Output::create(path)?;
    write(&mut output)?;
    output.commit()
}

/// Removes the temporary files of outputs that are not committed: for a program that is about to exit without unwinding.
pub fn remove_unfinished_outputs() {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in unfinished.drain(..) {
        // One that has been renamed or removed meanwhile is none.
        let _ = fs::remove_file(path);
    }
}

/// Whether a path stands for standard output.
pub fn is_standard_output(path: &Path) -> bool {
    matches!(follow(path), Ok((_, Some(1))))
}

/// A result that is being written. Dropped before [`Output::commit`], it leaves a regular target as it was.
pub struct Output(Kind);

enum Kind {
    Whole(Box<BufWriter<Temporary>>),
    Through(BufWriter<Box<dyn Write>>),
}

impl Output {
    /// Finds out what `path` leads to and opens it, so that most failures show before any work.
    ///
    /// # Errors
    /// Those of the system, such as a read-only target; [`NotRegular`] for a folder or a socket.
    pub fn create(path: &Path) -> io::Result<Self> {
        let (target, stream) = follow(path)?;
        let through = |stream: Box<dyn Write>| Ok(Self(Kind::Through(BufWriter::new(stream))));
        match stream {
            Some(1) => return through(Box::new(io::stdout())),
            Some(2) => return through(Box::new(io::stderr())),
            // A regular file behind a descriptor is opened anew: at its end, or what others wrote to it would be lost.
            Some(_) => return through(Box::new(OpenOptions::new().append(true).open(&target)?)),
            None => {}
        }
        let existing = match fs::metadata(&target) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match existing.as_ref().and_then(|metadata| FileKind::of(metadata.file_type())) {
            None => {}
            Some(kind @ FileKind::Directory) => {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, NotRegular { kind }));
            }
            Some(kind @ FileKind::Socket) => return Err(io::Error::other(NotRegular { kind })),
            Some(_) => return through(Box::new(OpenOptions::new().write(true).open(&target)?)),
        }
        if existing.is_some() {
            // A rename would replace a file that its owner has made read-only.
            OpenOptions::new().write(true).open(&target)?;
        } else if target == path {
            fs::create_dir_all(folder_of(&target))?;
        }
        Ok(Self(Kind::Whole(Box::new(BufWriter::new(Temporary::beside(target, existing)?)))))
    }

    /// The regular file, there or to be, that the result takes the place of; `None` where it is written through.
    pub fn replaces(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Whole(file) => Some(&file.get_ref().target),
            Kind::Through(_) => None,
        }
    }

    /// Makes the result durable and puts it in its place.
    ///
    /// # Errors
    /// Those of the system; a regular target is then as it was, unless it had to be written in place.
    pub fn commit(self) -> io::Result<()> {
        match self.0 {
            Kind::Whole(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.publish(),
            Kind::Through(mut stream) => stream.flush(),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.0 {
            Kind::Whole(file) => &mut **file,
            Kind::Through(stream) => stream,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// A temporary file and the regular file, there or to be, that it becomes.
struct Temporary {
    file: NamedTempFile,
    target: PathBuf,
    existing: Option<Metadata>,
}

impl Temporary {
    fn beside(target: PathBuf, existing: Option<Metadata>) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".xmore-").suffix(".tmp");
        let file = temporary_beside(&target, &mut builder)?;
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(file.path().to_owned());
        Ok(Self { file, target, existing })
    }

    fn publish(mut self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        let in_place = match &self.existing {
            Some(existing) => !self.replaces(existing)?,
            None => false,
        };
        if in_place {
            return self.overwrite();
        }
        let renamed = fs::rename(self.file.path(), &self.target);
        match renamed {
            // A file that is mounted by itself can only be written in place.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.overwrite(),
            Err(error) => Err(error),
            Ok(()) => {
                // Some file systems cannot sync a folder; the rename itself is done.
                #[cfg(unix)]
                let _ = File::open(folder_of(&self.target)).and_then(|folder| folder.sync_all());
                Ok(())
            }
        }
    }

    /// Gives the temporary file the owner and permissions of the existing one; whether it can then replace it.
    fn replaces(&self, existing: &Metadata) -> io::Result<bool> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, fchown};
            if existing.nlink() > 1 {
                return Ok(false);
            }
            let ours = self.file.as_file().metadata()?;
            let (owner, group) = (existing.uid(), existing.gid());
            if (ours.uid(), ours.gid()) != (owner, group)
                && fchown(self.file.as_file(), Some(owner), Some(group)).is_err()
            {
                return Ok(false);
            }
        }
        self.file.as_file().set_permissions(existing.permissions())?;
        Ok(true)
    }

    fn overwrite(&mut self) -> io::Result<()> {
        self.file.as_file_mut().rewind()?;
        let mut target = OpenOptions::new().write(true).truncate(true).open(&self.target)?;
        io::copy(self.file.as_file_mut(), &mut target)?;
        target.sync_all()
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = self.file.path();
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != path);
    }
}

/// Where links lead from `path`, and the number of the open file if that is one of ours.
fn follow(path: &Path) -> io::Result<(PathBuf, Option<u32>)> {
    if path == Path::new("-") {
        return Ok((path.to_owned(), Some(1)));
    }
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Some(number) = open_file(&at) {
            return Ok((at, Some(number)));
        }
        match fs::symlink_metadata(&at) {
            // Links of `/proc` lead to open files, not to the paths that they show.
            Ok(metadata) if metadata.is_symlink() && !at.starts_with("/proc") => {
                at = folder_of(&at).join(fs::read_link(&at)?);
            }
            _ => return Ok((at, None)),
        }
    }
    Err(io::Error::other("too many links"))
}

/// The number of an open file of this process that a path names.
#[cfg(unix)]
fn open_file(path: &Path) -> Option<u32> {
    let text = path.to_str()?;
    match text {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        _ => ["/dev/fd/", "/proc/self/fd/"].iter().find_map(|prefix| text.strip_prefix(prefix)?.parse().ok()),
    }
}

/// The same where no path names one.
#[cfg(not(unix))]
fn open_file(_: &Path) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
        write_output(path, |file| file.write_all(bytes))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_with_its_folders_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/out");
        put(&path, b"first, and longer").unwrap();
        put(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(path.parent().unwrap()), ["out"]);
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        put(&path, b"good").unwrap();
        let failed = write_output(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the rest did not come"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the rest did not come");
        assert_eq!(fs::read(&path).unwrap(), b"good");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = put(dir.path(), b"").unwrap_err();
        assert_eq!(NotRegular::of(&error), Some(FileKind::Directory));
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
        use std::os::unix::net::UnixListener;
        use std::process::Command;

        use super::*;

        #[test]
        fn a_link_stays_and_its_file_is_written() {
            let dir = tempfile::tempdir().unwrap();
            let (file, link, second) =
                (dir.path().join("real/out"), dir.path().join("link"), dir.path().join("second"));
            fs::create_dir(dir.path().join("real")).unwrap();
            symlink("real/out", &link).unwrap();
            symlink("link", &second).unwrap();
            // First absent, then there.
            for bytes in [b"first", b"again"] {
                put(&second, bytes).unwrap();
                assert_eq!(fs::read(&file).unwrap(), bytes);
                assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
                assert!(fs::symlink_metadata(&second).unwrap().is_symlink());
            }
            assert_eq!(names(dir.path()), ["link", "real", "second"]);
            // For a link into a missing folder nothing is created: perhaps a disk is not mounted.
            symlink("missing/out", dir.path().join("stray")).unwrap();
            assert_eq!(put(&dir.path().join("stray"), b"").unwrap_err().kind(), io::ErrorKind::NotFound);
            assert!(!dir.path().join("missing").exists());
            symlink("loop", dir.path().join("loop")).unwrap();
            assert!(put(&dir.path().join("loop"), b"").is_err());
        }

        #[test]
        fn fifos_and_devices_are_written_through() {
            let dir = tempfile::tempdir().unwrap();
            let fifo = dir.path().join("fifo");
            assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
            let link = dir.path().join("link");
            symlink(&fifo, &link).unwrap();
            for path in [&fifo, &link] {
                let from = fifo.clone();
                let reader = std::thread::spawn(move || fs::read(from).unwrap());
                put(path, b"through").unwrap();
                assert_eq!(reader.join().unwrap(), b"through");
                assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
            }
            put(Path::new("/dev/null"), b"nothing").unwrap();
            assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        }

        #[test]
        fn a_socket_is_refused() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let _listener = UnixListener::bind(&path).unwrap();
            assert_eq!(NotRegular::of(&put(&path, b"").unwrap_err()), Some(FileKind::Socket));
        }

        #[test]
        fn permissions_and_further_names_are_kept() {
            let dir = tempfile::tempdir().unwrap();
            let (path, other) = (dir.path().join("out"), dir.path().join("other"));
            put(&path, b"first").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            put(&path, b"second").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            fs::hard_link(&path, &other).unwrap();
            put(&path, b"3rd").unwrap();
            assert_eq!(fs::read(&other).unwrap(), b"3rd");
            assert_eq!(names(dir.path()), ["other", "out"]);
        }

        #[test]
        fn a_read_only_file_is_refused_as_the_system_does() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            fs::write(&path, "kept").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
            // Root may write it all the same.
            let allowed = OpenOptions::new().write(true).open(&path).is_ok();
            assert_eq!(put(&path, b"new").is_ok(), allowed);
            assert_eq!(fs::read(&path).unwrap(), if allowed { b"new".as_slice() } else { b"kept" });
        }

        #[test]
        fn standard_output_has_several_names() {
            let dir = tempfile::tempdir().unwrap();
            let link = dir.path().join("link");
            symlink("/dev/stdout", &link).unwrap();
            for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", link.to_str().unwrap()] {
                assert!(is_standard_output(Path::new(name)), "{name}");
            }
            for name in ["out", "/dev/stderr", "/dev/null", "./-"] {
                assert!(!is_standard_output(Path::new(name)), "{name}");
            }
        }
    }
}

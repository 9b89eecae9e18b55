//! Regular files opened and read within a bound: a FIFO, a device or a socket under a file's name never blocks the caller.
//!
//! Opening a FIFO waits for a writer, reading a terminal for a user, and `/dev/zero` never ends. Paths that come from folders, tables or
//! other data are therefore opened with [`open_regular`]; only a text that a user names on the command line, such as bash's `<(…)`, may
//! be a stream, see [`open_input`].

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::{error, fmt};

use serde::{Deserialize, Serialize};

/// What a path leads to where it is no regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A folder.
    Directory,
    /// A named or unnamed pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, such as a terminal or `/dev/zero`.
    CharacterDevice,
    /// A block device, such as a disk.
    BlockDevice,
    /// What the system has beyond these.
    Other,
}

impl FileKind {
    /// The kind of a file that is not regular, `None` of a regular one. Links count as kind `Other`: follow them first.
    pub fn of(file_type: FileType) -> Option<Self> {
        if file_type.is_file() {
            return None;
        }
        if file_type.is_dir() {
            return Some(Self::Directory);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if file_type.is_fifo() {
                return Some(Self::Fifo);
            }
            if file_type.is_socket() {
                return Some(Self::Socket);
            }
            if file_type.is_char_device() {
                return Some(Self::CharacterDevice);
            }
            if file_type.is_block_device() {
                return Some(Self::BlockDevice);
            }
        }
        Some(Self::Other)
    }

    /// Its name in messages and counts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "folder",
            Self::Fifo => "FIFO",
            Self::Socket => "socket",
            Self::CharacterDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Other => "special file",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error, within an [`io::Error`], of a path that leads to something else than a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRegular {
    /// What it leads to.
    pub kind: FileKind,
}

impl NotRegular {
    /// The kind in an error of [`open_regular`] or [`read_bounded`], `None` in any other.
    pub fn of(error: &io::Error) -> Option<FileKind> {
        Some(error.get_ref()?.downcast_ref::<Self>()?.kind)
    }
}

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a regular file: {}", self.kind)
    }
}

impl error::Error for NotRegular {}

/// The error, within an [`io::Error`], of a file with more bytes than are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The most bytes that are read.
    pub limit: u64,
    /// The file's length, where it has one: a stream, or a file that grows, has none.
    pub length: Option<u64>,
}

impl TooLarge {
    /// The sizes in an error of [`read_bounded`], `None` in any other.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            Some(length) => write!(f, "too large: {length} bytes, at most {} are read", self.limit),
            None => write!(f, "too large: more than {} bytes", self.limit),
        }
    }
}

impl error::Error for TooLarge {}

/// Opens a regular file for reading; links are followed.
///
/// Neither the opening nor a later read waits for another process. What is not a regular file is not opened, so that nothing happens to
/// a device; a path that becomes one in between is noticed after the opening.
///
/// # Errors
/// [`NotRegular`] within an [`io::Error`] of kind `InvalidInput` (`IsADirectory` for a folder); those of opening.
pub fn open_regular(path: &Path) -> io::Result<File> {
    Ok(open_with_length(path)?.0)
}

/// Reads a regular file of at most `max` bytes, whatever length it claims to have.
///
/// # Errors
/// [`TooLarge`] within an [`io::Error`] of kind `FileTooLarge`; those of [`open_regular`] and of reading.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let (file, length) = open_with_length(path)?;
    if length > max {
        return Err(too_large(max, Some(length)));
    }
    read_all(file, max, length)
}

/// Opens a text that a user names on the command line: a regular file, or a stream such as `/dev/stdin` or bash's `<(…)`.
///
/// Reading a stream waits for its writer, as users expect of it. Not for paths that come from data.
///
/// # Errors
/// [`NotRegular`] within an [`io::Error`] for folders, sockets and block devices; those of opening.
pub fn open_input(path: &Path) -> io::Result<File> {
    match FileKind::of(path.metadata()?.file_type()) {
        None => open_regular(path),
        Some(FileKind::Fifo | FileKind::CharacterDevice) => File::open(path),
        Some(kind) => Err(not_regular(kind)),
    }
}

/// Reads a text that a user names on the command line, as [`open_input`] opens it, of at most `max` bytes.
///
/// # Errors
/// [`TooLarge`] within an [`io::Error`]; those of [`open_input`] and of reading.
pub fn read_input(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open_input(path)?;
    let length = file.metadata()?.len();
    if length > max {
        return Err(too_large(max, Some(length)));
    }
    read_all(file, max, length)
}

fn open_with_length(path: &Path) -> io::Result<(File, u64)> {
    // Opening some devices does something (a tape rewinds, a watchdog starts), so the kind is asked for first.
    let before = path.metadata()?;
    regular(&before)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;
        // Without effect on regular files except those of the kernel that block, such as /proc/kmsg.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    }
    let file = options.open(path)?;
    let after = file.metadata()?;
    regular(&after)?;
    Ok((file, after.len()))
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    FileKind::of(metadata.file_type()).map_or(Ok(()), |kind| Err(not_regular(kind)))
}

fn not_regular(kind: FileKind) -> io::Error {
    let error_kind = match kind {
        FileKind::Directory => io::ErrorKind::IsADirectory,
        _ => io::ErrorKind::InvalidInput,
    };
    io::Error::new(error_kind, NotRegular { kind })
}

fn too_large(limit: u64, length: Option<u64>) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, TooLarge { limit, length })
}

/// The length is only where the buffer starts: files of /proc claim 0 bytes, and a file may grow while it is read.
fn read_all(file: File, max: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(too_large(max, None)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        let error = read_bounded(&path, 4).unwrap_err();
        assert_eq!(TooLarge::of(&error), Some(TooLarge { limit: 4, length: Some(5) }));
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "too large: 5 bytes, at most 4 are read");
        fs::write(&path, b"").unwrap();
        assert_eq!(read_bounded(&path, 0).unwrap(), b"");
        assert_eq!(read_bounded(&dir.path().join("b"), 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_is_named_as_one() {
        let dir = tempfile::tempdir().unwrap();
        for error in [
            open_regular(dir.path()).unwrap_err(),
            open_input(dir.path()).unwrap_err(),
            read_bounded(dir.path(), 9).unwrap_err(),
        ] {
            assert_eq!(NotRegular::of(&error), Some(FileKind::Directory));
            assert_eq!(error.to_string(), "not a regular file: folder");
        }
        assert_eq!(NotRegular::of(&io::Error::other("else")), None);
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::symlink;
        use std::os::unix::net::UnixListener;
        use std::sync::mpsc;
        use std::thread;
        use std::time::Duration;

        use rustix::fs::{CWD, FileType, Mode, mknodat};

        use super::*;

        /// A result that must come at once: a call that waits fails the test instead of stopping it.
        fn soon<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || sender.send(call()));
            receiver.recv_timeout(Duration::from_secs(20)).expect("waits for another process")
        }

        #[test]
        fn what_is_not_a_regular_file_is_refused_without_waiting() {
            let dir = tempfile::tempdir().unwrap();
            let fifo = dir.path().join("fifo");
            mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let socket = dir.path().join("socket");
            let _listener = UnixListener::bind(&socket).unwrap();
            let [to_fifo, to_zero] = ["to_fifo", "to_zero"].map(|name| dir.path().join(name));
            symlink(&fifo, &to_fifo).unwrap();
            symlink("/dev/zero", &to_zero).unwrap();
            for (path, kind) in [
                (fifo, FileKind::Fifo),
                (to_fifo, FileKind::Fifo),
                (socket, FileKind::Socket),
                (to_zero, FileKind::CharacterDevice),
            ] {
                let error = soon(move || read_bounded(&path, 9).unwrap_err());
                assert_eq!(NotRegular::of(&error), Some(kind));
                assert_eq!(error.to_string(), format!("not a regular file: {}", kind.name()));
            }
        }

        #[test]
        fn a_stream_named_by_a_user_is_read_within_its_bound() {
            let dir = tempfile::tempdir().unwrap();
            let fifo = dir.path().join("fifo");
            mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let read = |max| {
                let (path, to) = (fifo.clone(), fifo.clone());
                let writer = thread::spawn(move || fs::write(to, b"church\ndog\n"));
                let read = soon(move || read_input(&path, max));
                let _ = writer.join();
                read
            };
            assert_eq!(read(11).unwrap(), b"church\ndog\n");
            assert_eq!(TooLarge::of(&read(10).unwrap_err()), Some(TooLarge { limit: 10, length: None }));
            let error = soon(|| read_input(Path::new("/dev/zero"), 100).unwrap_err());
            assert_eq!(error.to_string(), "too large: more than 100 bytes");
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn a_file_that_claims_no_length_is_read_within_its_bound() {
            let status = Path::new("/proc/self/status");
            assert_eq!(status.metadata().unwrap().len(), 0);
            assert!(read_bounded(status, 1 << 20).unwrap().starts_with(b"Name:"));
            assert!(TooLarge::of(&read_bounded(status, 4).unwrap_err()).is_some());
        }
    }
}

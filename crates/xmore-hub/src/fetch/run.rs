//! Running a tool: its output kept for messages, its progress read from the growth of a folder.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{FetchEvent, Progress};

/// Most of a tool's output that is ever read back.
const OUTPUT_LIMIT: u64 = 64 * 1024;
/// Lines of error output that go into a message.
const TAIL_LINES: usize = 12;

/// A finished tool's status and output.
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The first 64 KiB of standard output.
    pub stdout: String,
    /// The last lines of standard error, or of standard output where that is empty.
    pub tail: String,
}

/// A folder whose growth measures the progress of a step.
pub struct Watch<'a> {
    /// The step's name.
    pub what: &'a str,
    /// Its bytes, where they are known.
    pub total: Option<u64>,
    /// The folder that grows.
    pub folder: &'a Path,
    /// The receiver of progress.
    pub progress: Progress<'a>,
}

/// Tools that are running, for [`end_tools`]; `None` after it.
static RUNNING: Mutex<Option<Vec<Arc<Mutex<Child>>>>> = Mutex::new(Some(Vec::new()));

/// Ends the tools that fetch something: for a program that is about to exit without unwinding. What they were doing fails, and no further
/// one can be started.
pub fn end_tools() {
    for child in lock(&RUNNING).take().unwrap_or_default() {
        // One that has ended meanwhile is no failure.
        let _ = lock(&child).kill();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that does not outlive us when a caller's closure panics, an error returns early, or the program exits by way of [`end_tools`].
pub struct Guard(Arc<Mutex<Child>>);

impl Guard {
    /// Starts a tool.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::Interrupted`] after [`end_tools`].
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        // Kept while it starts: a tool is either not started or ended.
        let mut running = lock(&RUNNING);
        let Some(children) = running.as_mut() else { return Err(io::ErrorKind::Interrupted.into()) };
        let child = Arc::new(Mutex::new(command.spawn()?));
        children.push(Arc::clone(&child));
        Ok(Self(child))
    }

    /// Its standard output, if that is a pipe and was not taken before.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        lock(&self.0).stdout.take()
    }

    /// Waits until it ends, with `watch` called now and then.
    pub fn wait(&self, mut watch: impl FnMut()) -> io::Result<ExitStatus> {
        let mut pause = Duration::from_millis(5);
        loop {
            // The lock is free while we sleep.
            if let Some(status) = lock(&self.0).try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
            watch();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(children) = lock(&RUNNING).as_mut() {
            children.retain(|child| !Arc::ptr_eq(child, &self.0));
        }
        let mut child = lock(&self.0);
        // Both fail harmlessly on a child that has already been waited for.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs `command` with no input and with its output in files of `logs` (files, not pipes: nothing blocks, whatever the
/// tool writes), until it ends.
pub fn run(command: &mut Command, logs: &Path, watch: Option<&Watch>) -> io::Result<Finished> {
    let (out, err) = (logs.join("stdout"), logs.join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let child = Guard::spawn(command)?;
    let mut seen = 0;
    let status = child.wait(|| {
        if let Some(watch) = watch {
            let now = size_below(watch.folder, 4).min(watch.total.unwrap_or(u64::MAX));
            // A tool may move or drop a file between two looks; progress does not go backwards.
            if now > seen {
                seen = now;
                (watch.progress)(FetchEvent::Bytes { what: watch.what, done: now });
            }
        }
    })?;
    let mut stdout = Vec::new();
    File::open(&out)?.take(OUTPUT_LIMIT).read_to_end(&mut stdout)?;
    let tail = match tail(&err)? {
        empty if empty.is_empty() => tail(&out)?,
        lines => lines,
    };
    Ok(Finished { status, stdout: String::from_utf8_lossy(&stdout).into_owned(), tail })
}

/// The last lines of a log file.
pub fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_LIMIT)))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_LIMIT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

/// The command line as a person would type it, for messages.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A command from its words, of which the first is the program.
pub fn command(words: &[std::ffi::OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Whether starting a program failed because there is none to start.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Bytes in the files of a folder, at most `depth` levels down; what vanishes meanwhile counts nothing.
fn size_below(folder: &Path, depth: usize) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() && depth > 0 => size_below(&entry.path(), depth - 1),
            Ok(meta) if meta.is_file() => meta.len(),
            _ => 0,
        })
        .sum()
}

#[cfg(all(test, unix))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_status_and_tail() {
        let logs = tempfile::tempdir().unwrap();
        let done = run(&mut sh("echo out; seq 1 50 >&2; exit 3"), logs.path(), None).unwrap();
        assert_eq!((done.status.code(), done.stdout.as_str()), (Some(3), "out\n"));
        assert!(done.tail.starts_with("39\n") && done.tail.ends_with("\n50"), "{}", done.tail);
        let done = run(&mut sh("echo only-out"), logs.path(), None).unwrap();
        assert_eq!(done.tail, "only-out");
    }

    #[test]
    fn growth_is_reported_and_never_passes_the_total() {
        let (logs, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let events = RefCell::new(Vec::new());
        let progress = |event: FetchEvent<'_>| {
            if let FetchEvent::Bytes { what: "w", done } = event {
                events.borrow_mut().push(done);
            }
        };
        let watch = Watch { what: "w", total: Some(6), folder: work.path(), progress: &progress };
        let mut command = sh("mkdir d; printf abcd > d/f; sleep 0.4; printf efgh >> d/f; sleep 0.4");
        run(command.current_dir(work.path()), logs.path(), Some(&watch)).unwrap();
        let seen = events.into_inner();
        assert!(seen.contains(&4) && seen.last() == Some(&6), "{seen:?}");
        assert!(seen.is_sorted(), "{seen:?}");
    }

    #[test]
    fn a_program_that_is_not_there() {
        let logs = tempfile::tempdir().unwrap();
        let error = run(&mut Command::new("/nonexistent/tool"), logs.path(), None).err().unwrap();
        assert!(is_absent(&error));
    }
}

//! Obtaining and opening a Debian package with `apt-get` and `dpkg-deb`, without installing it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use xmore_files::is_plain_name;
use xmore_hub::fetch::run::{self, Finished, Guard, Watch};
use xmore_hub::fetch::{FetchEvent, Progress, cache};

use super::pictures::{PicturesError, Result};

pub(crate) const PACKAGE: &str = "tuxpaint-stamps-default";
const OWN_PAIRS_HINT: &str =
    "Or use your own folder of images with captions: `xmore demo --pairs DIR` (folder name = label).";

/// The tools, each as its program and first arguments.
pub(crate) struct Debian {
    pub apt_get: Vec<OsString>,
    pub dpkg_deb: Vec<OsString>,
    /// Whether this process may refresh the package lists.
    pub root: bool,
}

impl Default for Debian {
    fn default() -> Self {
        Self { apt_get: vec!["apt-get".into()], dpkg_deb: vec!["dpkg-deb".into()], root: is_root() }
    }
}

#[cfg(target_os = "linux")]
fn is_root() -> bool {
    // This entry belongs to the process's effective user.
    std::os::unix::fs::MetadataExt::uid(&match fs::metadata("/proc/self") {
        Ok(meta) => meta,
        Err(_) => return false,
    }) == 0
}

#[cfg(not(target_os = "linux"))]
fn is_root() -> bool {
    false
}

impl Debian {
    /// [`PicturesError::ToolMissing`] unless `dpkg-deb` starts; asked before a long download.
    pub fn require_dpkg_deb(&self, logs: &Path) -> Result<()> {
        let mut command = self.command(&self.dpkg_deb);
        self.finish(command.arg("--version"), logs, None).map(|_| ())
    }

    /// Downloads the package into `downloads` and returns the file. apt verifies it against its signed lists. Where apt does not
    /// know the package and we are root, the lists are fetched first: a fresh container has none.
    pub fn download(&self, downloads: &Path, progress: Progress) -> Result<PathBuf> {
        let scratch = cache::scratch(downloads)?;
        let [work, logs] = ["fetched", "logs"].map(|name| scratch.path().join(name));
        cache::create(&work)?;
        cache::create(&logs)?;
        let attempt = || self.attempt(downloads, &work, &logs, progress);
        match attempt() {
            Err(PicturesError::ToolFailed { .. }) if self.root => {
                progress(FetchEvent::Note {
                    message: "apt-get does not have the package; running `apt-get update` (as root)",
                });
                let mut update = self.command(&self.apt_get);
                let updated = self.finish(update.arg("update"), &logs, None)?;
                self.succeeded(&update, &updated, "Check this machine's network and apt sources.")?;
                attempt().map_err(|error| match error {
                    // `apt-get update` succeeds even if it could reach no server; its output is the reason then.
                    PicturesError::ToolFailed { command, status, tail, hint } => PicturesError::ToolFailed {
                        command,
                        status,
                        tail: format!("{tail}\n(before that, `apt-get update` said:)\n{}", updated.tail),
                        hint,
                    },
                    other => other,
                })
            }
            other => other,
        }
    }

    fn attempt(&self, downloads: &Path, work: &Path, logs: &Path, progress: Progress) -> Result<PathBuf> {
        let hint = format!(
            "If apt does not know the package, run `apt-get update` as root and try again; or install it: \
             `apt-get install {PACKAGE}`; or put its .deb file into {}. {OWN_PAIRS_HINT}",
            downloads.display()
        );
        let mut ask = self.command(&self.apt_get);
        let asked = self.finish(ask.args(["download", "--print-uris", PACKAGE]), logs, None)?;
        self.succeeded(&ask, &asked, &hint)?;
        // 'URI' file size hash
        let total = asked.stdout.lines().find_map(|line| line.split_whitespace().nth(2)?.parse().ok());

        progress(FetchEvent::Started { what: PACKAGE, total });
        let mut fetch = self.command(&self.apt_get);
        fetch.args(["download", PACKAGE]).current_dir(work);
        let watch = Watch { what: PACKAGE, total, folder: work, progress };
        let fetched = self.finish(&mut fetch, logs, Some(&watch))?;
        self.succeeded(&fetch, &fetched, &hint)?;
        let found = packages_in(work);
        let Some(package) = found.last() else {
            return Err(PicturesError::ToolFailed {
                command: run::shown(&fetch),
                status: "no .deb file came of it".into(),
                tail: fetched.tail,
                hint,
            });
        };
        let target = downloads.join(package.file_name().unwrap_or_default());
        fs::rename(package, &target).map_err(PicturesError::io("write", &target))?;
        progress(FetchEvent::Done { what: PACKAGE });
        Ok(target)
    }

    /// Version of the package file, e.g. `2022.06.04-1`. Refuses a file that is another package.
    pub fn version(&self, package: &Path, logs: &Path) -> Result<String> {
        let mut command = self.command(&self.dpkg_deb);
        command.arg("--show").arg("--showformat=${Package} ${Version}").arg(package);
        let done = self.finish(&mut command, logs, None)?;
        self.succeeded(&command, &done, &broken_hint(package))?;
        match done.stdout.trim().split_once(' ') {
            Some((PACKAGE, version)) if is_plain_name(&version.replace([':', '~'], "-")) => {
                Ok(version.to_owned())
            }
            _ => Err(PicturesError::Archive {
                path: package.to_owned(),
                reason: format!("expected the package {PACKAGE}, found {:?}", done.stdout.trim()),
            }),
        }
    }

    /// Passes the package's file tree, as a tar stream, to `read`. The result is used only if `dpkg-deb` succeeds.
    pub fn open<T>(
        &self,
        package: &Path,
        logs: &Path,
        read: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let mut command = self.command(&self.dpkg_deb);
        command.arg("--fsys-tarfile").arg(package);
        let log = logs.join("stderr");
        let stderr = File::create(&log).map_err(PicturesError::io("create", &log))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let child = Guard::spawn(&mut command).map_err(|e| self.not_started(&command, e))?;
        let mut stream = child
            .take_stdout()
            .ok_or_else(|| PicturesError::io("read from", "dpkg-deb")(io::ErrorKind::BrokenPipe.into()))?;
        // The rest of the stream is read too: dpkg-deb would fail if the pipe were closed before its end.
        let outcome = read(&mut stream);
        let rest = if outcome.is_ok() { io::copy(&mut stream, &mut io::sink()) } else { Ok(0) };
        drop(stream);
        let status = child.wait(|| {}).map_err(PicturesError::io("wait for", "dpkg-deb"))?;
        // dpkg-deb's error output explains a broken package better than the truncated stream does. A signal comes of our closing the pipe.
        if status.code().is_some_and(|code| code != 0) || (outcome.is_ok() && !status.success()) {
            let tail = run::tail(&log).map_err(PicturesError::io("read", &log))?;
            return Err(failed(&command, status, tail, &broken_hint(package)));
        }
        rest.map_err(PicturesError::io("read from", "dpkg-deb"))?;
        outcome
    }

    fn command(&self, words: &[OsString]) -> Command {
        let mut command = run::command(words);
        command.env("LC_ALL", "C");
        command
    }

    fn finish(&self, command: &mut Command, logs: &Path, watch: Option<&Watch>) -> Result<Finished> {
        run::run(command, logs, watch).map_err(|e| self.not_started(command, e))
    }

    fn not_started(&self, command: &Command, error: io::Error) -> PicturesError {
        let tool = command.get_program();
        if run::is_absent(&error) {
            PicturesError::ToolMissing { tool: tool.to_string_lossy().into_owned() }
        } else {
            PicturesError::io("run", tool)(error)
        }
    }

    fn succeeded(&self, command: &Command, done: &Finished, hint: &str) -> Result<()> {
        if done.status.success() {
            return Ok(());
        }
        Err(failed(command, done.status, done.tail.clone(), hint))
    }
}

fn failed(command: &Command, status: ExitStatus, tail: String, hint: &str) -> PicturesError {
    PicturesError::ToolFailed {
        command: run::shown(command),
        status: status.to_string(),
        tail,
        hint: hint.to_owned(),
    }
}

fn broken_hint(package: &Path) -> String {
    format!("Delete {} and run again.", package.display())
}

/// The package's files in a folder, by name; the last has the highest version (as far as names tell).
pub(crate) fn packages_in(folder: &Path) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with(PACKAGE)
            && name[PACKAGE.len()..].starts_with('_')
            && name.ends_with(".deb")
            && path.is_file()
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(ours).collect();
    found.sort();
    found
}

//! Downloading one wheel with the user's own pip, which knows the user's registry, proxy and certificates.
//!
//! Only `pip download` is used. It installs nothing, and so works without a virtual environment also where the
//! distribution manages Python (PEP 668): pip checks for that in `install` and `uninstall` only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::fetch::run::{self, Watch};
use crate::fetch::{FetchError, ManualDownload, Progress, Result, cache};

/// The pips to try, in order, each as the words that start it.
pub(crate) struct Pip {
    pub candidates: Vec<Vec<OsString>>,
}

impl Default for Pip {
    fn default() -> Self {
        let words: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
        Self { candidates: words.iter().map(|w| w.iter().map(OsString::from).collect()).collect() }
    }
}

/// One wheel to download.
pub(crate) struct Request<'a> {
    /// Requirement with an exact version, e.g. `name==0.1.0`.
    pub requirement: &'a str,
    /// Name and size of the step in progress events.
    pub what: &'a str,
    pub total: u64,
    /// How to go on without pip or network.
    pub by_hand: &'a ManualDownload,
}

impl Pip {
    /// Downloads into a folder of its own within `folder` and returns it. What is in it is unchecked.
    pub fn download(&self, request: &Request, folder: &Path, progress: Progress) -> Result<PathBuf> {
        let [work, logs] = ["fetched", "logs"].map(|name| folder.join(name));
        let [dest, tmp] = ["dest", "tmp"].map(|name| work.join(name));
        for dir in [&dest, &tmp, &logs] {
            cache::create(dir)?;
        }
        let watch = Watch { what: request.what, total: Some(request.total), folder: &work, progress };
        let mut tried = Vec::new();
        for words in &self.candidates {
            let mut command = run::command(words);
            command
                .args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest"])
                .arg(&dest)
                .arg(request.requirement)
                .env("PIP_NO_INPUT", "1")
                .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
                // Meant for installing: a user who forbids that outside environments may still download.
                .env("PIP_REQUIRE_VIRTUALENV", "0")
                // pip collects the file in its temporary folder first; there its growth can be seen.
                .env("TMPDIR", &tmp)
                // `python -m` looks for modules in the current folder first: let that be an empty one.
                .current_dir(&tmp);
            let name = words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
            let done = match run::run(&mut command, &logs, Some(&watch)) {
                Ok(done) => done,
                Err(e) if run::is_absent(&e) => {
                    tried.push(format!("`{name}`: not found"));
                    continue;
                }
                Err(source) => {
                    return Err(FetchError::Io { action: "run", path: words[0].clone().into(), source });
                }
            };
            if done.status.success() {
                return Ok(dest);
            }
            // 127 is what a shell, or a version manager's shim, says for "not found".
            if done.status.code() == Some(127) {
                tried.push(format!("`{name}`: not found"));
            } else if done.tail.contains("No module named pip") {
                tried.push(format!("`{name}`: this Python has no pip"));
            } else {
                return Err(FetchError::PipFailed {
                    command: run::shown(&command),
                    status: done.status.to_string(),
                    tail: done.tail,
                    by_hand: Box::new(request.by_hand.clone()),
                });
            }
        }
        Err(FetchError::PipMissing { tried: tried.join(", "), by_hand: Box::new(request.by_hand.clone()) })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// `sh -c script sh download …`: started through `sh`, so that no test executes a file it has just written.
    fn sh(script: &str) -> Vec<OsString> {
        ["sh", "-c", script, "sh"].iter().map(OsString::from).collect()
    }

    fn download(candidates: Vec<Vec<OsString>>) -> (tempfile::TempDir, Result<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let by_hand = ManualDownload { requirements: vec!["thing==1"], ..ManualDownload::default() };
        let request = Request { requirement: "thing==1", what: "thing", total: 5, by_hand: &by_hand };
        let result = Pip { candidates }.download(&request, folder.path(), &|_| ());
        (folder, result)
    }

    #[test]
    fn missing_ones_are_passed_over() {
        let nothing = vec![OsString::from("/nonexistent/python3"), "-m".into(), "pip".into()];
        let no_pip = sh("echo \"$0: No module named pip\" >&2; exit 1");
        let shim = sh("exit 127");
        let works = sh(r#"while [ "$1" != --dest ]; do shift; done; printf '%s %s' "$3" "$PWD" > "$2/got""#);
        let (_keep, dest) = download(vec![nothing, no_pip, shim, works]);
        let got = std::fs::read_to_string(dest.unwrap().join("got")).unwrap();
        assert!(got.starts_with("thing==1 ") && got.ends_with("/fetched/tmp"), "{got}");
    }

    #[test]
    fn with_none_left_each_that_was_tried_is_named() {
        let (_keep, result) =
            download(vec![vec!["/nonexistent/python3".into()], sh("echo No module named pip >&2; exit 1")]);
        let error = result.unwrap_err();
        assert!(
            matches!(&error, FetchError::PipMissing { by_hand, .. } if by_hand.requirements == ["thing==1"])
        );
        let text = error.to_string();
        for part in ["/nonexistent/python3`: not found", "has no pip"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_real_failure_ends_the_search_and_shows_what_pip_said() {
        let fails = sh("echo 'ERROR: No matching distribution found' >&2; exit 1");
        let (_keep, result) = download(vec![fails, sh("exit 0")]);
        let text = result.unwrap_err().to_string();
        for part in ["thing==1", "exit status: 1", "No matching distribution"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

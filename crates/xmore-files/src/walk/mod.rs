//! The one way through folders: which files below a folder are images, and what is left out and why.
//!
//! Links are followed, but no folder is visited twice, by its device and inode: a loop of links is no error. Folders that lie in the tree
//! are visited before those that only links lead to, so that a file is found under its own path. What is hidden, a thumbnail of another
//! program or excluded by the user is left out and counted; so is what is no regular file.

mod left_out;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use glob::{MatchOptions, Pattern};
use walkdir::{DirEntry, WalkDir};

pub use left_out::{LeftOut, LeftOutCount, Reason};
use names::OtherKind;

use crate::image::{HEAD_BYTES, ImageFormat};
use crate::regular::{FileKind, open_regular};

/// Folders within folders that are walked. Far deeper than any collection; the length of a path ends most others before.
pub const MAX_DEPTH: usize = 256;

/// Which files of a folder are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkOptions {
    /// Also hidden files, thumbnails of other programs, and trashes.
    pub include_hidden: bool,
    /// What to leave out.
    pub exclude: Vec<Exclude>,
}

impl WalkOptions {
    /// Why the file or folder of this path below the root is left out by its last name, if it is.
    pub fn leaves_out(&self, below_root: &Path) -> Option<Reason> {
        let name = below_root.file_name()?;
        if self.exclude.iter().any(|exclude| exclude.matches(below_root, name)) {
            return Some(Reason::Excluded);
        }
        if self.include_hidden { None } else { names::hidden(name.as_encoded_bytes()) }
    }

    /// Why a member of an archive is left out, if it is: by its own name or that of a folder in its path.
    pub fn leaves_out_member(&self, name: &Path) -> Option<Reason> {
        let mut paths: Vec<&Path> = name.ancestors().collect();
        paths.reverse();
        paths.into_iter().find_map(|path| self.leaves_out(path))
    }

    /// Counts a member of an archive that is an image by its name, if it is not to be taken; says whether it is left out.
    ///
    /// `shown` gives what the member is called in examples.
    pub fn count_member(&self, name: &Path, shown: impl FnOnce() -> String, left_out: &mut LeftOut) -> bool {
        let format = ImageFormat::of_name(name);
        let not_read = || format.filter(|format| !format.is_read()).map(not_read);
        let Some(reason) = self.leaves_out_member(name).or_else(not_read) else { return false };
        if format.is_some() {
            left_out.add_named(reason, shown());
        }
        true
    }
}

/// A glob of files and folders to leave out.
///
/// One with a slash is matched against the path below the folder that is walked, else against names at any depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclude(Pattern);

impl FromStr for Exclude {
    type Err = glob::PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("./").unwrap_or(text);
        // `raw/` means the folder.
        Pattern::new(text.strip_suffix('/').unwrap_or(text)).map(Self)
    }
}

impl Exclude {
    /// The pattern as it was given, but for a `./` before it and a slash at its end.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    fn matches(&self, below_root: &Path, name: &OsStr) -> bool {
        // A star does not reach across folders: `a*.jpg` must not leave out `album/b.jpg`.
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let path = below_root.to_string_lossy();
        let path = if cfg!(windows) { path.replace('\\', "/").into() } else { path };
        self.0.matches_with(&name.to_string_lossy(), options) || self.0.matches_with(&path, options)
    }
}

/// The images below a folder.
#[derive(Debug, Default)]
pub struct Walked {
    /// Images, sorted by path. A link that leads nowhere but is named as an image is among them: reading it says so.
    pub files: Vec<PathBuf>,
    /// What was left out.
    pub left_out: LeftOut,
    /// Folders that could not be listed, and why; they are counted in `left_out` too.
    pub unlisted: Vec<(PathBuf, io::Error)>,
}

/// Finds the images below a folder: those named as one of a format that is read, and those whose name says nothing but whose first bytes do.
///
/// # Errors
/// Only if the folder itself cannot be listed.
pub fn walk_images(root: &Path, options: &WalkOptions) -> io::Result<Walked> {
    let mut walk = Walk::new(root, options, &IMAGES);
    walk.run()?;
    Ok(walk.finish())
}

/// Whether there is an image below a folder, as [`walk_images`] finds them.
///
/// # Errors
/// Only if the folder itself cannot be listed.
pub fn has_images(root: &Path, options: &WalkOptions) -> io::Result<bool> {
    let mut walk = Walk::new(root, options, &IMAGES);
    walk.only_first = true;
    walk.run()?;
    Ok(!walk.walked.files.is_empty())
}

/// Finds the files below a folder that have this extension, in any case, down to `max_depth` (1 is the folder itself alone).
///
/// # Errors
/// Only if the folder itself cannot be listed.
pub fn walk_extension(
    root: &Path,
    extension: &str,
    max_depth: usize,
    options: &WalkOptions,
) -> io::Result<Walked> {
    let is_named = |path: &Path| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
    let decide = |path: &Path, kind| match (is_named(path), kind) {
        (true, None) => Verdict::Take,
        (true, Some(kind)) => Verdict::LeaveOut(Reason::NotRegular { kind }),
        (false, _) => Verdict::NoImage,
    };
    let wanted = Wanted { is_named: &is_named, decide: &decide };
    let mut walk = Walk::new(root, options, &wanted);
    walk.max_depth = max_depth.min(MAX_DEPTH);
    walk.run()?;
    Ok(walk.finish())
}

/// What a walk looks for.
struct Wanted<'a> {
    /// Whether a file's name says that it is looked for: such files are counted where they are left out unseen.
    is_named: &'a dyn Fn(&Path) -> bool,
    /// What becomes of a file; one that is not regular comes with its kind.
    decide: &'a dyn Fn(&Path, Option<FileKind>) -> Verdict,
}

const IMAGES: Wanted<'static> =
    Wanted { is_named: &|path| ImageFormat::of_name(path).is_some(), decide: &image };

/// What becomes of a file.
enum Verdict {
    Take,
    LeaveOut(Reason),
    /// Nothing that was looked for.
    NoImage,
}

/// Decides on a file, regular or of another kind.
fn image(path: &Path, kind: Option<FileKind>) -> Verdict {
    let named = ImageFormat::of_name(path);
    if let Some(kind) = kind {
        let other = names::other_kind(path.extension().and_then(OsStr::to_str));
        return match (named, other) {
            (None, OtherKind::Video | OtherKind::NoImage) => Verdict::NoImage,
            _ => Verdict::LeaveOut(Reason::NotRegular { kind }),
        };
    }
    let not_read = |format: &ImageFormat| Verdict::LeaveOut(not_read(format));
    let by_content = |head: &[u8]| match ImageFormat::of(path, head) {
        Some(format) if format.is_read() => Verdict::Take,
        Some(format) => not_read(format),
        None => Verdict::NoImage,
    };
    match named {
        // Whatever it holds in truth, the decoder finds out.
        Some(format) if format.is_read() => Verdict::Take,
        // Phones and mailers name JPEG files `.heic`.
        Some(format) => head(path).map_or_else(|_| not_read(format), |head| by_content(&head)),
        None => match names::other_kind(path.extension().and_then(OsStr::to_str)) {
            OtherKind::Video => Verdict::LeaveOut(Reason::Video),
            OtherKind::NoImage => Verdict::NoImage,
            OtherKind::Unknown => {
                head(path).map_or(Verdict::LeaveOut(Reason::Unreadable), |head| by_content(&head))
            }
        },
    }
}

fn not_read(format: &ImageFormat) -> Reason {
    Reason::FormatNotRead { format: format.name.to_owned() }
}

/// The first bytes of a file.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    open_regular(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A walk under way.
struct Walk<'a> {
    root: &'a Path,
    options: &'a WalkOptions,
    wanted: &'a Wanted<'a>,
    max_depth: usize,
    only_first: bool,
    seen: HashSet<FolderId>,
    /// Links to folders, still to be followed.
    links: BTreeSet<PathBuf>,
    /// Folders that are left out, with the reason: what was looked for in them is counted by name.
    closed: Vec<(PathBuf, Reason)>,
    walked: Walked,
}

/// What makes two paths the same folder.
#[cfg(unix)]
type FolderId = (u64, u64);
#[cfg(not(unix))]
type FolderId = PathBuf;

#[cfg(unix)]
fn folder_id(path: &Path) -> io::Result<FolderId> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn folder_id(path: &Path) -> io::Result<FolderId> {
    path.canonicalize()
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path, options: &'a WalkOptions, wanted: &'a Wanted<'a>) -> Self {
        Self {
            root,
            options,
            wanted,
            max_depth: MAX_DEPTH,
            only_first: false,
            seen: HashSet::new(),
            links: BTreeSet::new(),
            closed: Vec::new(),
            walked: Walked::default(),
        }
    }

    fn run(&mut self) -> io::Result<()> {
        // A root that cannot be listed would otherwise be one more folder to count.
        std::fs::read_dir(self.root)?;
        self.folder(self.root);
        while let Some(link) = self.links.pop_first() {
            self.folder(&link);
        }
        for (path, reason) in std::mem::take(&mut self.closed) {
            self.count_unseen(&path, &reason);
        }
        Ok(())
    }

    fn finish(mut self) -> Walked {
        self.walked.files.sort();
        self.walked
    }

    fn is_done(&self) -> bool {
        self.only_first && !self.walked.files.is_empty()
    }

    fn below_root<'b>(&self, path: &'b Path) -> &'b Path {
        path.strip_prefix(self.root).unwrap_or(path)
    }

    /// Walks the root, or the folder that a link leads to.
    fn folder(&mut self, start: &Path) {
        if folder_id(start).is_ok_and(|id| !self.seen.insert(id)) || self.is_done() {
            return;
        }
        let mut entries = WalkDir::new(start).min_depth(1).into_iter();
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    if !self.entry(&entry) && entry.file_type().is_dir() {
                        entries.skip_current_dir();
                    }
                }
                Err(error) => {
                    let path = error.path().unwrap_or(start).to_owned();
                    let error = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
                    self.walked.left_out.add(Reason::FolderNotListed, &path);
                    self.walked.unlisted.push((path, error));
                }
            }
            if self.is_done() {
                return;
            }
        }
    }

    /// Deals with a file or folder; says whether to enter it.
    fn entry(&mut self, entry: &DirEntry) -> bool {
        let path = entry.path();
        let below_root = self.below_root(path);
        let left_out = self.options.leaves_out(below_root);
        // A link that leads nowhere is an image that is missing.
        let followed = match entry.path_is_symlink() {
            true => path.metadata().ok().map(|metadata| metadata.file_type()),
            false => Some(entry.file_type()),
        };
        let kind = followed.and_then(FileKind::of);
        if kind != Some(FileKind::Directory) {
            self.file(path, kind, left_out);
            return false;
        }
        let is_link = entry.path_is_symlink();
        let too_deep = below_root.components().count() >= self.max_depth;
        match left_out {
            // Nothing is lost behind a link that is not followed.
            Some(_) if is_link => {}
            Some(reason) => self.closed.push((path.to_owned(), reason)),
            None if too_deep => {
                if self.max_depth == MAX_DEPTH {
                    self.walked.left_out.add(Reason::FolderTooDeep, path);
                }
            }
            None if is_link => {
                self.links.insert(path.to_owned());
            }
            // One without an id is entered: what is wrong with it is found out there.
            None => return folder_id(path).map_or(true, |id| self.seen.insert(id)),
        }
        false
    }

    fn file(&mut self, path: &Path, kind: Option<FileKind>, left_out: Option<Reason>) {
        if let Some(reason) = left_out {
            if (self.wanted.is_named)(path) {
                self.walked.left_out.add(reason, path);
            }
            return;
        }
        match (self.wanted.decide)(path, kind) {
            Verdict::Take => self.walked.files.push(path.to_owned()),
            Verdict::LeaveOut(reason) => self.walked.left_out.add(reason, path),
            Verdict::NoImage => self.walked.left_out.add_no_image(),
        }
    }

    /// Counts the files in a folder that is left out which are named as what is looked for, but for those found by way of a link.
    fn count_unseen(&mut self, folder: &Path, reason: &Reason) {
        let mut entries = WalkDir::new(folder).max_depth(MAX_DEPTH).into_iter();
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else { continue };
            if entry.file_type().is_dir() {
                if folder_id(entry.path()).is_ok_and(|id| !self.seen.insert(id)) {
                    entries.skip_current_dir();
                }
            } else if (self.wanted.is_named)(entry.path()) && !entry.path().is_dir() {
                self.walked.left_out.add(reason.clone(), entry.path());
            }
        }
    }
}

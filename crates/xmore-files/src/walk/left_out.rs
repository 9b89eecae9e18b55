//! What was left out of folders: counts by reason for one line, and with examples for JSON.

use std::path::Path;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::names::path_to_text;
use crate::regular::{FileKind, NotRegular, TooLarge};

/// Examples kept of each reason.
const EXAMPLES: usize = 3;

/// Why a file or folder was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// An image of a format that is not read yet.
    FormatNotRead {
        /// The format's name.
        format: String,
    },
    /// A film.
    Video,
    /// A name that begins with a dot, or lies in such a folder.
    Hidden,
    /// A thumbnail that a program keeps.
    Thumbnail,
    /// Deleted: in a trash.
    Trash,
    /// Named by the user to be left out.
    Excluded,
    /// Not a regular file, so that reading it might never end.
    NotRegular {
        /// What it is.
        kind: FileKind,
    },
    /// It could not be read or decoded.
    Unreadable,
    /// Larger than what is read or decoded.
    TooLarge,
    /// An image that lies in no class's folder.
    NoClass,
    /// A folder that could not be listed.
    FolderNotListed,
    /// A folder below more folders than are walked.
    FolderTooDeep,
}

impl Reason {
    /// Why a file counts as left out that could not be read.
    pub fn of_io(error: &io::Error) -> Self {
        match (NotRegular::of(error), TooLarge::of(error)) {
            (Some(kind), _) => Self::NotRegular { kind },
            (None, Some(_)) => Self::TooLarge,
            (None, None) => Self::Unreadable,
        }
    }

    fn is_folder(&self) -> bool {
        matches!(self, Self::FolderNotListed | Self::FolderTooDeep)
    }
}

impl fmt::Display for Reason {
    /// As it stands behind a number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FormatNotRead { format } => return write!(f, "{format} (not read yet)"),
            Self::NotRegular { kind } => return write!(f, "{kind} (not a regular file)"),
            Self::Video => "video",
            Self::Hidden => "hidden",
            Self::Thumbnail => "thumbnail",
            Self::Trash => "in a trash",
            Self::Excluded => "excluded",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too large",
            Self::NoClass => "in no class folder",
            Self::FolderNotListed => "that cannot be listed",
            Self::FolderTooDeep => "too deep",
        })
    }
}

/// How many were left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutCount {
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first few by path, as [`path_to_text`] has it.
    pub examples: Vec<String>,
}

/// What was left out, by reason.
///
/// It is shown as one line, such as `left out: 8 files: 3 HEIC (not read yet), 4 hidden, 1 FIFO (not a regular file)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Files and folders in all.
    total: u64,
    /// Each reason once, in the order of [`Reason`].
    reasons: Vec<LeftOutCount>,
    /// Files that are neither images nor look like ones: they are not left out, and not in the line.
    no_images: u64,
}

impl LeftOut {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Files and folders in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Each reason once.
    pub fn reasons(&self) -> &[LeftOutCount] {
        &self.reasons
    }

    /// How many for a reason.
    pub fn count(&self, reason: &Reason) -> u64 {
        self.reasons.iter().find(|row| row.reason == *reason).map_or(0, |row| row.count)
    }

    /// Files that are neither images nor look like ones.
    pub fn no_images(&self) -> u64 {
        self.no_images
    }

    /// Counts a file or folder.
    pub fn add(&mut self, reason: Reason, path: &Path) {
        self.add_named(reason, path_to_text(path).into_owned());
    }

    /// Counts what goes by this name, such as a member of an archive.
    pub fn add_named(&mut self, reason: Reason, name: String) {
        self.add_row(LeftOutCount { reason, count: 1, examples: vec![name] });
    }

    /// Counts a file that is no image.
    pub fn add_no_image(&mut self) {
        self.no_images += 1;
    }

    /// Adds what another walk left out.
    pub fn merge(&mut self, other: LeftOut) {
        self.no_images += other.no_images;
        other.reasons.into_iter().for_each(|row| self.add_row(row));
    }

    fn add_row(&mut self, new: LeftOutCount) {
        self.total += new.count;
        let row = match self.reasons.binary_search_by(|row| row.reason.cmp(&new.reason)) {
            Ok(at) => &mut self.reasons[at],
            Err(at) => {
                self.reasons.insert(at, LeftOutCount { count: 0, examples: Vec::new(), reason: new.reason });
                &mut self.reasons[at]
            }
        };
        row.count += new.count;
        for example in new.examples {
            let at = row.examples.partition_point(|known| *known <= example);
            if at < EXAMPLES {
                row.examples.insert(at, example);
                row.examples.truncate(EXAMPLES);
            }
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (folders, files): (Vec<_>, Vec<_>) = self.reasons.iter().partition(|row| row.reason.is_folder());
        let plural = |count| if count == 1 { "" } else { "s" };
        let sum = |rows: &[&LeftOutCount]| rows.iter().map(|row| row.count).sum::<u64>();
        let list = |rows: &[&LeftOutCount]| {
            rows.iter()
                .map(|LeftOutCount { reason, count, .. }| match reason {
                    Reason::Video | Reason::Thumbnail => format!("{count} {reason}{}", plural(*count)),
                    _ => format!("{count} {reason}"),
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        f.write_str("left out: ")?;
        if files.is_empty() && folders.is_empty() {
            return f.write_str("nothing");
        }
        if !files.is_empty() {
            write!(f, "{} file{}: {}", sum(&files), plural(sum(&files)), list(&files))?;
        }
        if !folders.is_empty() {
            let (separator, count) = (if files.is_empty() { "" } else { "; " }, sum(&folders));
            write!(f, "{separator}{count} folder{}: {}", plural(count), list(&folders))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LeftOut {
        let mut left_out = LeftOut::default();
        for name in ["d.heic", "b.heic", "c.heic", "a.heic"] {
            left_out.add(Reason::FormatNotRead { format: "HEIC".to_owned() }, Path::new(name));
        }
        left_out.add(Reason::Hidden, Path::new(".a.jpg"));
        left_out.add(Reason::NotRegular { kind: FileKind::Fifo }, Path::new("x.jpg"));
        left_out.add_no_image();
        left_out
    }

    #[test]
    fn one_line_says_how_many_and_why() {
        let mut left_out = sample();
        let files = "left out: 6 files: 4 HEIC (not read yet), 1 hidden, 1 FIFO (not a regular file)";
        assert_eq!(left_out.to_string(), files);
        left_out.add(Reason::FolderNotListed, Path::new("private"));
        assert_eq!(left_out.to_string(), format!("{files}; 1 folder: 1 that cannot be listed"));
        assert_eq!(LeftOut::default().to_string(), "left out: nothing");
        let mut one = LeftOut::default();
        one.add(Reason::Video, Path::new("a.mov"));
        assert_eq!(one.to_string(), "left out: 1 file: 1 video");
        one.add(Reason::Video, Path::new("b.mov"));
        assert_eq!(one.to_string(), "left out: 2 files: 2 videos");
    }

    #[test]
    fn an_error_of_reading_tells_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let reason = |error: io::Error| Reason::of_io(&error);
        let folder = reason(crate::open_regular(dir.path()).unwrap_err());
        assert_eq!(folder, Reason::NotRegular { kind: FileKind::Directory });
        let path = dir.path().join("a");
        assert_eq!(reason(crate::read_bounded(&path, 1).unwrap_err()), Reason::Unreadable);
        std::fs::write(&path, "12").unwrap();
        assert_eq!(reason(crate::read_bounded(&path, 1).unwrap_err()), Reason::TooLarge);
    }

    #[test]
    fn counts_of_two_walks_are_added() {
        let mut left_out = sample();
        left_out.merge(sample());
        assert_eq!((left_out.total(), left_out.no_images()), (12, 2));
        let heic = Reason::FormatNotRead { format: "HEIC".to_owned() };
        assert_eq!(left_out.count(&heic), 8);
        assert_eq!(left_out.reasons()[0].examples, ["a.heic", "a.heic", "b.heic"]);
        assert_eq!(left_out.count(&Reason::Trash), 0);
    }

    #[test]
    fn json_has_the_reasons_and_is_read_back() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["total"], 6);
        assert_eq!(json["no_images"], 1);
        assert_eq!(
            json["reasons"][0],
            serde_json::json!({"reason": "format_not_read", "format": "HEIC", "count": 4, "examples": ["a.heic", "b.heic", "c.heic"]})
        );
        assert_eq!(json["reasons"][2]["kind"], "fifo");
        assert_eq!(serde_json::from_value::<LeftOut>(json).unwrap(), sample());
    }
}

//! Names that are left out of a walk, with the programs that write them, and extensions of files that are no images.

use super::Reason;

/// How a name is compared; letters of either case are the same.
enum Name {
    Is(&'static str),
    Starts(&'static str),
    Ends(&'static str),
}

impl Name {
    fn matches(&self, name: &[u8]) -> bool {
        let same =
            |part: Option<&[u8]>, text: &str| part.is_some_and(|p| p.eq_ignore_ascii_case(text.as_bytes()));
        match self {
            Self::Is(text) => same(Some(name), text),
            Self::Starts(text) => same(name.get(..text.len()), text),
            Self::Ends(text) => same(name.len().checked_sub(text.len()).map(|at| &name[at..]), text),
        }
    }
}

/// Files and folders that programs keep among photos. Names that begin with a dot are hidden anyway; those listed are told apart.
const PROGRAMS: &[(Name, Reason)] = &[
    // Synology's thumbnails.
    (Name::Is("@eaDir"), Reason::Thumbnail),
    (Name::Starts("SYNOFILE_THUMB_"), Reason::Thumbnail),
    (Name::Starts("SYNOPHOTO_THUMB_"), Reason::Thumbnail),
    // Android and GNOME; QNAP; freedesktop.org's shared thumbnails.
    (Name::Is(".thumbnails"), Reason::Thumbnail),
    (Name::Is(".@__thumb"), Reason::Thumbnail),
    (Name::Is(".sh_thumbnails"), Reason::Thumbnail),
    // Previews of films, JPEG files as cameras of Canon and GoPro write them.
    (Name::Ends(".thm"), Reason::Thumbnail),
    // Deleted files: Windows, macOS, freedesktop.org, Android, Synology, QNAP, digiKam.
    (Name::Is("$RECYCLE.BIN"), Reason::Trash),
    (Name::Is("RECYCLER"), Reason::Trash),
    (Name::Is(".Trashes"), Reason::Trash),
    (Name::Is(".Trash"), Reason::Trash),
    (Name::Starts(".Trash-"), Reason::Trash),
    (Name::Starts(".trashed-"), Reason::Trash),
    (Name::Is("#recycle"), Reason::Trash),
    (Name::Is("@Recycle"), Reason::Trash),
    (Name::Is(".dtrash"), Reason::Trash),
    // Second copies of what lies beside: macOS' attributes in archives, snapshots of Synology and QNAP, the file systems' own folders.
    (Name::Is("__MACOSX"), Reason::Hidden),
    (Name::Is("#snapshot"), Reason::Hidden),
    (Name::Is("@Recently-Snapshot"), Reason::Hidden),
    (Name::Is("System Volume Information"), Reason::Hidden),
    (Name::Is("lost+found"), Reason::Hidden),
];

/// Why a file or folder of this name is left out, if it is.
pub(super) fn hidden(name: &[u8]) -> Option<Reason> {
    let listed = PROGRAMS.iter().find(|(pattern, _)| pattern.matches(name));
    match listed {
        Some((_, reason)) => Some(reason.clone()),
        // AppleDouble's `._NAME` and Jupyter's `.ipynb_checkpoints` among them.
        None => name.starts_with(b".").then_some(Reason::Hidden),
    }
}

/// Extensions of films, which lie among a phone's photos.
const VIDEOS: &[&str] = &[
    "3g2", "3gp", "avi", "flv", "insv", "lrv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts",
    "ogv", "webm", "wmv",
];

/// Extensions that say that a file is no image, so that it is not opened.
const OTHERS: &[&str] = &[
    // Captions, tables, documents.
    "aae",
    "cls",
    "csv",
    "doc",
    "docx",
    "htm",
    "html",
    "ini",
    "json",
    "jsonl",
    "log",
    "md",
    "ndjson",
    "odt",
    "pdf",
    "rst",
    "rtf",
    "srt",
    "toml",
    "tsv",
    "txt",
    "url",
    "vtt",
    "xls",
    "xlsx",
    "xml",
    "xmp",
    "yaml",
    "yml",
    // Arrays, archives, checkpoints, data bases.
    "7z",
    "arrow",
    "bz2",
    "db",
    "feather",
    "gz",
    "h5",
    "hdf5",
    "index",
    "lock",
    "npy",
    "npz",
    "onnx",
    "parquet",
    "pickle",
    "pkl",
    "pt",
    "pth",
    "rar",
    "safetensors",
    "sqlite",
    "tar",
    "tgz",
    "xz",
    "zip",
    "zst",
    // Programs and their sources.
    "c",
    "cpp",
    "css",
    "dll",
    "exe",
    "go",
    "h",
    "ipynb",
    "java",
    "js",
    "lua",
    "o",
    "py",
    "pyc",
    "r",
    "rs",
    "sh",
    "so",
    "ts",
    // Sound.
    "aac",
    "flac",
    "m4a",
    "mp3",
    "ogg",
    "opus",
    "wav",
    "wma",
    // What is not whole yet, or an older version.
    "bak",
    "crdownload",
    "download",
    "part",
    "partial",
    "tmp",
];

/// What an extension that is no image format's says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OtherKind {
    Video,
    /// Something that is no image.
    NoImage,
    /// Nothing: only the content can tell.
    Unknown,
}

/// The kind of a file with this extension, `None` without one.
pub(super) fn other_kind(extension: Option<&str>) -> OtherKind {
    let extension = extension.unwrap_or_default().to_ascii_lowercase();
    if VIDEOS.contains(&extension.as_str()) {
        OtherKind::Video
    } else if OTHERS.contains(&extension.as_str()) {
        OtherKind::NoImage
    } else {
        OtherKind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::IMAGE_FORMATS;

    #[test]
    fn names_of_programs_are_known_in_any_case() {
        for (name, reason) in [
            ("@eaDir", Some(Reason::Thumbnail)),
            ("synofile_thumb_M.jpg", Some(Reason::Thumbnail)),
            ("GOPR0001.THM", Some(Reason::Thumbnail)),
            (".Trash-1000", Some(Reason::Trash)),
            ("$Recycle.bin", Some(Reason::Trash)),
            (".ipynb_checkpoints", Some(Reason::Hidden)),
            ("._IMG_1.JPG", Some(Reason::Hidden)),
            ("__MACOSX", Some(Reason::Hidden)),
            ("lost+found", Some(Reason::Hidden)),
            ("recycled", None),
            ("lost", None),
            ("thm", None),
            ("a.jpg", None),
        ] {
            assert_eq!(hidden(name.as_bytes()), reason, "{name}");
        }
        assert_eq!(hidden(b""), None);
        assert_eq!(hidden(b"\xff.jpg"), None);
    }

    #[test]
    fn no_extension_is_in_two_tables() {
        let images = IMAGE_FORMATS.iter().flat_map(|format| format.extensions).copied();
        let mut all: Vec<&str> = images.chain(VIDEOS.iter().copied()).chain(OTHERS.iter().copied()).collect();
        assert!(all.iter().all(|extension| *extension == extension.to_ascii_lowercase()));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(other_kind(Some("MOV")), OtherKind::Video);
        assert_eq!(other_kind(Some("Txt")), OtherKind::NoImage);
        assert_eq!(other_kind(Some("pic")), OtherKind::Unknown);
        assert_eq!(other_kind(None), OtherKind::Unknown);
    }
}

//! Names and paths as text that loses nothing: as they are where they are UTF-8, else as `file:` with percent-escaped bytes.
//!
//! JSON takes text only, and most readers of csv take UTF-8 only, so one odd name would cost a whole result. A path that itself begins with
//! `file:` is escaped too, so that the text of every path leads back to it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

const SCHEME: &str = "file:";
/// What a URI's path is not made of.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A name of any bytes, such as that of a tar's member, as text.
pub fn name_to_text(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if !text.starts_with(SCHEME) => Cow::Borrowed(text),
        _ => Cow::Owned(name_to_uri(name)),
    }
}

/// A name as text that is escaped in any case: nothing in it but the scheme's colon can be taken for a separator.
pub fn name_to_uri(name: &[u8]) -> String {
    format!("{SCHEME}{}", percent_encode(name, ESCAPED))
}

/// The name that [`name_to_text`] or [`name_to_uri`] made a text of. Text of others is taken as it is, unless it begins with `file:`.
pub fn name_from_text(text: &str) -> Vec<u8> {
    match text.strip_prefix(SCHEME) {
        None => text.as_bytes().to_vec(),
        Some(escaped) => percent_decode_str(escaped).collect(),
    }
}

/// A path as text.
pub fn path_to_text(path: &Path) -> Cow<'_, str> {
    name_to_text(path.as_os_str().as_encoded_bytes())
}

/// The path that [`path_to_text`] or [`name_to_uri`] made a text of. Text of others is taken as it is, unless it begins with `file:`.
pub fn path_from_text(text: &str) -> PathBuf {
    path_from_bytes(&name_from_text(text)).into_owned()
}

/// The path that is made of these bytes.
#[cfg(unix)]
pub fn path_from_bytes(bytes: &[u8]) -> Cow<'_, Path> {
    use std::os::unix::ffi::OsStrExt;
    Cow::Borrowed(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

/// The path that is made of these bytes; where paths are not made of bytes, what is not UTF-8 in them is lost.
#[cfg(not(unix))]
pub fn path_from_bytes(bytes: &[u8]) -> Cow<'_, Path> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Cow::Borrowed(Path::new(text)),
        Cow::Owned(text) => Cow::Owned(PathBuf::from(text)),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_odd_names_are_escaped() {
        let text = |bytes: &[u8]| path_to_text(Path::new(OsStr::from_bytes(bytes))).into_owned();
        assert_eq!(text("a b/café 50%.jpg".as_bytes()), "a b/café 50%.jpg");
        assert_eq!(text(b"a b/caf\xe9.jpg"), "file:a%20b/caf%E9.jpg");
        assert_eq!(text(b"file:a.jpg"), "file:file%3Aa.jpg");
        assert_eq!(path_from_text("50%25.jpg"), Path::new("50%25.jpg"));
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in prop_oneof![any::<Vec<u8>>(), "file:[a%:]{0,3}".prop_map(String::into_bytes)]) {
            let path = Path::new(OsStr::from_bytes(&bytes));
            prop_assert_eq!(path_from_text(&path_to_text(path)), path);
            prop_assert_eq!(name_from_text(&name_to_text(&bytes)), &bytes[..]);
            prop_assert_eq!(name_from_text(&name_to_uri(&bytes)), &bytes[..]);
        }
    }
}
/// Letters, digits and `._-+ ` only, not beginning with a dot, 1 to 100 bytes: a name that is one on every file system.
pub fn is_plain_name(name: &str) -> bool {
    /// Bytes.
    const MAX_NAME: usize = 100;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-+ ".contains(&b);
    (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

//! Small JSON files with a checksum of their own: the last field, `sha256`, covers every byte before it, spaces and names included.
//!
//! A sealed file is an object written with indents, whose end is exactly
//!
//! ```text
//!   "sha256": "<64 hexadecimal digits>"
//! }
//! ```
//! and a line feed. The digest is that of all bytes up to the quotation mark before it. A reader that does not know of this sees a
//! field more.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checksum;

/// What stands between the other fields and the digest.
const BEFORE: &str = ",\n  \"sha256\": \"";
/// What stands behind the digest.
const AFTER: &str = "\"\n}\n";
/// Length of a digest in hexadecimal.
const DIGEST: usize = 64;

/// What the end of a file says of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// The digest is that of the content.
    Good,
    /// There is a digest, of other content.
    Broken,
    /// The file does not end in a digest.
    Missing,
}

/// The bytes of a sealed file with this content, which must be an object with at least one field.
pub(super) fn seal<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.truncate(text.strip_suffix(b"\n}").unwrap_or(&text).len());
    text.extend_from_slice(BEFORE.as_bytes());
    let digest = checksum::of_bytes(&text);
    text.extend_from_slice(digest.as_bytes());
    text.extend_from_slice(AFTER.as_bytes());
    Ok(text)
}

/// Compares a file's content with its digest.
pub(super) fn check(bytes: &[u8]) -> Seal {
    let Some(rest) = bytes.strip_suffix(AFTER.as_bytes()) else { return Seal::Missing };
    let Some((content, digest)) = rest.len().checked_sub(DIGEST).map(|at| rest.split_at(at)) else {
        return Seal::Missing;
    };
    if !content.ends_with(BEFORE.as_bytes()) {
        return Seal::Missing;
    }
    if checksum::of_bytes(content).as_bytes() == digest { Seal::Good } else { Seal::Broken }
}

/// The content of a sealed file; else what is wrong with it.
pub(super) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match check(bytes) {
        Seal::Good => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        Seal::Broken => Err("its checksum is that of other content".to_owned()),
        Seal::Missing => Err("it does not end in a checksum".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let value = BTreeMap::from([("a", vec![1, 2]), ("b", vec![])]);
        let sealed = seal(&value).unwrap();
        let parsed: serde_json::Value = open(&sealed).unwrap();
        assert_eq!(parsed["a"], serde_json::json!([1, 2]));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone();
                bytes[at] ^= 1 << bit;
                assert_ne!(check(&bytes), Seal::Good, "bit {bit} of byte {at}");
            }
            assert_ne!(check(&sealed[..at]), Seal::Good, "cut to {at} bytes");
        }
        assert_eq!(check(b"{\n  \"a\": 1\n}\n"), Seal::Missing);
        assert_eq!(check(b""), Seal::Missing);
    }
}

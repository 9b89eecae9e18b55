//! The order in which a memory's images are drawn where not all are needed: the same one on every machine, and unlike that of the rows.

use sha2::{Digest, Sha256};

/// What images are ordered by: the SHA-256 of the decimal number of their first row.
pub(crate) fn row_hash(row: u64) -> [u8; 32] {
    Sha256::digest(row.to_string().as_bytes()).into()
}

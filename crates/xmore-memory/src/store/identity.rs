//! Which model embeddings are of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How earlier versions wrote a model in 8 bits: behind its name.
const INT8_SUFFIX: &str = " int8";

/// The model whose embeddings a memory, or a remote index, holds.
///
/// Names are for people: whether embeddings are a model's, fingerprint and length tell ([`ModelIdentity::is_same`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct ModelIdentity {
    /// Name, such as `ViT-B-16,openai`.
    pub name: String,
    /// Tells the model's numbers from those of any other: made of its files, number format included. Of xmore-clip's models a SHA-256 in
    /// hexadecimal, of samples of large files.
    pub fingerprint: String,
    /// Embedding length.
    pub dim: usize,
    /// Number format of its linear layers where that is not float32, such as `int8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
}

/// As it is read: memories before format version 4 called the fingerprint `sha256`, and had the precision in the name.
#[derive(Deserialize)]
struct Stored {
    name: String,
    #[serde(alias = "sha256")]
    fingerprint: String,
    dim: usize,
    precision: Option<String>,
}

impl From<Stored> for ModelIdentity {
    fn from(stored: Stored) -> Self {
        let Stored { name, fingerprint, dim, precision } = stored;
        match (name.strip_suffix(INT8_SUFFIX), precision) {
            (Some(name), None) => Self::new(name, fingerprint, dim).with_precision(INT8_SUFFIX.trim_start()),
            (_, precision) => Self { precision, ..Self::new(name, fingerprint, dim) },
        }
    }
}

impl ModelIdentity {
    /// A model in float32.
    pub fn new(name: impl Into<String>, fingerprint: impl Into<String>, dim: usize) -> Self {
        Self { name: name.into(), fingerprint: fingerprint.into(), dim, precision: None }
    }

    /// The same with linear layers in another number format.
    #[must_use]
    pub fn with_precision(self, precision: impl Into<String>) -> Self {
        Self { precision: Some(precision.into()), ..self }
    }

    /// Whether the embeddings of both are those of one model: fingerprint and length, whatever the names.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.fingerprint, self.dim) == (&other.fingerprint, other.dim)
    }

    /// The first characters of the fingerprint, for messages.
    pub fn short_fingerprint(&self) -> String {
        self.fingerprint.chars().take(12).collect()
    }
}

impl fmt::Display for ModelIdentity {
    /// The name, and the precision behind it where that is not float32.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.precision.iter().try_for_each(|precision| write!(f, " {precision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_all_versions_are_read() {
        let read = |json: &str| serde_json::from_str::<ModelIdentity>(json).unwrap();
        let plain = ModelIdentity::new("lite", "00", 4);
        assert_eq!(read(r#"{"name": "lite", "sha256": "00", "dim": 4}"#), plain);
        let int8 = ModelIdentity::new("lite", "00-int8", 4).with_precision("int8");
        assert_eq!(read(r#"{"name": "lite int8", "sha256": "00-int8", "dim": 4}"#), int8);
        for identity in [plain, int8] {
            assert_eq!(read(&serde_json::to_string(&identity).unwrap()), identity);
        }
        let text = serde_json::to_string(&ModelIdentity::new("lite", "00", 4)).unwrap();
        assert_eq!(text, r#"{"name":"lite","fingerprint":"00","dim":4}"#);
        // A name of today that ends like one of before is its own.
        let named = ModelIdentity::new("my int8", "00", 4).with_precision("int8");
        assert_eq!(read(&serde_json::to_string(&named).unwrap()), named);
    }
}

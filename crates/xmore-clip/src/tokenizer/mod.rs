//! Texts to token ids: CLIP's tokenizer with its built-in vocabulary, or a folder's `tokenizer.json`.

mod bpe;
mod clean;
mod clip;
mod json;

pub use clip::ClipTokenizer;
pub(crate) use json::JsonTokenizer;
#[doc(hidden)]
pub use json::encode_with_json;

use crate::error::Result;

/// A tokenizer that cuts texts at its model's context length.
pub(crate) trait Tokenizer: Send + Sync {
    /// Ids with the model's start and end tokens, without padding.
    fn encode(&self, text: &str) -> Result<Tokens>;
}

/// The tokens of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Their ids, start and end tokens included, without padding.
    pub ids: Vec<u32>,
    /// Whether the text was longer than the model's context, and was cut.
    pub truncated: bool,
    /// How many of the ids are start and end tokens.
    special: usize,
    /// How many of the others stand for something that the tokenizer does not know.
    unknown: usize,
}

impl Tokens {
    /// Whether the tokenizer knows no part of the text: nothing of it is left, or its token for the unknown alone.
    pub fn is_unknown(&self) -> bool {
        self.unknown + self.special >= self.ids.len()
    }
}

impl Tokenizer for ClipTokenizer {
    fn encode(&self, text: &str) -> Result<Tokens> {
        let (ids, truncated) = Self::encode(self, text);
        // It has a token for every byte.
        Ok(Tokens { ids, truncated, special: 2, unknown: 0 })
    }
}

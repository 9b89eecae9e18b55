//! Texts to token ids: CLIP's tokenizer with its built-in vocabulary, or the tokenizer files of a folder.

mod bpe;
mod clean;
mod clip;
mod file;
mod options;

pub use clip::ClipTokenizer;
pub(crate) use file::{FileTokenizer, NAMES as TOKENIZER_FILES, tokenizer_class};
#[doc(hidden)]
pub use file::{encode_with_file, encode_with_folder, encode_with_json};
#[doc(hidden)]
pub use options::{Cleaning, Padding, TokenizerOptions};

use self::clip::Encoded;
use crate::error::Result;

/// A tokenizer that cuts texts at its model's context length.
pub(crate) trait Tokenizer: Send + Sync {
    /// Ids with the model's start and end tokens, padded only where the text tower computes what is behind a text's end.
    fn encode(&self, text: &str) -> Result<Tokens>;
}

/// The tokens of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Their ids, start and end tokens included, padded only where the text tower computes what is behind a text's end.
    pub ids: Vec<u32>,
    /// Whether the text was longer than the model's context, and was cut.
    pub truncated: bool,
    /// How many of the ids are start and end tokens or padding.
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
        let Encoded { ids, truncated, special } = self.tokens(text);
        // It has a token for every byte.
        Ok(Tokens { ids, truncated, special, unknown: 0 })
    }
}

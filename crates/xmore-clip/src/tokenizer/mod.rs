//! Texts to token ids: CLIP's tokenizer on board, or a folder's `tokenizer.json`.

mod bpe;
mod clean;
mod clip;
mod json;

use std::path::Path;

pub use clip::ClipTokenizer;
#[doc(hidden)]
pub use json::encode_with_json;

use crate::error::Result;

/// A tokenizer that cuts at the model's context length.
pub(crate) enum Tokenizer {
    /// CLIP's, with the vocabulary on board.
    Clip(ClipTokenizer),
    /// Read from a `tokenizer.json`.
    Json(Box<json::JsonTokenizer>),
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

impl Tokenizer {
    /// Reads `tokenizer.json`; `context_length` counts the start and end tokens.
    pub(crate) fn load(path: &Path, context_length: usize) -> Result<Self> {
        Ok(Self::Json(Box::new(json::JsonTokenizer::load(path, context_length)?)))
    }

    /// CLIP's tokenizer as open_clip has it; `context_length` counts the start and end tokens.
    pub(crate) fn clip(context_length: usize) -> Self {
        Self::Clip(ClipTokenizer::new(context_length))
    }

    /// Ids with the model's start and end tokens.
    pub(crate) fn encode(&self, text: &str) -> Result<Tokens> {
        match self {
            Self::Clip(tokenizer) => {
                let (ids, truncated) = tokenizer.encode(text);
                // It has a token for every byte.
                Ok(Tokens { ids, truncated, special: 2, unknown: 0 })
            }
            Self::Json(tokenizer) => tokenizer.encode(text),
        }
    }
}

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

/// The ids of one text.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Whether the text was longer than the context.
    pub(crate) truncated: bool,
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
                Ok(Tokens { ids, truncated })
            }
            Self::Json(tokenizer) => tokenizer.encode(text),
        }
    }
}

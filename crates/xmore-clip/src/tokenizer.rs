//! Texts to token ids, by the tokenizers library from a folder's `tokenizer.json`.

use std::path::Path;

use tokenizers::{Tokenizer as HfTokenizer, TruncationParams};

use crate::error::{ClipError, Result};

/// A tokenizer that cuts at the model's context length.
pub(crate) struct Tokenizer {
    inner: HfTokenizer,
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
        let mut inner = HfTokenizer::from_file(path).map_err(|e| ClipError::config(path, e.to_string()))?;
        inner.with_padding(None);
        let truncation = TruncationParams { max_length: context_length, ..Default::default() };
        inner.with_truncation(Some(truncation)).map_err(|e| ClipError::config(path, e.to_string()))?;
        Ok(Self { inner })
    }

    pub(crate) fn clip(_context_length: usize) -> Self {
        unimplemented!("merge of the tokenizer pending")
    }

    /// Ids with the model's start and end tokens.
    pub(crate) fn encode(&self, text: &str) -> Result<Tokens> {
        let encoding = self.inner.encode_fast(text, true).map_err(|e| ClipError::Tokenize {
            text: text.chars().take(40).collect(),
            message: e.to_string(),
        })?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), truncated: !encoding.get_overflowing().is_empty() })
    }
}

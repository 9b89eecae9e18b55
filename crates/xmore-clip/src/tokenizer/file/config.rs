//! A folder's `tokenizer_config.json`: what transformers reads beside the vocabulary.

use std::path::Path;

use serde::Deserialize;
use tokenizers::Tokenizer as HfTokenizer;
use tokenizers::normalizers::BertNormalizer;
use xmore_files::read_bounded;

use super::{Ends, id_of};
use crate::error::{ClipError, Result};
use crate::json;

pub(super) const FILE: &str = "tokenizer_config.json";
/// The largest file that is read: some list each of a thousand added tokens.
const MAX_BYTES: u64 = 4 << 20;

/// The entries that change ids; what is not given is as transformers' classes have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenizerConfig {
    pub tokenizer_class: Option<String>,
    pub do_lower_case: Option<bool>,
    pub strip_accents: Option<bool>,
    pub tokenize_chinese_chars: Option<bool>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
    /// NLLB's language, and whether it stands behind a text.
    pub src_lang: Option<String>,
    pub legacy_behaviour: Option<bool>,
    /// Tokens that T5 appends to its vocabulary.
    pub extra_ids: Option<usize>,
    pub bos_token: Option<SpecialToken>,
    pub eos_token: Option<SpecialToken>,
    pub unk_token: Option<SpecialToken>,
    pub sep_token: Option<SpecialToken>,
    pub cls_token: Option<SpecialToken>,
    pub pad_token: Option<SpecialToken>,
    pub mask_token: Option<SpecialToken>,
}

/// A special token: its text, or an entry that says more.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, or an object with the text as `content`")]
pub(super) enum SpecialToken {
    Text(String),
    Entry {
        content: String,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
    },
}

impl SpecialToken {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Entry { content: text, .. } => text,
        }
    }

    pub(super) fn added(&self) -> tokenizers::AddedToken {
        let token = tokenizers::AddedToken::from(self.text(), true);
        match *self {
            Self::Text(_) => token,
            Self::Entry { lstrip, rstrip, .. } => token.lstrip(lstrip).rstrip(rstrip),
        }
    }
}

/// The text of a token, or of the default where none is given.
pub(super) fn text_or<'a>(token: &'a Option<SpecialToken>, default: &'a str) -> &'a str {
    token.as_ref().map_or(default, SpecialToken::text)
}

impl TokenizerConfig {
    /// Reads the file of a folder; without one, nothing is given.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let bytes = read_bounded(&path, MAX_BYTES).map_err(|e| ClipError::io(&path, e))?;
        Self::parse(&path, &bytes)
    }

    /// Reads the bytes of a file.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        json::parse(path, bytes)
    }

    /// The class that applies the vocabulary, without the `Fast` of older files.
    pub(super) fn class(&self) -> Option<&str> {
        self.tokenizer_class.as_deref().map(|class| class.strip_suffix("Fast").unwrap_or(class))
    }
}

impl TokenizerConfig {
    /// BERT's normalizer with what the configuration gives: transformers prefers that to what `tokenizer.json` says.
    pub(super) fn bert_normalizer(&self, file: BertNormalizer) -> BertNormalizer {
        BertNormalizer::new(
            file.clean_text,
            self.tokenize_chinese_chars.unwrap_or(file.handle_chinese_chars),
            self.strip_accents.or(file.strip_accents),
            self.do_lower_case.unwrap_or(file.lowercase),
        )
    }

    /// The start and end tokens that transformers adds as the configuration says whatever `tokenizer.json` says; nothing for classes that
    /// do not, or where nothing is said.
    pub(super) fn own_ends(&self, inner: &HfTokenizer) -> Result<Option<Ends>, String> {
        match self.class() {
            Some("GemmaTokenizer" | "Siglip2Tokenizer") => self.gemma_ends(inner),
            Some("NllbTokenizer") => self.nllb_ends(inner).map(Some),
            _ => Ok(None),
        }
    }

    /// A language before the text and an end token behind it, or both behind it.
    ///
    /// Source: transformers `NllbTokenizer.set_src_lang_special_tokens`.
    fn nllb_ends(&self, inner: &HfTokenizer) -> Result<Ends, String> {
        let language = id_of(inner, self.src_lang.as_deref().unwrap_or("eng_Latn"))?;
        let end = id_of(inner, text_or(&self.eos_token, "</s>"))?;
        Ok(match self.legacy_behaviour {
            Some(true) => Ends { start: vec![], end: vec![end, language] },
            _ => Ends { start: vec![language], end: vec![end] },
        })
    }

    /// Source: transformers `TokenizersBackend.update_post_processor`.
    fn gemma_ends(&self, inner: &HfTokenizer) -> Result<Option<Ends>, String> {
        let (start, end) = (self.add_bos_token, self.add_eos_token);
        if (start, end) == (None, None) {
            return Ok(None);
        }
        let id = |add: Option<bool>, token, default| -> Result<Vec<u32>, String> {
            match add {
                Some(true) => Ok(vec![id_of(inner, text_or(token, default))?]),
                _ => Ok(Vec::new()),
            }
        };
        Ok(Some(Ends {
            start: id(start, &self.bos_token, "<bos>")?,
            end: id(end, &self.eos_token, "<eos>")?,
        }))
    }
}

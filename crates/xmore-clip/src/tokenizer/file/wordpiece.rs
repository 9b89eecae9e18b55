//! A `vocab.txt` as transformers' BERT tokenizer applies it.

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use super::config::{TokenizerConfig, text_or};
use super::{Ends, Parts, guard, id_of};

/// Builds the tokenizer: one token a line, its id the number of the line.
///
/// Source: transformers `models/bert/tokenization_bert.py`, tokenizers `WordPiece::read_file`.
pub(super) fn build(bytes: &[u8], config: &TokenizerConfig) -> Result<Parts, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"))?;
    let vocabulary: Vocab = text.lines().map(|line| line.trim_end().to_owned()).zip(0..).collect();
    let unknown = text_or(&config.unk_token, "[UNK]");
    let special = [
        unknown,
        text_or(&config.cls_token, "[CLS]"),
        text_or(&config.sep_token, "[SEP]"),
        text_or(&config.pad_token, "[PAD]"),
        text_or(&config.mask_token, "[MASK]"),
    ];
    // the library would append those that are missing
    let known: Vec<_> = special.into_iter().filter(|&token| vocabulary.contains_key(token)).collect();
    let inner = guard(|| {
        let model = WordPiece::builder().vocab(vocabulary).unk_token(unknown.to_owned()).build()?;
        let mut inner = HfTokenizer::new(model);
        inner.with_normalizer(Some(config.bert_normalizer(BertNormalizer::default())))?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.add_special_tokens(known.into_iter().map(|token| AddedToken::from(token, true)))?;
        Ok(inner)
    })?;
    let [unknown, start, end] = [special[0], special[1], special[2]].map(|token| id_of(&inner, token));
    let ends = Ends { start: vec![start?], end: vec![end?] };
    Ok(Parts::library(inner, ends, Some(unknown?)))
}

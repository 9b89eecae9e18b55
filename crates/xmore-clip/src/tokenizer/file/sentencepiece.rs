//! A sentencepiece model as transformers' classes turn it into a tokenizer of the tokenizers library.
//!
//! Source: transformers `convert_slow_tokenizer.py` (`SentencePieceExtractor`, `generate_merges`, `convert_from_spm`) and the
//! classes named below.

use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{Precompiled, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use super::charsmap;
use super::config::{SpecialToken, TokenizerConfig, text_or};
use super::protobuf::{Algorithm, Piece, PieceKind, SentencePieceModel};
use super::siglip::SiglipModel;
use super::{Ends, Engine, Parts, SPACE, guard, id_of};

/// The most bytes of all pieces: the library's trie takes some hundred for each. XLM-V's 900 000 pieces have 9 MB.
const MAX_PIECES: usize = 16 << 20;
/// The most bytes of all merges; Gemma's have 6 MB.
const MAX_MERGES: usize = 64 << 20;
/// The most bytes of a piece of BPE, all of whose splits are tried; Gemma's longest has 48.
const MAX_BPE_PIECE: usize = 1024;

/// How a class of transformers uses a model.
enum Class {
    /// `SiglipTokenizer`: sentencepiece itself, an end token.
    Siglip,
    /// `T5Tokenizer`: an end token, and tokens appended to the vocabulary.
    T5,
    /// `XLMRobertaTokenizer`: other first ids than the model's, start and end tokens.
    XlmRoberta,
    /// `GemmaTokenizer`, `Siglip2Tokenizer`: BPE with bytes for what is unknown.
    Gemma,
}

impl Class {
    /// The class that the configuration names, or else the one whose models have such a file name.
    fn of(path: &Path, config: &TokenizerConfig) -> Result<Self, String> {
        match (config.class(), path.file_name().and_then(|name| name.to_str())) {
            (Some("SiglipTokenizer"), _) => Ok(Self::Siglip),
            (Some("T5Tokenizer" | "MT5Tokenizer"), _) => Ok(Self::T5),
            (Some("XLMRobertaTokenizer"), _) => Ok(Self::XlmRoberta),
            (Some("GemmaTokenizer" | "Siglip2Tokenizer"), _) => Ok(Self::Gemma),
            (Some(other), _) => Err(format!(
                "tokenizer_class: expected SiglipTokenizer, T5Tokenizer, XLMRobertaTokenizer, GemmaTokenizer or Siglip2Tokenizer, found {other}"
            )),
            (None, Some("sentencepiece.bpe.model")) => Ok(Self::XlmRoberta),
            (None, Some("tokenizer.model")) => Ok(Self::Gemma),
            (None, _) => Ok(Self::T5),
        }
    }
}

/// Builds the tokenizer.
pub(super) fn build(path: &Path, bytes: &[u8], config: &TokenizerConfig) -> Result<Parts, String> {
    let model = SentencePieceModel::read(bytes)?;
    let length: usize = model.pieces.iter().map(|piece| piece.text.len()).sum();
    if length > MAX_PIECES {
        return Err(format!("pieces: expected at most {MAX_PIECES} bytes in all, found {length}"));
    }
    match Class::of(path, config)? {
        Class::Siglip => siglip(&model, config),
        Class::T5 => t5(&model, config),
        Class::XlmRoberta => xlm_roberta(&model, config),
        Class::Gemma => gemma(&model, config),
    }
}

/// Source: as for [`SiglipModel`].
fn siglip(model: &SentencePieceModel<'_>, config: &TokenizerConfig) -> Result<Parts, String> {
    let end = text_or(&config.eos_token, "</s>");
    let id = model.pieces.iter().zip(0..).find(|(piece, _)| piece.text == end);
    let (_, id) = id.ok_or_else(|| format!("expected a piece {end:?}, found none"))?;
    let engine = Engine::Siglip(Box::new(SiglipModel::new(model, config)?));
    Ok(Parts { engine, ends: Ends { start: vec![], end: vec![id] }, unknown: Some(model.unknown) })
}

/// Source: transformers `models/t5/tokenization_t5.py`.
fn t5(model: &SentencePieceModel<'_>, config: &TokenizerConfig) -> Result<Parts, String> {
    const MAX_EXTRA_IDS: usize = 10_000;
    let extra = config.extra_ids.unwrap_or(100);
    if extra > MAX_EXTRA_IDS {
        return Err(format!("extra_ids: expected at most {MAX_EXTRA_IDS}, found {extra}"));
    }
    let extra: Vec<String> = (0..extra).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let own = model.pieces.iter().map(|piece| (piece.text.to_owned(), f64::from(piece.score)));
    let vocabulary = own.chain(extra.iter().map(|token| (token.clone(), 0.0))).collect();
    let mut inner = unigram(model, vocabulary, model.unknown)?;
    let named = [(&config.eos_token, "</s>"), (&config.unk_token, "<unk>"), (&config.pad_token, "<pad>")];
    let extra = extra.into_iter().map(|token| AddedToken::from(token, true));
    add_tokens(&mut inner, model, named.into_iter(), extra)?;
    let ends = Ends { start: vec![], end: vec![id_of(&inner, "</s>")?] };
    Ok(Parts::library(inner, ends, Some(model.unknown)))
}

/// Source: transformers `models/xlm_roberta/tokenization_xlm_roberta.py`, `XLMRobertaConverter.convert_from_spm`.
fn xlm_roberta(model: &SentencePieceModel<'_>, config: &TokenizerConfig) -> Result<Parts, String> {
    const UNKNOWN: u32 = 3;
    let first = ["<s>", "<pad>", "</s>", "<unk>"].map(|token| (token.to_owned(), 0.0));
    let own = model.pieces.iter().skip(3).map(|piece| (piece.text.to_owned(), f64::from(piece.score)));
    let vocabulary = first.into_iter().chain(own).chain([("<mask>".to_owned(), 0.0)]).collect();
    let mut inner = unigram(model, vocabulary, UNKNOWN)?;
    let named = [
        (&config.bos_token, "<s>"),
        (&config.pad_token, "<pad>"),
        (&config.eos_token, "</s>"),
        (&config.unk_token, "<unk>"),
        (&config.mask_token, "<mask>"),
    ];
    add_tokens(&mut inner, model, named.into_iter(), [].into_iter())?;
    let ends = Ends { start: vec![id_of(&inner, "<s>")?], end: vec![id_of(&inner, "</s>")?] };
    Ok(Parts::library(inner, ends, Some(UNKNOWN)))
}

/// Source: transformers `models/gemma/tokenization_gemma.py`.
fn gemma(model: &SentencePieceModel<'_>, config: &TokenizerConfig) -> Result<Parts, String> {
    if model.algorithm != Algorithm::Bpe {
        return Err("trainer_spec.model_type: expected 2 (BPE), found 1 (unigram)".to_owned());
    }
    let unknown = model.pieces[model.unknown as usize].text;
    let vocabulary: Vocab = model.pieces.iter().map(|piece| piece.text.to_owned()).zip(0..).collect();
    let merges = merges(&model.pieces, &vocabulary)?;
    let mut inner = guard(|| {
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .unk_token(unknown.to_owned())
            .fuse_unk(true)
            .byte_fallback(true)
            .build()?;
        let mut inner = HfTokenizer::new(bpe);
        inner.with_normalizer(Some(Replace::new(" ", SPACE.to_string())?))?;
        Ok(inner)
    })?;
    let named = [
        (&config.bos_token, "<bos>"),
        (&config.eos_token, "<eos>"),
        (&config.unk_token, "<unk>"),
        (&config.pad_token, "<pad>"),
        (&config.mask_token, "<mask>"),
    ];
    add_tokens(&mut inner, model, named.into_iter(), [].into_iter())?;
    let ends = config.own_ends(&inner)?.unwrap_or_default();
    Ok(Parts::library(inner, ends, Some(model.unknown)))
}

/// The unigram model with what T5 and XLM-R have in common.
fn unigram(
    model: &SentencePieceModel<'_>,
    vocabulary: Vec<(String, f64)>,
    unknown: u32,
) -> Result<HfTokenizer, String> {
    if model.algorithm != Algorithm::Unigram {
        return Err("trainer_spec.model_type: expected 1 (unigram), found 2 (BPE)".to_owned());
    }
    charsmap::parts(model)?;
    guard(|| {
        let unigram = Unigram::from(vocabulary, Some(unknown as usize), false)?;
        let mut inner = HfTokenizer::new(unigram);
        if !model.charsmap.is_empty() {
            let charsmap = Precompiled::from(model.charsmap)
                .map_err(|e| format!("normalizer_spec.precompiled_charsmap: {e}"))?;
            inner.with_normalizer(Some(charsmap))?;
        }
        inner.with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
            PreTokenizerWrapper::Metaspace(Metaspace::new(SPACE, PrependScheme::Always, true)),
        ])));
        Ok(inner)
    })
}

/// Marks the tokens that are found in texts as they are: the model's own, the named ones of the class, and more.
///
/// Named tokens that the vocabulary lacks are left out: transformers appends them, behind the rows of the model's embedding.
fn add_tokens<'a>(
    inner: &mut HfTokenizer,
    model: &SentencePieceModel<'_>,
    named: impl Iterator<Item = (&'a Option<SpecialToken>, &'a str)>,
    more: impl Iterator<Item = AddedToken>,
) -> Result<(), String> {
    let own = model.pieces.iter().filter_map(|piece| match piece.kind {
        PieceKind::Control => Some(AddedToken::from(piece.text, true)),
        PieceKind::UserDefined => Some(AddedToken::from(piece.text, false).normalized(false)),
        _ => None,
    });
    let named = named.map(|(token, default)| match token {
        Some(token) => token.added(),
        None => AddedToken::from(default, true),
    });
    let tokens: Vec<AddedToken> =
        own.chain(named).chain(more).filter(|token| inner.token_to_id(&token.content).is_some()).collect();
    guard(|| inner.add_tokens(tokens)).map(|_| ())
}

/// All pairs of pieces that join to a piece, those of the first pieces first.
fn merges(pieces: &[Piece<'_>], vocabulary: &Vocab) -> Result<Vec<(String, String)>, String> {
    let (mut merges, mut bytes) = (Vec::new(), 0);
    for Piece { text, .. } in pieces {
        if text.len() > MAX_BPE_PIECE {
            return Err(format!(
                "pieces: expected at most {MAX_BPE_PIECE} bytes in each, found {}",
                text.len()
            ));
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&a), Some(&b)) = (vocabulary.get(left), vocabulary.get(right)) {
                let lengths = (left.chars().count(), right.chars().count());
                bytes += text.len();
                if bytes > MAX_MERGES {
                    return Err(format!("pieces: expected merges of at most {MAX_MERGES} bytes, found more"));
                }
                merges.push(((vocabulary[*text], lengths, (a, b)), (left.to_owned(), right.to_owned())));
            }
        }
    }
    merges.sort_by_key(|&(key, _)| key);
    Ok(merges.into_iter().map(|(_, pair)| pair).collect())
}

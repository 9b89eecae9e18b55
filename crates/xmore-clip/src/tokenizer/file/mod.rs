//! The tokenizer files of a folder: `tokenizer.json`, sentencepiece's `.model`, BERT's `vocab.txt`.

mod charsmap;
mod config;
mod json;
mod protobuf;
mod sentencepiece;
mod siglip;
mod wordpiece;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::Tokenizer as HfTokenizer;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use xmore_files::read_bounded;

use self::config::{TokenizerConfig, text_or};
use self::siglip::SiglipModel;
use super::clean::cleaned;
use super::{Cleaning, Padding, Tokenizer, TokenizerOptions, Tokens};
use crate::error::{ClipError, Result};

/// The largest file that is read; XLM-V's 900 000 tokens take 60 MB.
const MAX_BYTES: u64 = 128 << 20;

/// The names that folders give their vocabularies, the first that is there is read.
pub(crate) const NAMES: [&str; 6] = [
    "tokenizer.json",
    SIGLIP,
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "sentencepiece.model",
    "vocab.txt",
];
/// SigLIP's and T5's.
const SIGLIP: &str = "spiece.model";

/// A tokenizer from a file, cut at a context length, and padded where the options ask for it.
pub(crate) struct FileTokenizer {
    engine: Engine,
    ends: Ends,
    options: TokenizerOptions,
    /// Tokens of the text that fit beside the start and end tokens.
    text_length: usize,
    /// The tokens that say nothing of a text: for what is not in the vocabulary, and sentencepiece's for a space.
    unknown: [Option<u32>; 2],
    /// The token that becomes 0.
    zeroed: Option<u32>,
    /// The id that fills texts up to the context length.
    padding: Option<u32>,
}

/// What splits a text into tokens.
enum Engine {
    /// The tokenizers library, without post-processor.
    Library(Box<HfTokenizer>),
    Siglip(Box<SiglipModel>),
}

impl Engine {
    /// The ids of a text, without start and end tokens; of those behind a limit, at least the first.
    fn ids(&self, text: &str, limit: usize) -> tokenizers::Result<Vec<u32>> {
        match self {
            Self::Library(inner) => Ok(inner.encode_fast(text, false)?.get_ids().to_vec()),
            Self::Siglip(model) => Ok(model.ids(text, limit)),
        }
    }

    /// The id of a piece or a special token.
    fn id(&self, piece: &str) -> Option<u32> {
        match self {
            Self::Library(inner) => inner.token_to_id(piece),
            Self::Siglip(model) => model.id(piece),
        }
    }
}

/// What sentencepiece writes for a space.
const SPACE: char = '▁';

/// The tokens before and behind each text.
#[derive(Default)]
struct Ends {
    start: Vec<u32>,
    end: Vec<u32>,
}

/// A tokenizer as its file has it.
struct Parts {
    engine: Engine,
    ends: Ends,
    unknown: Option<u32>,
}

impl Parts {
    fn library(inner: HfTokenizer, ends: Ends, unknown: Option<u32>) -> Self {
        Self { engine: Engine::Library(Box::new(inner)), ends, unknown }
    }
}

impl FileTokenizer {
    /// Reads the tokenizer of a folder: `tokenizer.json`, or else sentencepiece's model, or else `vocab.txt`.
    ///
    /// # Errors
    /// [`ClipError::Config`] where there is none, and as for [`FileTokenizer::load`].
    pub(crate) fn open(dir: &Path, options: &TokenizerOptions) -> Result<Self> {
        // transformers applies SigLIP's model itself whatever lies beside it
        let own = (TokenizerConfig::read(dir)?.class() == Some("SiglipTokenizer")).then_some(SIGLIP);
        match own.iter().chain(&NAMES).map(|name| dir.join(name)).find(|path| path.is_file()) {
            Some(path) => Self::load(&path, options),
            None => Err(ClipError::config(
                dir,
                format!("expected a tokenizer ({}), found none", NAMES.join(", ")),
            )),
        }
    }

    /// Reads a file, and the `tokenizer_config.json` next to it if there is one: `*.model` as sentencepiece's, `*.txt` as BERT's
    /// vocabulary, anything else as `tokenizer.json`.
    ///
    /// # Errors
    /// [`ClipError::Io`] and [`ClipError::Config`] for files that cannot be read or are malformed.
    pub(crate) fn load(path: &Path, options: &TokenizerOptions) -> Result<Self> {
        let config = TokenizerConfig::read(path.parent().unwrap_or(Path::new("")))?;
        let bytes = read_bounded(path, MAX_BYTES).map_err(|e| ClipError::io(path, e))?;
        Self::parse(path, &bytes, &config, options).map_err(|message| ClipError::config(path, message))
    }

    fn parse(
        path: &Path,
        bytes: &[u8],
        config: &TokenizerConfig,
        options: &TokenizerOptions,
    ) -> Result<Self, String> {
        let parts = match path.extension().and_then(|extension| extension.to_str()) {
            Some("model") => sentencepiece::build(path, bytes, config)?,
            Some("txt") => wordpiece::build(bytes, config)?,
            _ => json::build(bytes, config)?,
        };
        Self::assemble(parts, config, options)
    }

    fn assemble(parts: Parts, config: &TokenizerConfig, options: &TokenizerOptions) -> Result<Self, String> {
        let Parts { mut engine, ends, unknown } = parts;
        let (special, context) = (ends.start.len() + ends.end.len(), options.context_length);
        let Some(text_length) = context.checked_sub(special).filter(|&length| length > 0) else {
            return Err(format!(
                "adds {special} tokens to each text, expected fewer than the context's {context}"
            ));
        };
        let padding = match options.padding {
            None => None,
            Some(Padding::Id(id)) => Some(id),
            Some(Padding::Token) => Some(padding_of(&engine, config)?),
        };
        let separator = text_or(&config.sep_token, "[SEP]");
        let zeroed = match &engine {
            _ if !options.strip_sep_token => None,
            Engine::Library(inner) => Some(id_of(inner, separator)?),
            Engine::Siglip(_) => return Err(format!("expected a token {separator:?}, found none")),
        };
        let mut options = options.clone();
        let lower = options.cleaning == Cleaning::LowerCase || config.class() == Some("Siglip2Tokenizer");
        match &mut engine {
            Engine::Library(inner) if lower => {
                let own = inner.get_normalizer().cloned();
                let all =
                    [Some(NormalizerWrapper::Lowercase(Lowercase)), own].into_iter().flatten().collect();
                inner.with_normalizer(Some(Sequence::new(all))).map_err(|e| e.to_string())?;
            }
            Engine::Library(_) => {}
            // it cleans by itself, between special tokens
            Engine::Siglip(_) if options.cleaning == Cleaning::Siglip => options.cleaning = Cleaning::None,
            Engine::Siglip(_) => {}
        }
        let unknown = [unknown, engine.id(&SPACE.to_string())];
        Ok(Self { engine, ends, options, text_length, unknown, zeroed, padding })
    }

    fn tokens(&self, text: &str) -> tokenizers::Result<Tokens> {
        let mut of_text = self.engine.ids(&cleaned(text, self.options.cleaning), self.text_length)?;
        let truncated = of_text.len() > self.text_length;
        of_text.truncate(self.text_length);
        let unknown = of_text.iter().filter(|&&id| self.unknown.contains(&Some(id))).count();
        let mut ids = [self.ends.start.as_slice(), &of_text, &self.ends.end].concat();
        for id in ids.iter_mut().filter(|id| Some(**id) == self.zeroed) {
            *id = 0;
        }
        if let Some(padding) = self.padding {
            ids.resize(self.options.context_length, padding);
        }
        Ok(Tokens { truncated, special: ids.len() - of_text.len(), unknown, ids })
    }
}

/// The class that transformers applies a folder's tokenizer by, where its `tokenizer_config.json` names one.
///
/// # Errors
/// [`ClipError::Io`] and [`ClipError::Config`] for a file that cannot be read or is malformed.
pub(crate) fn tokenizer_class(dir: &Path) -> Result<Option<String>> {
    Ok(TokenizerConfig::read(dir)?.class().map(str::to_owned))
}

impl Tokenizer for FileTokenizer {
    fn encode(&self, text: &str) -> Result<Tokens> {
        guard(|| self.tokens(text))
            .map_err(|message| ClipError::Tokenize { text: text.chars().take(40).collect(), message })
    }
}

/// The id of a token that has to be there.
fn id_of(inner: &HfTokenizer, token: &str) -> Result<u32, String> {
    inner.token_to_id(token).ok_or_else(|| format!("expected a token {token:?}, found none"))
}

/// The id of the padding token: the configuration's, or else the one of the tokenizer's class.
fn padding_of(engine: &Engine, config: &TokenizerConfig) -> Result<u32, String> {
    let default = match engine {
        Engine::Library(inner) if matches!(inner.get_model(), ModelWrapper::WordPiece(_)) => "[PAD]",
        Engine::Library(_) => "<pad>",
        Engine::Siglip(_) => "</s>",
    };
    let token = text_or(&config.pad_token, default);
    engine.id(token).ok_or_else(|| format!("expected a padding token {token:?}, found none"))
}

/// The token for what is not in the vocabulary.
fn unknown_of(inner: &HfTokenizer) -> Option<u32> {
    let token = match inner.get_model() {
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        // It has the id alone, and not in its interface.
        ModelWrapper::Unigram(_) => Some("<unk>".to_owned()),
    };
    token.and_then(|token| inner.token_to_id(&token))
}

/// Runs a call into the library, whose panics over malformed files become errors.
fn guard<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("the tokenizers library panicked: {message}"))
        }
    }
}

/// The ids of a text by a `tokenizer.json` in memory, start and end tokens included, cut at `context_length`.
///
/// # Errors
/// [`ClipError::Config`] for a file that is none, [`ClipError::Tokenize`] for a text that it cannot take.
#[doc(hidden)]
pub fn encode_with_json(json: &[u8], text: &str, context_length: usize) -> Result<(Vec<u32>, bool)> {
    let tokens =
        encode_with_file("tokenizer.json", json, b"{}", text, &TokenizerOptions::new(context_length))?;
    Ok((tokens.ids, tokens.truncated))
}

/// The tokens of a text by a file in memory, whose name says what it is, beside a `tokenizer_config.json`.
///
/// # Errors
/// As for [`encode_with_json`].
#[doc(hidden)]
pub fn encode_with_file(
    name: &str,
    file: &[u8],
    config: &[u8],
    text: &str,
    options: &TokenizerOptions,
) -> Result<Tokens> {
    let path = Path::new(name);
    let config = TokenizerConfig::parse(Path::new(config::FILE), config)?;
    FileTokenizer::parse(path, file, &config, options)
        .map_err(|message| ClipError::config(path, message))?
        .encode(text)
}

/// The ids of texts by the tokenizer of a folder.
///
/// # Errors
/// [`ClipError::Io`] and [`ClipError::Config`] for a folder without a usable tokenizer, [`ClipError::Tokenize`] for a text that it
/// cannot take.
#[doc(hidden)]
pub fn encode_with_folder(dir: &Path, options: &TokenizerOptions, texts: &[String]) -> Result<Vec<Tokens>> {
    let tokenizer = FileTokenizer::open(dir, options)?;
    texts.iter().map(|text| tokenizer.encode(text)).collect()
}

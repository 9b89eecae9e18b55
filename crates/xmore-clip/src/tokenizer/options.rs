//! How a model uses its tokenizer file: what is done to a text before, and to its ids after.

/// What the configuration of a model says about its tokenizer beside the file.
#[derive(Clone, Debug)]
pub struct TokenizerOptions {
    /// Ids of a text at most, start and end tokens included.
    pub context_length: usize,
    /// What is done to a text before the tokenizer's own normalization.
    pub cleaning: Cleaning,
    /// What fills texts up to the context length, for text towers that compute what is behind a text's end (no causal mask,
    /// no mask of padding).
    pub padding: Option<Padding>,
    /// CLIPA: every `[SEP]` becomes id 0 (open_clip's `strip_sep_token`).
    pub strip_sep_token: bool,
}

/// What fills texts up to the context length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// This id.
    Id(u32),
    /// The padding token that the tokenizer's files name.
    Token,
}

impl TokenizerOptions {
    /// A tokenizer file as it is: no cleaning, no padding.
    pub fn new(context_length: usize) -> Self {
        Self { context_length, cleaning: Cleaning::None, padding: None, strip_sep_token: false }
    }
}

/// What is done to a text before the tokenizer's own normalization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cleaning {
    /// Nothing: transformers' tokenizers but SigLIP's.
    #[default]
    None,
    /// Each character in lower case by itself, special tokens in the text left alone: transformers' `Siglip2Tokenizer`, which needs not
    /// be asked for where `tokenizer_config.json` names that class.
    LowerCase,
    /// ftfy, HTML entities, single spaces: open_clip's `clean="whitespace"`, what its `HFTokenizer` does by default.
    Whitespace,
    /// [`Cleaning::Whitespace`] in lower case: open_clip's `clean="lower"`.
    Lower,
    /// ftfy, HTML entities, underscores to spaces, no ASCII punctuation, lower case, single spaces: open_clip's
    /// `clean="canonicalize"`, big_vision's form for SigLIP, SigLIP 2 and mT5.
    Canonical,
    /// Lower case, no ASCII punctuation (underscores too), single spaces, special tokens in the text left alone: transformers'
    /// `SiglipTokenizer`.
    Siglip,
}

impl Cleaning {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::None, Self::LowerCase, Self::Whitespace, Self::Lower, Self::Canonical, Self::Siglip];

    /// Its name; open_clip's for those that it has.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LowerCase => "lower-case",
            Self::Whitespace => "whitespace",
            Self::Lower => "lower",
            Self::Canonical => "canonicalize",
            Self::Siglip => "siglip",
        }
    }
}

//! CLIP's tokenizer as open_clip has it: clean, split into words, BPE, cut at the context length.

use std::sync::LazyLock;

use regex::Regex;

use super::bpe::{self, ByteBpe};
use super::clean::clean;

/// `<start_of_text>`, first id of every text.
const START: u32 = bpe::TOKENS;
/// `<end_of_text>`, last id of every text.
const END: u32 = bpe::TOKENS + 1;

/// The vocabulary, built at the first text (tens of milliseconds) and shared by all tokenizers.
static BPE: LazyLock<ByteBpe> =
    LazyLock::new(|| ByteBpe::new().expect("the built-in vocabulary is complete"));

/// Special tokens, English contractions, runs of letters, single numbers, runs of anything else.
///
/// Python's expression ignores case: on lower-cased text that adds the long s, and drops U+0345 from every class.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\u{345}]+",
    )
    .expect("a constant expression")
});

/// The ids of a text.
pub(super) struct Encoded {
    pub ids: Vec<u32>,
    pub truncated: bool,
    /// How many are start, end and padding.
    pub special: usize,
}

/// CLIP's own tokenizer with its built-in vocabulary: texts to ids as open_clip's `SimpleTokenizer` gives them.
///
/// Text is cleaned as there (the fixes of ftfy, HTML entities, whitespace, lower case). Ids are below
/// [`ClipTokenizer::VOCABULARY`]; they start with 49406, end with 49407 and are not padded but by [`ClipTokenizer::padded`].
///
/// Two things are not as there: letters and numbers are those of the `regex` crate's Unicode version (16 now), so scripts that came
/// later are split like signs; and ftfy's repetition stops on texts with thousands of entities inside each other.
///
/// ```
/// let tokenizer = xmore_clip::ClipTokenizer::new(77);
/// let (ids, truncated) = tokenizer.encode("a photo of a dog");
/// assert_eq!(ids, [49406, 320, 1125, 539, 320, 1929, 49407]);
/// assert!(!truncated);
/// ```
///
/// Source: openai/CLIP `simple_tokenizer.py`; open_clip 3.3 `tokenizer.py`.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    context_length: usize,
    padded: bool,
}

impl ClipTokenizer {
    /// Number of tokens, start and end included: the rows of a CLIP text tower's token embedding.
    pub const VOCABULARY: usize = bpe::TOKENS as usize + 2;

    /// A tokenizer that cuts texts at `context_length` ids (77 for OpenAI's models), the start and end ids counted; less than
    /// 2 is taken as 2.
    pub fn new(context_length: usize) -> Self {
        Self { context_length: context_length.max(2), padded: false }
    }

    /// The same for text towers that compute what is behind a text's end (no causal mask): the ids are filled with 0 up to the
    /// context length, as open_clip fills them for all towers.
    pub fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// The ids of a text, and whether it was too long and cut (the end id is kept).
    pub fn encode(&self, text: &str) -> (Vec<u32>, bool) {
        let Encoded { ids, truncated, .. } = self.tokens(text);
        (ids, truncated)
    }

    pub(super) fn tokens(&self, text: &str) -> Encoded {
        let text = clean(text);
        let mut ids = vec![START];
        for word in WORDS.find_iter(&text) {
            match word.as_str() {
                "<start_of_text>" => ids.push(START),
                "<end_of_text>" => ids.push(END),
                word => BPE.encode(word, &mut ids).expect("every byte is in the vocabulary"),
            }
            if ids.len() >= self.context_length {
                break;
            }
        }
        let truncated = ids.len() >= self.context_length;
        ids.truncate(self.context_length - 1);
        ids.push(END);
        let of_text = ids.len() - 2;
        if self.padded {
            ids.resize(self.context_length, 0);
        }
        Encoded { special: ids.len() - of_text, ids, truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_keeps_the_end() {
        let ids = |context, text| ClipTokenizer::new(context).encode(text);
        assert_eq!(ids(77, ""), (vec![49406, 49407], false));
        assert_eq!(ids(4, "hello world"), (vec![49406, 3306, 1002, 49407], false));
        assert_eq!(ids(3, "hello world"), (vec![49406, 3306, 49407], true));
        assert_eq!(ids(0, "hello world"), (vec![49406, 49407], true));
    }

    #[test]
    fn special_tokens_in_text() {
        let (ids, _) = ClipTokenizer::new(77).encode("<START_OF_TEXT>hi<end_of_text> <ſtart_of_text>");
        assert_eq!(ids[..4], [49406, 49406, 1883, 49407]);
        assert_ne!(ids[4], 49406);
    }
}

//! CLIP's byte-level BPE: the built-in merges, applied by the tokenizers library.

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

/// CLIP's merges, MIT license, (c) OpenAI: pairs of little-endian u16 token ids; merge `i` joins a pair into token `512 + i`.
/// Written by tests/fixtures/tokenizer/make_tables.py from open_clip's `bpe_simple_vocab_16e6.txt.gz`.
static MERGES: &[u8] = include_bytes!("tables/clip_merges.bin");

/// Marks the last token of a word.
const END_OF_WORD: &str = "</w>";

/// Number of tokens without the start and end tokens: 256 bytes, 256 last bytes, and one per merge.
pub(super) const TOKENS: u32 = 512 + (MERGES.len() / 4) as u32;

/// Words to token ids.
pub(super) struct ByteBpe {
    bpe: BPE,
    /// The printable character that stands for each byte in the vocabulary.
    letters: [char; 256],
}

impl ByteBpe {
    /// Builds the vocabulary from the merges.
    pub(super) fn new() -> tokenizers::Result<Self> {
        let (letters, order) = byte_letters();
        let mut strings: Vec<String> = order.iter().map(|c| c.to_string()).collect();
        strings.extend(order.iter().map(|c| format!("{c}{END_OF_WORD}")));
        let mut merges = Vec::with_capacity(MERGES.len() / 4);
        for pair in MERGES.chunks_exact(4) {
            let first = strings[usize::from(u16::from_le_bytes([pair[0], pair[1]]))].clone();
            let second = strings[usize::from(u16::from_le_bytes([pair[2], pair[3]]))].clone();
            strings.push(format!("{first}{second}"));
            merges.push((first, second));
        }
        let vocabulary: Vocab = strings.into_iter().zip(0..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .end_of_word_suffix(END_OF_WORD.to_string())
            .build()?;
        Ok(Self { bpe, letters })
    }

    /// Appends the ids of one non-empty word.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        // '!' to '~' stand for themselves
        let tokens = if word.bytes().all(|b| b.is_ascii_graphic()) {
            self.bpe.tokenize(word)?
        } else {
            let letters: String = word.bytes().map(|b| self.letters[usize::from(b)]).collect();
            self.bpe.tokenize(&letters)?
        };
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// The character for each byte, and the characters in the order of their token ids: bytes with a printable Latin-1 character
/// stand for themselves and come first, the others take U+0100 onwards.
fn byte_letters() -> ([char; 256], Vec<char>) {
    let mut letters = ['\0'; 256];
    let mut order = Vec::with_capacity(256);
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    for byte in (0..=255u8).filter(|&b| printable(b)) {
        letters[usize::from(byte)] = char::from(byte);
        order.push(char::from(byte));
    }
    for (byte, letter) in (0..=255u8).filter(|&b| !printable(b)).zip('\u{100}'..) {
        letters[usize::from(byte)] = letter;
        order.push(letter);
    }
    (letters, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_in_clip() {
        let bpe = ByteBpe::new().unwrap();
        let ids = |word: &str| {
            let mut ids = Vec::new();
            bpe.encode(word, &mut ids).unwrap();
            ids
        };
        assert_eq!(TOKENS, 49406);
        assert_eq!(ids("hello"), [3306]);
        assert_eq!(ids("båstad"), [65, 23176, 16485]);
        assert_eq!(ids("!!!"), [995]);
        assert_eq!(
            ids("donaudampfschifffahrtsgesellschaftskapitänsmütze"),
            [
                1067, 627, 1880, 16680, 13731, 1021, 778, 4810, 2290, 619, 10279, 45588, 83, 909, 688, 529,
                42787, 978, 6522, 83, 1298
            ]
        );
    }
}

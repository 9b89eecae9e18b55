//! sentencepiece's normalizer: replaces sequences of characters by a table, removes spaces, and writes those left as `▁`.
//!
//! The tokenizers library has another (`Precompiled`), which takes the first sequence of the table that matches, not the longest.

use super::protobuf::SentencePieceModel;

/// A model's normalizer.
///
/// Source: google/sentencepiece `src/normalizer.cc`; the table is a double array of s-yata/darts-clone.
pub(super) struct Normalizer {
    /// The double array of a trie over bytes; empty for no table.
    units: Vec<u32>,
    /// What sequences are replaced by, each ended by a NUL.
    replacements: String,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

impl Normalizer {
    pub(super) fn new(model: &SentencePieceModel<'_>) -> Result<Self, String> {
        if model.whitespace_as_suffix || !model.escape_whitespaces {
            return Err("expected whitespace written as a prefix `▁` of pieces, found another way".to_owned());
        }
        let (units, replacements) = table(model.charsmap).ok_or(
            "normalizer_spec.precompiled_charsmap: expected a double array and UTF-8, found neither",
        )?;
        Ok(Self {
            units,
            replacements: replacements.to_owned(),
            add_dummy_prefix: model.add_dummy_prefix,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
        })
    }

    /// The text that the pieces cover.
    pub(super) fn normalize(&self, mut text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        let mut after_space = self.remove_extra_whitespaces;
        let mut started = false;
        while !text.is_empty() {
            let (mut part, length) = self.first(text);
            text = &text[length..];
            if after_space {
                part = part.trim_start_matches(' ');
            }
            if part.is_empty() {
                continue;
            }
            if !std::mem::replace(&mut started, true) && self.add_dummy_prefix {
                out.push('▁');
            }
            out.extend(part.chars().map(|c| if c == ' ' { '▁' } else { c }));
            after_space = self.remove_extra_whitespaces && part.ends_with(' ');
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches('▁').len());
        }
        out
    }

    /// What the first sequence of a text becomes, and its length.
    fn first<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        let one = text.chars().next().map_or(0, char::len_utf8);
        let Some((at, length)) = self.longest(text.as_bytes()) else { return (&text[..one], one) };
        match self.replacements.get(at..) {
            // a sequence that ends within a character, or points outside: damaged
            Some(rest) if text.is_char_boundary(length) => (rest.split('\0').next().unwrap_or(""), length),
            _ => (&text[..one], one),
        }
    }

    /// The value and the length of the longest entry that a text starts with.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut position = offset(*self.units.first()?);
        let mut found = None;
        for (i, &byte) in text.iter().enumerate() {
            position ^= usize::from(byte);
            let Some(&unit) = self.units.get(position) else { break };
            if unit & ((1 << 31) | 0xFF) != u32::from(byte) {
                break;
            }
            position ^= offset(unit);
            if (unit >> 8) & 1 == 1
                && let Some(leaf) = self.units.get(position)
            {
                found = Some(((leaf & ((1 << 31) - 1)) as usize, i + 1));
            }
        }
        found
    }
}

/// The double array and the replacements of a table: its size in bytes, itself, and the rest.
fn table(bytes: &[u8]) -> Option<(Vec<u32>, &str)> {
    if bytes.is_empty() {
        return Some((Vec::new(), ""));
    }
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (array, replacements) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    let units = array.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
    Some((units.collect(), std::str::from_utf8(replacements).ok()?))
}

//! sentencepiece's normalizer: replaces sequences of characters by a table, removes spaces, and writes those left as `▁`.
//!
//! The tokenizers library has another (`Precompiled`), which takes the first sequence of the table that matches, not the longest.

use super::SPACE;
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
        let (array, replacements) = parts(model)?;
        let units =
            array.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        Ok(Self {
            units: units.collect(),
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
                out.push(SPACE);
            }
            out.extend(part.chars().map(|c| if c == ' ' { SPACE } else { c }));
            after_space = self.remove_extra_whitespaces && part.ends_with(' ');
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(SPACE).len());
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

/// The most bytes that a sequence is replaced by; NFKC has 33. Each character of a text can become as many.
const MAX_REPLACEMENT: usize = 1024;

/// The bytes of the double array of a model's table, and its replacements; both empty for no table.
///
/// The table is the size of the array in bytes, the array, and the rest.
pub(super) fn parts<'a>(model: &SentencePieceModel<'a>) -> Result<(&'a [u8], &'a str), String> {
    const KEY: &str = "normalizer_spec.precompiled_charsmap";
    if model.charsmap.is_empty() {
        return Ok((&[], ""));
    }
    let array = model
        .charsmap
        .split_first_chunk::<4>()
        .and_then(|(size, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*size)).ok()?));
    let (array, rest) =
        array.ok_or_else(|| format!("{KEY}: expected a double array, found too few bytes"))?;
    let replacements = std::str::from_utf8(rest).map_err(|e| format!("{KEY}: replacements: {e}"))?;
    match replacements.split('\0').map(str::len).max() {
        Some(longest) if longest > MAX_REPLACEMENT => {
            Err(format!("{KEY}: expected replacements of at most {MAX_REPLACEMENT} bytes, found {longest}"))
        }
        _ => Ok((array, replacements)),
    }
}

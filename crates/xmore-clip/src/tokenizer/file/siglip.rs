//! transformers' `SiglipTokenizer`: the only class here that has sentencepiece itself apply the model, to parts of a text between
//! special tokens that it cleans.

use super::SPACE;
use super::charsmap::Normalizer;
use super::config::{TokenizerConfig, text_or};
use super::protobuf::{Algorithm, PieceKind, SentencePieceModel};
use crate::tokenizer::Cleaning;
use crate::tokenizer::clean::cleaned;

/// What sentencepiece takes off the least score for a character that no piece covers.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The class with its model.
///
/// Source: transformers `models/siglip/tokenization_siglip.py`, `tokenization_python.py`.
pub(super) struct SiglipModel {
    normalizer: Normalizer,
    pieces: Pieces,
    /// Tokens that are found in texts as they are.
    special: Vec<(String, u32)>,
    /// Put before each part and its ids cut off again, so that no space is put before those after the first.
    prefix: String,
    prefix_length: usize,
}

impl SiglipModel {
    pub(super) fn new(model: &SentencePieceModel<'_>, config: &TokenizerConfig) -> Result<Self, String> {
        let prefix = text_or(&config.unk_token, "<unk>").to_owned();
        let named = [text_or(&config.eos_token, "</s>"), &prefix, text_or(&config.pad_token, "</s>")];
        let special = named.into_iter().filter_map(|token| {
            let id = model.pieces.iter().zip(0..).find(|(piece, _)| piece.text == token)?.1;
            Some((token.to_owned(), id))
        });
        let special = special.collect();
        let (normalizer, pieces) = (Normalizer::new(model)?, Pieces::new(model)?);
        let prefix_length = pieces.ids(&normalizer.normalize(&prefix)).len();
        Ok(Self { normalizer, pieces, special, prefix, prefix_length })
    }

    /// The ids of a text, without the end token; no further parts once there are more than a limit.
    pub(super) fn ids(&self, text: &str, limit: usize) -> Vec<u32> {
        let text = format!("{SPACE}{}", text.replace(SPACE, " "));
        let (mut rest, mut ids) = (text.as_str(), Vec::new());
        while !rest.is_empty() && ids.len() <= limit {
            let Some((at, (special, id))) = self.first_special(rest) else {
                self.add_part(rest, &mut ids);
                break;
            };
            self.add_part(&rest[..at], &mut ids);
            ids.push(*id);
            rest = &rest[at + special.len()..];
        }
        ids
    }

    /// The id of a piece that texts are split into, or of a special token.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        let special = self.special.iter().find(|(own, _)| own == piece).map(|&(_, id)| id);
        special.or_else(|| self.pieces.id(piece))
    }

    /// The first special token in a text and where it is, the longest of those that start there.
    fn first_special(&self, text: &str) -> Option<(usize, &(String, u32))> {
        let found = self.special.iter().filter_map(|special| Some((text.find(&special.0)?, special)));
        found.min_by_key(|(at, special)| (*at, std::cmp::Reverse(special.0.len())))
    }

    /// Appends the ids of a part without special tokens.
    fn add_part(&self, part: &str, ids: &mut Vec<u32>) {
        if part.is_empty() {
            return;
        }
        let text = format!("{}{}", self.prefix, cleaned(part, Cleaning::Siglip));
        let all = self.pieces.ids(&self.normalizer.normalize(&text));
        ids.extend(all.get(self.prefix_length..).unwrap_or(&all));
    }
}

/// The unigram model as sentencepiece applies it: with sums of single precision, by which near ties are decided (the tokenizers
/// library has double).
///
/// Source: google/sentencepiece `src/unigram_model.cc`, `Model::EncodeOptimized`.
struct Pieces {
    /// Text, id and score of the pieces that texts are split into, in the order of their bytes.
    sorted: Vec<(Box<[u8]>, u32, f32)>,
    /// Where in `sorted` the pieces with each first byte start, and the end.
    starts: [usize; 257],
    unknown: u32,
    unknown_score: f32,
}

impl Pieces {
    fn new(model: &SentencePieceModel<'_>) -> Result<Self, String> {
        if model.algorithm != Algorithm::Unigram || model.byte_fallback {
            return Err("trainer_spec: expected unigram without byte_fallback, found another".to_owned());
        }
        let mut sorted = Vec::new();
        for (piece, id) in model.pieces.iter().zip(0..) {
            match piece.kind {
                PieceKind::Normal => sorted.push((Box::from(piece.text.as_bytes()), id, piece.score)),
                PieceKind::UserDefined => {
                    return Err(format!(
                        "piece {id}: expected none of the type USER_DEFINED, found {:?}",
                        piece.text
                    ));
                }
                PieceKind::Unknown | PieceKind::Control | PieceKind::Unused | PieceKind::Byte => {}
            }
        }
        sorted.sort_by(|a: &(Box<[u8]>, u32, f32), b| a.0.cmp(&b.0));
        let starts =
            std::array::from_fn(|byte| sorted.partition_point(|piece| usize::from(piece.0[0]) < byte));
        let least = sorted.iter().map(|piece| piece.2).fold(f32::MAX, f32::min);
        Ok(Self { sorted, starts, unknown: model.unknown, unknown_score: least - UNKNOWN_PENALTY })
    }

    fn id(&self, piece: &str) -> Option<u32> {
        let at = self.sorted.binary_search_by(|own| (*own.0).cmp(piece.as_bytes()));
        at.ok().map(|at| self.sorted[at].1)
    }

    /// The ids of the split with the greatest sum of scores; a run of unknown characters has one.
    fn ids(&self, text: &str) -> Vec<u32> {
        #[derive(Clone, Copy)]
        struct Best {
            id: u32,
            score: f32,
            start: usize,
        }
        let bytes = text.as_bytes();
        let mut best: Vec<Option<Best>> = vec![None; bytes.len() + 1];
        for (start, c) in text.char_indices() {
            // each character alone ends a path
            let so_far = best[start].map_or(0.0, |best| best.score);
            let mut single = false;
            self.each_prefix(&bytes[start..], |length, id, score| {
                let score = score + so_far;
                let end = &mut best[start + length];
                if end.is_none_or(|end| score > end.score) {
                    *end = Some(Best { id, score, start });
                }
                single |= length == c.len_utf8();
            });
            if !single {
                let score = self.unknown_score + so_far;
                let end = &mut best[start + c.len_utf8()];
                if end.is_none_or(|end| score > end.score) {
                    *end = Some(Best { id: self.unknown, score, start });
                }
            }
        }
        let (mut ids, mut end) = (Vec::new(), bytes.len());
        while let Some(Best { id, start, .. }) = best[end] {
            if id != self.unknown || ids.last() != Some(&id) {
                ids.push(id);
            }
            end = start;
        }
        ids.reverse();
        ids
    }

    /// Calls back with the length, id and score of each piece that the bytes start with, the shortest first.
    fn each_prefix(&self, bytes: &[u8], mut found: impl FnMut(usize, u32, f32)) {
        let first = usize::from(bytes[0]);
        let mut range = &self.sorted[self.starts[first]..self.starts[first + 1]];
        for length in 1..=bytes.len() {
            if length > 1 {
                let byte = bytes[length - 1];
                // those of this length are the first, and have no further byte
                let from =
                    range.partition_point(|piece| piece.0.get(length - 1).is_none_or(|&own| own < byte));
                let to =
                    range.partition_point(|piece| piece.0.get(length - 1).is_none_or(|&own| own <= byte));
                range = &range[from..to];
            }
            let Some((piece, id, score)) = range.first() else { return };
            if piece.len() == length {
                found(length, *id, *score);
            }
        }
    }
}

//! Multi-head attention over sequences of different lengths, without padding.

use std::ops::Range;

use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

pub(crate) use super::gemm::Strided;
use super::gemm::{ColumnBlock, Threads, split};
use super::operand::Operand;
use super::precision::Precision;

/// Which tokens of its sequence a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// All.
    None,
    /// Those up to itself.
    Causal,
    /// Those up to itself but the sequence's last token, which none sees, not even itself.
    CausalWithoutLast,
}

impl Mask {
    /// Whether a token sees none of those behind it.
    pub(crate) fn causal(self) -> bool {
        self != Self::None
    }

    /// The same for the last token of a sequence alone, from which a causal mask hides nothing.
    pub(crate) fn of_last(self) -> Self {
        match self {
            Self::None | Self::Causal => Self::None,
            Self::CausalWithoutLast => self,
        }
    }

    /// The tokens of a sequence that can be seen.
    pub(crate) fn keys(self, sequence: &Range<usize>) -> Range<usize> {
        match self {
            Self::None | Self::Causal => sequence.clone(),
            Self::CausalWithoutLast => sequence.start..sequence.end - 1,
        }
    }
}

/// Sizes of an attention. Queries are scaled by 1 / √head_width already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    pub(crate) head_width: usize,
    pub(crate) mask: Mask,
    /// Of the linear layers around it, as a processor takes them; a GPU attends in its own.
    pub(crate) precision: Precision,
}

impl AttentionShape {
    pub(crate) fn width(self) -> usize {
        self.heads * self.head_width
    }
}

/// Which queries attend to which keys.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
}

/// Queries, keys and values of all tokens: row per token, in each row the heads' slices in order.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    /// Already scaled by 1 / √head_width.
    pub(crate) queries: Strided<'a>,
    pub(crate) keys: Strided<'a>,
    pub(crate) values: Strided<'a>,
    pub(crate) heads: usize,
    pub(crate) head_width: usize,
    /// Whether a token sees those up to itself only.
    pub(crate) causal: bool,
    /// Of the linear layers around it.
    pub(crate) precision: Precision,
}

impl Attention<'_> {
    /// softmax(q kᵀ) v per head and sequence, written to `out`, `[queries, heads * head_width]`.
    ///
    /// The sequences' queries cover all rows of `out`, in order.
    pub(crate) fn forward(&self, sequences: &[Sequence], out: &mut [f32], threads: Threads) {
        let width = self.heads * self.head_width;
        let mut units = Vec::with_capacity(sequences.len() * self.heads);
        let mut rest = out;
        for sequence in sequences {
            let (rows, tail) = rest.split_at_mut(sequence.queries.len() * width);
            let blocks = ColumnBlock::split(rows, width, self.head_width).into_iter().enumerate();
            units.extend(blocks.map(|(head, block)| (sequence, head, block)));
            rest = tail;
        }
        assert!(rest.is_empty(), "the sequences cover all rows");
        let run = |units: &mut [(&Sequence, usize, ColumnBlock<'_>)]| {
            let mut attention = self.precision.head_attention();
            for (sequence, head, out) in units {
                attention.attend(&self.head(sequence, *head), out);
            }
        };
        if threads == Threads::One {
            return run(&mut units);
        }
        let parts = split(units.len(), 4 * rayon::current_num_threads()).len();
        let each = units.len().div_ceil(parts).max(1);
        units.par_chunks_mut(each).for_each(run);
    }

    fn head(&self, sequence: &Sequence, head: usize) -> Head<'_> {
        Head {
            queries: skip(self.queries, sequence.queries.start),
            query_count: sequence.queries.len(),
            keys: skip(self.keys, sequence.keys.start),
            values: skip(self.values, sequence.keys.start),
            key_count: sequence.keys.len(),
            at: head * self.head_width,
            width: self.head_width,
            causal: self.causal,
        }
    }
}

/// One head of one sequence: elements `at..at + width` of the rows.
pub(super) struct Head<'a> {
    pub(super) queries: Strided<'a>,
    pub(super) query_count: usize,
    pub(super) keys: Strided<'a>,
    pub(super) values: Strided<'a>,
    pub(super) key_count: usize,
    pub(super) at: usize,
    pub(super) width: usize,
    /// Whether a token sees those up to itself only.
    pub(super) causal: bool,
}

/// Attention of one head, with buffers that are reused.
pub(super) trait HeadAttention {
    /// Writes softmax(q kᵀ) v to `out`, `[queries, width]`.
    fn attend(&mut self, head: &Head<'_>, out: &mut ColumnBlock<'_>);
}

/// Attention in 32-bit floats between two products.
pub(super) struct BetweenProducts<T> {
    keys: T,
    values: T,
    scores: Vec<f32>,
}

impl<T: Operand> BetweenProducts<T> {
    pub(super) fn new(operand: impl Fn() -> T) -> Self {
        Self { keys: operand(), values: operand(), scores: Vec::new() }
    }
}

impl<T: Operand> HeadAttention for BetweenProducts<T> {
    fn attend(&mut self, head: &Head<'_>, out: &mut ColumnBlock<'_>) {
        let Self { keys, values, scores } = self;
        let &Head { at, width, key_count: n, .. } = head;
        keys.set_transposed(head.keys, n, at, width);
        values.set(head.values, n, at, width);
        let (stride, tile) = (keys.padded(n), keys.tile_rows());
        scores.resize(tile * stride, 0.0);
        for first in (0..head.query_count).step_by(tile) {
            let count = tile.min(head.query_count - first);
            keys.multiply(skip(head.queries, first), count, at, &mut ColumnBlock::whole(scores, stride));
            for (r, row) in scores.chunks_exact_mut(stride).take(count).enumerate() {
                let seen = if head.causal { (first + r + 1).min(n) } else { n };
                let (seen, unseen) = row[..n].split_at_mut(seen);
                Softmax::new_mut(seen).dispatch();
                unseen.fill(0.0);
            }
            let weights = Strided { data: scores, stride };
            values.multiply(weights, count, 0, &mut out.skip_rows(first));
        }
    }
}

fn skip(rows: Strided<'_>, first: usize) -> Strided<'_> {
    Strided { data: &rows.data[first * rows.stride..], stride: rows.stride }
}

/// Self-attention over `qkv`, `[tokens, 3 * width]`: query, key and value of a token side by side.
pub(crate) fn self_attention(
    qkv: &[f32],
    shape: AttentionShape,
    ranges: &[Range<usize>],
    out: &mut [f32],
    threads: Threads,
) {
    let AttentionShape { heads, head_width, mask, precision } = shape;
    let width = shape.width();
    let part = |n: usize| Strided { data: qkv.get(n * width..).unwrap_or_default(), stride: 3 * width };
    let attention = Attention {
        queries: part(0),
        keys: part(1),
        values: part(2),
        heads,
        head_width,
        causal: mask.causal(),
        precision,
    };
    let sequences: Vec<_> =
        ranges.iter().map(|range| Sequence { queries: range.clone(), keys: mask.keys(range) }).collect();
    attention.forward(&sequences, out, threads);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_f64_and_ignores_the_neighboring_sequences() {
        let cases = [
            (3, 8, Mask::None),
            (2, 24, Mask::Causal),
            (2, 64, Mask::Causal),
            (1, 88, Mask::None),
            (2, 16, Mask::CausalWithoutLast),
        ];
        for (heads, head_width, mask) in cases {
            for precision in [Precision::F32, Precision::Int8] {
                check(AttentionShape { heads, head_width, mask, precision }, 0.0);
            }
            // A rounding to bf16 is off by a factor of 1 + 2⁻⁸ at most; errors of either sign leave half of that here.
            check(AttentionShape { heads, head_width, mask, precision: Precision::Bf16 }, (-9f64).exp2());
        }
    }

    /// Every output is off by at most what inputs and weights that are rounded by factors of up to 1 + `rounding` explain: scores by
    /// δ = Σ|q||k| ((1 + u)² − 1), weights by e^(2δ), and once more as they and the values are rounded.
    fn check(shape: AttentionShape, rounding: f64) {
        let AttentionShape { head_width, mask, .. } = shape;
        let (width, lengths) = (shape.width(), [2usize, 5, 18, 77]);
        let tokens: usize = lengths.iter().sum();
        let qkv: Vec<f32> =
            (0..tokens * 3 * width).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 2.0).collect();
        let mut start = 0;
        let ranges: Vec<_> = lengths.iter().map(|&n| (start..start + n, start += n).0).collect();
        let run = |threads| {
            let mut out = vec![0.0; tokens * width];
            self_attention(&qkv, shape, &ranges, &mut out, threads);
            out
        };
        let out = run(Threads::One);
        assert_eq!(out, run(Threads::Pool));
        let at = |token: usize, part: usize, c: usize| f64::from(qkv[token * 3 * width + part * width + c]);
        let twice = (1.0 + rounding).powi(2);
        for range in &ranges {
            for token in range.clone() {
                let keys = match mask {
                    Mask::None => range.clone(),
                    Mask::Causal => range.start..token + 1,
                    Mask::CausalWithoutLast => range.start..(token + 1).min(range.end - 1),
                };
                for c in 0..width {
                    let head = c / head_width * head_width;
                    let dot = |other: usize, size: fn(f64) -> f64| -> f64 {
                        (head..head + head_width).map(|i| size(at(token, 0, i) * at(other, 1, i))).sum()
                    };
                    let weight = |other: usize| dot(other, |product| product).exp();
                    let total: f64 = keys.clone().map(weight).sum();
                    let sum = |size: fn(f64) -> f64| -> f64 {
                        keys.clone().map(|other| weight(other) / total * size(at(other, 2, c))).sum()
                    };
                    let score_error =
                        keys.clone().map(|other| dot(other, f64::abs)).fold(0.0, f64::max) * (twice - 1.0);
                    let bound = sum(f64::abs) * ((2.0 * score_error).exp() * twice - 1.0) + 1e-5;
                    let (found, want) = (f64::from(out[token * width + c]), sum(|value| value));
                    assert!((found - want).abs() <= bound, "{shape:?}: {found} {want}, bound {bound}");
                }
            }
        }
    }
}

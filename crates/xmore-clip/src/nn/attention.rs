//! Multi-head self-attention over sequences of different lengths, without padding.

use std::ops::Range;

use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

use super::linear::{matmul, view};

/// Scaled dot-product attention: softmax(q kᵀ / √d) v per head and sequence.
///
/// `qkv` is `[tokens, 3 * width]`: query, key and value of a token side by side, the heads' slices in order within each.
/// `sequences` are the token ranges that attend to themselves; together they cover all tokens, in order.
/// Returns `[tokens, width]`.
pub(crate) fn self_attention(
    qkv: &[f32],
    width: usize,
    heads: usize,
    sequences: &[Range<usize>],
) -> Vec<f32> {
    let head_width = width / heads;
    let scale = 1.0 / (head_width as f32).sqrt();
    let tokens = qkv.len() / (3 * width);
    let mut out = vec![0.0; tokens * width];
    let mut slices = Vec::with_capacity(sequences.len());
    let mut rest = out.as_mut_slice();
    for sequence in sequences {
        let (slice, tail) = rest.split_at_mut(sequence.len() * width);
        slices.push((sequence, slice));
        rest = tail;
    }
    assert!(rest.is_empty(), "the sequences cover all tokens");
    slices.into_par_iter().for_each(|(sequence, out)| {
        let n = sequence.len();
        let qkv = &qkv[sequence.start * 3 * width..sequence.end * 3 * width];
        let stride = 3 * width;
        let (mut scores, mut head_out) = (vec![0.0; n * n], vec![0.0; n * head_width]);
        for head in 0..heads {
            let at = head * head_width;
            let query = view(&qkv[at..], n, head_width, [stride, 1]);
            let key = view(&qkv[width + at..], head_width, n, [1, stride]);
            let value = view(&qkv[2 * width + at..], n, head_width, [stride, 1]);
            matmul(query, key, scale, &mut scores);
            for row in scores.chunks_exact_mut(n) {
                Softmax::new_mut(row).dispatch();
            }
            matmul(view(&scores, n, n, [n, 1]), value, 1.0, &mut head_out);
            for (token, values) in head_out.chunks_exact(head_width).enumerate() {
                out[token * width + at..][..head_width].copy_from_slice(values);
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_f64_and_ignores_the_neighbouring_sequences() {
        let (width, heads, lengths) = (24, 3, [1usize, 5, 18]);
        let tokens: usize = lengths.iter().sum();
        let qkv: Vec<f32> =
            (0..tokens * 3 * width).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 4.0).collect();
        let mut start = 0;
        let ranges: Vec<_> = lengths.iter().map(|&n| (start..start + n, start += n).0).collect();
        let out = self_attention(&qkv, width, heads, &ranges);
        let head_width = width / heads;
        let at = |token: usize, part: usize, c: usize| f64::from(qkv[token * 3 * width + part * width + c]);
        for range in ranges {
            for token in range.clone() {
                for c in 0..width {
                    let head = c / head_width * head_width;
                    let score = |other: usize| {
                        let dot: f64 =
                            (head..head + head_width).map(|i| at(token, 0, i) * at(other, 1, i)).sum();
                        (dot / (head_width as f64).sqrt()).exp()
                    };
                    let total: f64 = range.clone().map(score).sum();
                    let want: f64 = range.clone().map(|other| score(other) / total * at(other, 2, c)).sum();
                    let found = f64::from(out[token * width + c]);
                    assert!((found - want).abs() < 1e-5, "{found} {want}");
                }
            }
        }
    }
}

//! What `tdpbf16ps` computes, in plain operations.
//!
//! Source: Intel, "Software Developer's Manual", volume 2, "TDPBF16PS". A step takes 16 pairs of inputs: the products of the pairs' first numbers are
//! summed from zero, those of their second numbers, too, each by a fused multiply-add that is rounded to nearest even; the two sums are added, and their
//! sum to that of the steps before. Numbers below the least normal one, which the instruction takes for zero, do not occur
//! (see docs/decisions/bf16-products.md).

use half::bf16;

use crate::nn::bf16::SMALLEST;

use super::bf16::STEP;

fn rounded(x: f32) -> f32 {
    if x.abs() < SMALLEST { 0.0 } else { bf16::from_f32(x).to_f32() }
}

/// `x` is `[count, inputs]`, `weight` `[outputs, inputs]`, `before`, which is added to, `[count, outputs]`.
pub(super) fn multiply(
    x: &[f32],
    inputs: usize,
    weight: &[f32],
    bias: &[f32],
    before: Option<&[f32]>,
) -> Vec<f32> {
    let weight: Vec<f32> = weight.iter().copied().map(rounded).collect();
    let mut out = Vec::new();
    for row in x.chunks_exact(inputs) {
        let row: Vec<f32> = row.iter().copied().map(rounded).collect();
        for (column, bias) in weight.chunks_exact(inputs).zip(bias) {
            let mut sum = 0.0f32;
            for (x, w) in row.chunks(STEP).zip(column.chunks(STEP)) {
                let mut halves = [0.0f32; 2];
                for (i, (&x, &w)) in x.iter().zip(w).enumerate() {
                    halves[i % 2] = x.mul_add(w, halves[i % 2]);
                }
                sum += halves[0] + halves[1];
            }
            let before = before.map_or(0.0, |before| before[out.len()]);
            out.push(sum + bias + before);
        }
    }
    out
}

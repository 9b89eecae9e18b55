//! Rotation of queries and keys by their tokens' positions.

use std::ops::Range;

use rayon::prelude::*;
use rten_simd::{Isa, SimdOp};

use super::gemm::Threads;

/// Rotations of the pairs of a head's neighboring elements.
pub(crate) struct RotaryTable {
    pub(crate) head_width: usize,
    /// Cosine and sine, `[tokens, head_width / 2]`.
    pub(crate) rotations: Vec<[f32; 2]>,
}

/// Rows that are worth a job of their own.
const ROWS_PER_JOB: usize = 16;

impl RotaryTable {
    /// Rotates the first `heads` heads of rows of `width` elements. The table is that of the last tokens of each sequence; those before them, such as
    /// a class token, stay as they are.
    pub(crate) fn rotate(
        &self,
        x: &mut [f32],
        width: usize,
        heads: usize,
        sequences: &[Range<usize>],
        threads: Threads,
    ) {
        let (rotated, pairs) = (heads * self.head_width, self.head_width / 2);
        let tokens = self.rotations.len() / pairs;
        let rows = |(x, rotations): (&mut [f32], &[[f32; 2]])| {
            for (row, rotations) in x.chunks_exact_mut(width).zip(rotations.chunks_exact(pairs)) {
                RotateRow { row: &mut row[..rotated], rotations }.dispatch();
            }
        };
        for sequence in sequences {
            let x = &mut x[(sequence.end - tokens) * width..sequence.end * width];
            match threads {
                Threads::One => rows((x, &self.rotations)),
                Threads::Pool => x
                    .par_chunks_mut(ROWS_PER_JOB * width)
                    .zip(self.rotations.par_chunks(ROWS_PER_JOB * pairs))
                    .for_each(rows),
            }
        }
    }
}

/// The heads of one row.
struct RotateRow<'a> {
    row: &'a mut [f32],
    rotations: &'a [[f32; 2]],
}

impl SimdOp for RotateRow<'_> {
    type Output = ();

    /// The compiler makes vectors of it, of the instruction set that this is called for.
    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let Self { row, rotations } = self;
        for head in row.chunks_exact_mut(2 * rotations.len()) {
            for (pair, &[cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotations) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, b * cos + a * sin];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_rotated_and_the_rest_is_not() {
        // Two sequences of a class token and two patches; rows of two heads and one more column of that width.
        let (head_width, width) = (4, 12);
        let angles = [0.5f32, -1.0, 2.0, 3.0];
        let table =
            RotaryTable { head_width, rotations: angles.map(|angle| [angle.cos(), angle.sin()]).to_vec() };
        let x: Vec<f32> = (0..6 * width).map(|i| (i * 31 % 17) as f32 - 8.0).collect();
        let rotated = |threads| {
            let mut y = x.clone();
            table.rotate(&mut y, width, 2, &[0..3, 3..6], threads);
            y
        };
        let y = rotated(Threads::One);
        assert_eq!(y, rotated(Threads::Pool));
        for (row, (x, y)) in x.chunks(width).zip(y.chunks(width)).enumerate() {
            if row % 3 == 0 {
                assert_eq!(x, y, "the class token");
                continue;
            }
            assert_eq!(x[8..], y[8..], "what is no head");
            for pair in 0..4 {
                let angle = f64::from(angles[(row % 3 - 1) * 2 + pair % 2]);
                let (a, b) = (f64::from(x[2 * pair]), f64::from(x[2 * pair + 1]));
                let want = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
                for (found, want) in y[2 * pair..2 * pair + 2].iter().zip(want) {
                    assert!((f64::from(*found) - want).abs() < 1e-5, "{found} {want}");
                }
            }
        }
    }
}

//! Inner products of float16 rows with f32 queries, in one fixed order of summation.
//!
//! The order is that of 16 lanes: lane j sums the products of elements j, j + 16, j + 32, …, each by a multiply-add,
//! and the lanes are then summed as a tree: 8 apart, 4 apart, 2, 1. Rows are padded with zeros to whole groups of 16.
//! Vectors of 4, 8 and 16 lanes (Neon, AVX2, AVX-512) do exactly the same sums, so results also agree between
//! machines that have fused multiply-add; without it each product is rounded once more.

use rten_simd::ops::{BitOps, Extend, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

/// Lanes of the order of summation.
const LANES: usize = 16;

/// Length of a padded row.
pub(super) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(LANES)
}

/// `queries` (`[q, dim]`) with zeros after each row, `[q, padded(dim)]`.
pub(super) fn pad_rows(queries: &[f32], dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; queries.len() / dim * padded(dim)];
    for (out, query) in out.chunks_exact_mut(padded(dim)).zip(queries.chunks_exact(dim)) {
        out[..dim].copy_from_slice(query);
    }
    out
}

/// Inner products of every row with every query.
pub(super) struct DotProducts<'a> {
    /// Stored rows, `[rows, dim]`.
    pub rows: &'a [half::f16],
    /// Embedding length.
    pub dim: usize,
    /// Queries as [`pad_rows`] gives them, `[q, padded(dim)]`.
    pub queries: &'a [f32],
    /// Buffer for the rows as f32, `[rows, padded(dim)]`; the padding must be zero and stays so.
    pub scratch: &'a mut [f32],
    /// Products, `[q, rows]`.
    pub out: &'a mut [f32],
}

/// Queries for which rows are converted as they are multiplied; for more of them they are converted once.
const DIRECT_QUERIES: usize = 2;

impl SimdOp for DotProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // Vectors per group of lanes, and queries and rows at a time: enough accumulators to hide the latency of a
        // multiply-add, few enough to stay in registers.
        match LANES / isa.f32().len() {
            1 => self.run::<I, 1, 4, 4, 8>(isa),
            2 => self.run::<I, 2, 2, 2, 4>(isa),
            4 => self.run::<I, 4, 2, 2, 2>(isa),
            _ => self.run_scalar(isa),
        }
    }
}

impl DotProducts<'_> {
    /// With `V` vectors making up the 16 lanes: tiles of `Q` queries and `R` rows, or `D` rows of one query.
    #[inline(always)]
    fn run<I: Isa, const V: usize, const Q: usize, const R: usize, const D: usize>(self, isa: I) {
        let width = padded(self.dim);
        let rows = self.rows.len() / self.dim;
        let (queries, out) = (self.queries, self.out);
        if queries.len() / width <= DIRECT_QUERIES {
            for (query, out) in queries.chunks_exact(width).zip(out.chunks_exact_mut(rows)) {
                let (tiled, rest) = out.split_at_mut(rows / D * D);
                let (tiled_rows, rest_rows) = self.rows.split_at(tiled.len() * self.dim);
                for (rows, out) in tiled_rows.chunks_exact(D * self.dim).zip(tiled.chunks_exact_mut(D)) {
                    out.copy_from_slice(&direct_tile::<I, V, D>(isa, query, rows, self.dim));
                }
                for (row, out) in rest_rows.chunks_exact(self.dim).zip(rest) {
                    [*out] = direct_tile::<I, V, 1>(isa, query, row, self.dim);
                }
            }
            return;
        }
        let scratch = &mut self.scratch[..rows * width];
        for (row, out) in self.rows.chunks_exact(self.dim).zip(scratch.chunks_exact_mut(width)) {
            to_f32(isa, row, &mut out[..self.dim]);
        }
        for (queries, out) in queries.chunks(Q * width).zip(out.chunks_mut(Q * rows)) {
            if queries.len() == Q * width {
                queries_by_rows::<I, V, Q, R>(isa, queries, scratch, out);
            } else {
                for (query, out) in queries.chunks_exact(width).zip(out.chunks_exact_mut(rows)) {
                    queries_by_rows::<I, V, 1, R>(isa, query, scratch, out);
                }
            }
        }
    }

    /// For vectors of any other number of lanes.
    #[inline(always)]
    fn run_scalar<I: Isa>(self, isa: I) {
        let width = padded(self.dim);
        let rows = self.rows.len() / self.dim;
        let scratch = &mut self.scratch[..rows * width];
        for (row, out) in self.rows.chunks_exact(self.dim).zip(scratch.chunks_exact_mut(width)) {
            to_f32(isa, row, &mut out[..self.dim]);
        }
        for (query, out) in self.queries.chunks_exact(width).zip(self.out.chunks_exact_mut(rows)) {
            query_by_rows_scalar(query, scratch, out);
        }
    }
}

/// Converts a row, exactly.
#[inline(always)]
fn to_f32<I: Isa>(isa: I, row: &[half::f16], out: &mut [f32]) {
    let row = as_simd_f16(row);
    let (halves, floats) = (isa.f16(), isa.f32());
    let mut row_chunks = row.chunks_exact(halves.len());
    let mut out_chunks = out.chunks_exact_mut(halves.len());
    for (row, out) in row_chunks.by_ref().zip(out_chunks.by_ref()) {
        let x = halves.load(row);
        floats.store(halves.extend_low(x), &mut out[..floats.len()]);
        floats.store(halves.extend_high(x), &mut out[floats.len()..]);
    }
    for (x, out) in row_chunks.remainder().iter().zip(out_chunks.into_remainder()) {
        *out = x.to_f32();
    }
}

/// The same values as the SIMD crate's own type.
#[inline(always)]
fn as_simd_f16(row: &[half::f16]) -> &[rten_simd::f16] {
    // SAFETY: both types are `repr(transparent)` over u16 and any u16 is a valid value of each.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(row.as_ptr().cast(), row.len())
    }
}

/// Products of `Q` queries with all rows, `R` rows at a time, with `V` vectors making up the 16 lanes.
#[inline(always)]
fn queries_by_rows<I: Isa, const V: usize, const Q: usize, const R: usize>(
    isa: I,
    queries: &[f32],
    rows: &[f32],
    out: &mut [f32],
) {
    let width = queries.len() / Q;
    let count = rows.len() / width;
    let whole = count - count % R;
    for first in (0..whole).step_by(R) {
        let products = tile::<I, V, Q, R>(isa, queries, &rows[first * width..][..R * width]);
        for (q, products) in products.iter().enumerate() {
            out[q * count + first..][..R].copy_from_slice(products);
        }
    }
    for row in whole..count {
        let products = tile::<I, V, Q, 1>(isa, queries, &rows[row * width..][..width]);
        for (q, [product]) in products.into_iter().enumerate() {
            out[q * count + row] = product;
        }
    }
}

/// Products of `Q` queries with `R` rows.
#[inline(always)]
fn tile<I: Isa, const V: usize, const Q: usize, const R: usize>(
    isa: I,
    queries: &[f32],
    rows: &[f32],
) -> [[f32; R]; Q] {
    let ops = isa.f32();
    let width = queries.len() / Q;
    let query: [&[f32]; Q] = std::array::from_fn(|q| &queries[q * width..][..width]);
    let row: [&[f32]; R] = std::array::from_fn(|r| &rows[r * width..][..width]);
    let mut sums = [[[ops.zero(); V]; R]; Q];
    for start in (0..width).step_by(LANES) {
        let x: [[I::F32; V]; R] = std::array::from_fn(|r| ops.load_many(&row[r][start..][..LANES]));
        for q in 0..Q {
            let y: [I::F32; V] = ops.load_many(&query[q][start..][..LANES]);
            for r in 0..R {
                for v in 0..V {
                    sums[q][r][v] = ops.mul_add(x[r][v], y[v], sums[q][r][v]);
                }
            }
        }
    }
    sums.map(|sums| sums.map(|sums| sum_vectors::<I, V>(sums)))
}

/// Products of one query with `R` stored rows, converted as they are read: the same operations in the same order.
#[inline(always)]
fn direct_tile<I: Isa, const V: usize, const R: usize>(
    isa: I,
    query: &[f32],
    rows: &[half::f16],
    dim: usize,
) -> [f32; R] {
    let (halves, ops) = (isa.f16(), isa.f32());
    let lanes = ops.len();
    let row: [&[rten_simd::f16]; R] = std::array::from_fn(|r| as_simd_f16(&rows[r * dim..][..dim]));
    let mut sums = [[ops.zero(); V]; R];
    // A vector of halves is two of floats, which may be one group of lanes, two of them or half of one.
    let step = halves.len().max(LANES);
    let whole = dim - dim % step;
    for start in (0..whole).step_by(step) {
        for at in (start..start + step).step_by(halves.len()) {
            let v = (at - start) / lanes;
            let (low, high) = (ops.load(&query[at..][..lanes]), ops.load(&query[at + lanes..][..lanes]));
            for r in 0..R {
                let x = halves.load(&row[r][at..][..halves.len()]);
                sums[r][v % V] = ops.mul_add(halves.extend_low(x), low, sums[r][v % V]);
                sums[r][(v + 1) % V] = ops.mul_add(halves.extend_high(x), high, sums[r][(v + 1) % V]);
            }
        }
    }
    for start in (whole..query.len()).step_by(LANES) {
        let y: [I::F32; V] = ops.load_many(&query[start..][..LANES]);
        for r in 0..R {
            let mut group = [0.0; LANES];
            group.iter_mut().zip(&row[r][start..]).for_each(|(to, x)| *to = x.to_f32());
            let x: [I::F32; V] = ops.load_many(&group);
            for v in 0..V {
                sums[r][v] = ops.mul_add(x[v], y[v], sums[r][v]);
            }
        }
    }
    sums.map(|sums| sum_vectors::<I, V>(sums))
}

/// Sums the lanes of the vectors that make them up.
#[inline(always)]
fn sum_vectors<I: Isa, const V: usize>(sums: [I::F32; V]) -> f32 {
    let mut all = [0.0; LANES];
    for (all, sums) in all.chunks_exact_mut(LANES / V).zip(sums) {
        all.copy_from_slice(sums.to_array().as_ref());
    }
    sum_lanes(all)
}

/// Sums the lanes as a tree.
#[inline(always)]
fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// For vectors of any other number of lanes.
fn query_by_rows_scalar(query: &[f32], rows: &[f32], out: &mut [f32]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        let mut lanes = [0.0; LANES];
        for (x, q) in row.chunks_exact(LANES).zip(query.chunks_exact(LANES)) {
            for j in 0..LANES {
                lanes[j] += x[j] * q[j];
            }
        }
        *out = sum_lanes(lanes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    fn products(rows: &[f16], queries: &[f32], dim: usize) -> Vec<f32> {
        let count = rows.len() / dim;
        let mut scratch = vec![0.0; count * padded(dim)];
        let mut out = vec![f32::NAN; count * (queries.len() / dim)];
        let queries = pad_rows(queries, dim);
        DotProducts { rows, dim, queries: &queries, scratch: &mut scratch, out: &mut out }.dispatch();
        out
    }

    /// The documented order of summation, one element at a time.
    fn reference(row: &[f16], query: &[f32], fused: bool) -> f32 {
        let mut lanes = [0.0f32; LANES];
        for (i, (x, q)) in row.iter().zip(query).enumerate() {
            let lane = &mut lanes[i % LANES];
            *lane = if fused { x.to_f32().mul_add(*q, *lane) } else { x.to_f32() * q + *lane };
        }
        sum_lanes(lanes)
    }

    fn inputs() -> impl Strategy<Value = (usize, Vec<f16>, Vec<f32>)> {
        (1usize..150, 1usize..20, 1usize..12).prop_flat_map(|(dim, rows, queries)| {
            // Stored values of any size that float16 has, subnormal ones too.
            let stored = prop_oneof![-1.0f32..1.0, -6.0e-5f32..6.0e-5, -6.0e4f32..6.0e4];
            (
                Just(dim),
                prop::collection::vec(stored.prop_map(f16::from_f32), dim * rows),
                prop::collection::vec(-1.0f32..1.0, dim * queries),
            )
        })
    }

    proptest! {
        /// A product goes through at most one rounding of its own (none if fused), k = ⌈dim / 16⌉ of its lane and 4
        /// of the tree, so the sum is within γ(k + 5) Σ|xᵢqᵢ| of the exact one, γ(m) = mu / (1 − mu), u = 2⁻²⁴
        /// (Higham, Accuracy and Stability of Numerical Algorithms, §3.1). 2⁻¹²⁶ a product covers underflow. The
        /// f64 reference's own error is smaller by 2⁻²⁰ at least.
        #[test]
        fn products_are_within_the_derived_bound_of_f64((dim, rows, queries) in inputs()) {
            let out = products(&rows, &queries, dim);
            let count = rows.len() / dim;
            let m = (dim.div_ceil(LANES) + 5) as f64 * f64::from(f32::EPSILON) / 2.0;
            for (q, query) in queries.chunks_exact(dim).enumerate() {
                for (r, row) in rows.chunks_exact(dim).enumerate() {
                    let terms = row.iter().zip(query).map(|(x, q)| x.to_f64() * f64::from(*q));
                    let (exact, size) = terms.fold((0.0, 0.0), |(s, a), t| (s + t, a + t.abs()));
                    let bound = m / (1.0 - m) * size + dim as f64 * f64::from(f32::MIN_POSITIVE);
                    let error = (f64::from(out[q * count + r]) - exact).abs();
                    prop_assert!(error <= bound, "error {error:e} exceeds {bound:e} at dim {dim}");
                }
            }
        }

        #[test]
        fn the_order_of_summation_is_the_documented_one((dim, rows, queries) in inputs()) {
            let out = products(&rows, &queries, dim);
            let count = rows.len() / dim;
            for fused in [true, false] {
                let expected: Vec<u32> = queries
                    .chunks_exact(dim)
                    .flat_map(|q| rows.chunks_exact(dim).map(move |r| reference(r, q, fused).to_bits()))
                    .collect();
                if out.iter().map(|v| v.to_bits()).eq(expected) {
                    return Ok(());
                }
            }
            prop_assert!(false, "neither fused nor unfused sums of {count} rows of {dim} match");
        }
    }
}

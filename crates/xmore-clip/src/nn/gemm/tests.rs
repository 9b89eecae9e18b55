//! Every kernel against f64 with a derived bound, and against the plain one to the bit.

use proptest::prelude::*;

use super::kernel::Kernel;
use super::*;

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect()
}

fn pack(kernel: &'static Kernel, weight: &[f32], columns: usize, depth: usize) -> Packed {
    Packed::for_kernel(kernel, columns, depth, |c| (&weight[c * depth..(c + 1) * depth], 1.0))
}

/// The elements of row `r`, pixel by pixel, zeros where it lies outside.
fn window(w: &Windows<'_>, r: usize) -> Vec<f32> {
    let channels = w.zeros.len();
    let mut row = Vec::new();
    let [out_height, out_width] = w.out;
    let (image, r) = (r / (out_height * out_width), r % (out_height * out_width));
    for ky in 0..w.kernel {
        for kx in 0..w.kernel {
            let y = (r / out_width * w.stride + ky) as isize - w.padding[0] as isize;
            let x = (r % out_width * w.stride + kx) as isize - w.padding[1] as isize;
            if (0..w.height as isize).contains(&y) && (0..w.width as isize).contains(&x) {
                let at = ((image * w.height + y as usize) * w.width + x as usize) * channels;
                row.extend_from_slice(&w.images[at..at + channels]);
            } else {
                row.extend(std::iter::repeat_n(0.0, channels));
            }
        }
    }
    row
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// |error| ≤ γ_n Σ|a||b| with γ_n = n u / (1 − n u), n = depth + 2, u = 2⁻²⁴ (Higham, "Accuracy and stability", 3.1).
    #[test]
    fn all_kernels_agree_and_are_within_the_rounding_bound(
        images in 1usize..4, height in 1usize..9, width in 1usize..9, kernel in 1usize..4, stride in 1usize..3, depth in 1usize..400,
        columns in 1usize..90, add: bool, bias: bool, clamp in 0usize..3, seed: u32,
    ) {
        let data = values(images * height * width * depth, seed);
        let zeros = vec![0.0; depth];
        let out = [height, width].map(|n| n.div_ceil(stride));
        let padding = [kernel / 2, kernel / 2];
        let windows = Windows { images: &data, height, width, zeros: &zeros, kernel, stride, padding, out };
        let count = images * out[0] * out[1];
        let dense = kernel == 1 && stride == 1;
        let rows = if dense { Rows::Dense { data: &data, stride: depth } } else { Rows::Windows(windows) };
        let inputs = kernel * kernel * depth;
        let activation = [None, Some(Activation::Relu), Some(Activation::Relu6)][clamp];
        let ceiling = activation.and_then(Activation::ceiling);
        let weight = values(columns * inputs, !seed);
        let bias = bias.then(|| values(columns, 7));
        let out_stride = columns + 3;
        let before = values(count * out_stride, 9);
        let mut results = Vec::new();
        for kernel in kernel::KERNELS.available() {
            let packed = pack(kernel, &weight, columns, inputs);
            for threads in [Threads::One, Threads::Pool] {
                let mut out = before.clone();
                let finish = Finish { bias: bias.as_deref(), add, activation };
                multiply(rows, count, &packed, &mut Output { data: &mut out, stride: out_stride }, finish, threads);
                results.push(out);
            }
        }
        let first = &results[0];
        prop_assert!(results.iter().all(|r| r == first), "kernels or threads differ");
        let n = (inputs + 2) as f64 * (-24f64).exp2();
        for r in 0..count {
            let row = window(&windows, r);
            for c in 0..columns {
                let mut sum = bias.as_ref().map_or(0.0, |b| f64::from(b[c]));
                sum += if add { f64::from(before[r * out_stride + c]) } else { 0.0 };
                let mut size = sum.abs() + 1.0;
                for (&x, &w) in row.iter().zip(&weight[c * inputs..(c + 1) * inputs]) {
                    let product = f64::from(x) * f64::from(w);
                    sum += product;
                    size += product.abs();
                }
                let want = ceiling.map_or(sum, |ceiling| sum.clamp(0.0, f64::from(ceiling)));
                let error = (f64::from(first[r * out_stride + c]) - want).abs();
                prop_assert!(error <= n / (1.0 - n) * size, "{error} at {r}, {c}");
            }
            if r + 1 < count {
                let gap = r * out_stride + columns..(r + 1) * out_stride;
                prop_assert_eq!(&first[gap.clone()], &before[gap]);
            }
        }
    }

    /// A row's result depends on that row alone, whatever rows stand beside it.
    #[test]
    fn rows_are_independent_to_the_bit(count in 1usize..50, depth in 1usize..600, seed: u32) {
        let columns = 48;
        let (x, w) = (values(count * depth, seed), values(columns * depth, !seed));
        let packed = Packed::from_rows(columns, depth, |c| (&w[c * depth..(c + 1) * depth], 1.0));
        let run = |x: &[f32], count: usize| {
            let mut out = vec![0.0; count * columns];
            let finish = Finish { activation: Some(Activation::Gelu), ..Finish::default() };
            let rows = Rows::Dense { data: x, stride: depth };
            multiply(rows, count, &packed, &mut Output { data: &mut out, stride: columns }, finish, Threads::Pool);
            out
        };
        let all = run(&x, count);
        for r in 0..count {
            prop_assert_eq!(&run(&x[r * depth..(r + 1) * depth], 1)[..], &all[r * columns..(r + 1) * columns]);
        }
    }
}

/// Rows that are copied further apart have the bits of rows multiplied where they lie, as one row alone is.
#[test]
fn spread_rows_keep_their_bits() {
    let columns = 160;
    for (count, stride, depth) in [(9, 512, 512), (23, 1024, 1024), (40, 1024, 700), (17, 1536, 1531)] {
        let (x, w) = (values((count - 1) * stride + depth, 3), values(columns * depth, 5));
        for kernel in kernel::KERNELS.available() {
            let packed = pack(kernel, &w, columns, depth);
            let run = |rows: Rows<'_>, count: usize, threads| {
                let mut out = vec![0.0; count * columns];
                let mut output = Output { data: &mut out, stride: columns };
                multiply(rows, count, &packed, &mut output, Finish::default(), threads);
                out
            };
            let rows = Rows::Dense { data: &x, stride };
            let needed = spread::needed(rows, count, packed.view()).is_some();
            assert_eq!(needed, kernel.rows >= spread::MIN_ROWS, "{}", kernel.name);
            let all = run(rows, count, Threads::Pool);
            assert_eq!(all, run(rows, count, Threads::One));
            for (r, row) in all.chunks_exact(columns).enumerate() {
                let alone = Rows::Dense { data: &x[r * stride..], stride };
                assert_eq!(row, run(alone, 1, Threads::One), "row {r} of {count}");
            }
        }
    }
}

/// A copy holds the rows, whatever kernel this processor's products have.
#[test]
fn spread_rows_are_copies() {
    let (count, stride, depth) = (37, 1024, 700);
    let x = values((count - 1) * stride + depth, 3);
    for threads in [Threads::One, Threads::Pool] {
        let mut buffer = Vec::new();
        let rows = spread::ConflictingRows { data: &x, stride, depth, count };
        let Rows::Dense { data, stride: apart } = rows.spread(&mut buffer, threads) else {
            panic!("dense rows")
        };
        assert!(!apart.is_multiple_of(512) && apart >= depth);
        for r in 0..count {
            assert_eq!(data[r * apart..][..depth], x[r * stride..][..depth], "row {r}");
        }
    }
}

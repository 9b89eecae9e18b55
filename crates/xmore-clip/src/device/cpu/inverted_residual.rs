//! Inverted residual blocks, some rows of the output at a time, so that the wide maps between the layers stay in the second cache.
//!
//! A block's wide map is six times as large as its input: of an image's first blocks, several megabytes.

use std::ops::Range;

use rayon::prelude::*;

use crate::device::InvertedResidual;
use crate::nn::conv::{InputRows, Size};
use crate::nn::gemm::{Threads, split, split_rows};
use crate::nn::thread_buffers::with_buffers;
use crate::profile;

use super::Cpu;

/// Values of the wide map that are computed before they are convolved.
const WIDE_VALUES: usize = 96 << 10;
/// A thread has a band of rows to itself where that is so many times as high as the rows that its neighbors widen, too.
const MIN_BAND: usize = 8;

/// `out = project(depthwise(expand(x)))`, plus `x` where the block is residual; `x` is one image's map `[height, width, inputs]`.
pub(super) fn forward(
    block: &InvertedResidual<'_, Cpu>,
    x: &[f32],
    size: Size,
    out: &mut Vec<f32>,
    threads: Threads,
) -> Size {
    let window = block.depthwise.window();
    let to = window.output(size);
    out.resize(to.area() * block.project.outputs(), 0.0);
    let workers = rayon::current_num_threads();
    let shared = window.kernel.saturating_sub(window.stride);
    if threads == Threads::One || workers == 1 || size.height / workers < MIN_BAND * shared {
        band(block, x, size, 0..to.height, out, threads);
        return to;
    }
    let bands = split_rows(out, to.height, workers);
    bands.into_par_iter().for_each(|(rows, out)| band(block, x, size, rows, out, Threads::One));
    to
}

/// Rows `rows` of the output, `[rows, width', outputs]`.
fn band(
    block: &InvertedResidual<'_, Cpu>,
    x: &[f32],
    size: Size,
    rows: Range<usize>,
    out: &mut [f32],
    threads: Threads,
) {
    let &InvertedResidual { expand, depthwise, project, residual } = block;
    let window = depthwise.window();
    let line = x.len() / size.height;
    let wide_line = expand.map_or(line, |expand| size.width * expand.outputs());
    let deep_line = window.output(size).width * depthwise.outputs();
    let out_line = out.len() / rows.len().max(1);
    let height = match threads {
        Threads::One => ((WIDE_VALUES / wide_line).saturating_sub(window.kernel) / window.stride).max(1),
        Threads::Pool => rows.len(),
    };
    with_buffers(|[wide, deep]: &mut [Vec<f32>; 2]| {
        // Rows of the wide map that the buffer holds.
        let mut held = 0..0;
        let mut out = out;
        for portion in split(rows.len(), rows.len().div_ceil(height)) {
            let portion = rows.start + portion.start..rows.start + portion.end;
            let input = match expand {
                None => InputRows { data: x, first: 0, size },
                Some(expand) => {
                    let (_, start, _) = window.taps(portion.start, size.height);
                    let (_, last, count) = window.taps(portion.end - 1, size.height);
                    let needed = start..last + count;
                    let kept = held.end.max(needed.start) - needed.start;
                    grow(wide, needed.len() * wide_line);
                    let from = (held.len() - kept) * wide_line;
                    wide.copy_within(from..from + kept * wide_line, 0);
                    let new = &x[(needed.start + kept) * line..needed.end * line];
                    profile::time("conv 1x1 wide", 0, || {
                        let wide = &mut wide[kept * wide_line..needed.len() * wide_line];
                        expand.rows(new, wide, false, threads);
                    });
                    held = needed;
                    InputRows { data: wide, first: held.start, size }
                }
            };
            grow(deep, portion.len() * deep_line);
            let deep = &mut deep[..portion.len() * deep_line];
            profile::time("depthwise", 0, || depthwise.rows(input, portion.clone(), deep, threads));
            let (part, others) = std::mem::take(&mut out).split_at_mut(portion.len() * out_line);
            if residual {
                part.copy_from_slice(&x[portion.start * line..portion.end * line]);
            }
            profile::time("conv 1x1 narrow", 0, || project.rows(deep, part, residual, threads));
            out = others;
        }
    });
}

/// Makes a buffer at least so long; what it holds may be anything.
fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::activation::Activation;
    use crate::nn::conv::{Conv2d, DepthwiseConv2d, Padding, Window};
    use crate::nn::norm::BatchNorm;
    use crate::nn::precision::Precision;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn bn(channels: usize, seed: usize) -> BatchNorm {
        BatchNorm { scale: vec![1.0; channels], shift: values(channels, seed) }
    }

    /// Blocks have the bits of their layers one after the other, on any number of threads.
    #[test]
    fn blocks_have_the_bits_of_their_layers() {
        let relu6 = Some(Activation::Relu6);
        for (height, width, inputs, factor, kernel, stride, residual) in [
            (40, 70, 8, 6, 3, 1, true),
            (61, 63, 8, 6, 5, 1, true),
            (60, 50, 8, 6, 3, 2, false),
            (57, 64, 8, 6, 5, 2, false),
            (48, 40, 32, 1, 3, 1, false),
            (7, 7, 24, 6, 5, 1, true),
            (1, 3, 24, 6, 5, 2, false),
            (33, 200, 16, 16, 15, 4, false),
        ] {
            let (size, wide) = (Size { height, width }, inputs * factor);
            let outputs = if residual { inputs } else { inputs + 3 };
            let expand = (factor > 1).then(|| {
                Conv2d::new(
                    &values(wide * inputs, 1),
                    inputs,
                    Window::POINT,
                    bn(wide, 2),
                    relu6,
                    Precision::F32,
                )
            });
            let window = Window { kernel, stride, padding: Padding::Same };
            let depthwise =
                DepthwiseConv2d::new(&values(wide * kernel * kernel, 3), wide, window, bn(wide, 4), relu6);
            let project = Conv2d::new(
                &values(outputs * wide, 5),
                wide,
                Window::POINT,
                bn(outputs, 6),
                None,
                Precision::F32,
            );
            let block = InvertedResidual {
                expand: expand.as_ref(),
                depthwise: &depthwise,
                project: &project,
                residual,
            };
            let x = values(size.area() * inputs, 7);
            let (mut widened, mut deep, mut want) = (x.clone(), Vec::new(), x.clone());
            if let Some(expand) = &expand {
                expand.forward(&x, size, &mut widened, Threads::One);
            }
            let to = depthwise.forward(&widened, size, &mut deep, Threads::One);
            want.resize(to.area() * outputs, 0.0);
            project.rows(&deep, &mut want, residual, Threads::One);
            let mut out = Vec::new();
            assert_eq!(forward(&block, &x, size, &mut out, Threads::One), to);
            assert!(out == want, "{size:?}");
            for workers in [1, 2, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().unwrap();
                out.fill(f32::NAN);
                pool.install(|| forward(&block, &x, size, &mut out, Threads::Pool));
                assert!(out == want, "{size:?} on {workers} threads");
            }
        }
    }
}

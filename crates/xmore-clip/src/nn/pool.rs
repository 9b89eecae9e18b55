//! Average pooling over channels-last images.

use rayon::prelude::*;

use super::conv::Size;
use super::gemm::Threads;

/// Means over squares of `side` × `side` pixels, as PyTorch's `AvgPool2d(side)`: pixels at the end that fill no square are left out.
///
/// `x` is `[height, width, channels]`; the output is written to `out`.
pub(crate) fn average_pool(x: &[f32], size: Size, side: usize, out: &mut Vec<f32>, threads: Threads) -> Size {
    let to = Size { height: size.height / side, width: size.width / side };
    let channels = x.len() / size.area();
    out.clear();
    out.resize(to.area() * channels, 0.0);
    let scale = 1.0 / (side * side) as f32;
    let line = |y: usize, line: &mut [f32]| {
        for (ox, pixel) in line.chunks_exact_mut(channels).enumerate() {
            for dy in 0..side {
                let at = ((y * side + dy) * size.width + ox * side) * channels;
                for from in x[at..at + side * channels].chunks_exact(channels) {
                    pixel.iter_mut().zip(from).for_each(|(p, f)| *p += f);
                }
            }
            pixel.iter_mut().for_each(|p| *p *= scale);
        }
    };
    match threads {
        Threads::One => out.chunks_exact_mut(to.width * channels).enumerate().for_each(|(y, l)| line(y, l)),
        Threads::Pool => {
            out.par_chunks_exact_mut(to.width * channels).enumerate().for_each(|(y, l)| line(y, l))
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_whole_squares_only() {
        let x: Vec<f32> = (0..5 * 3 * 2).map(|i| i as f32).collect();
        let mut out = Vec::new();
        let to = average_pool(&x, Size { height: 5, width: 3 }, 2, &mut out, Threads::Pool);
        assert_eq!(to, Size { height: 2, width: 1 });
        // Rows 0 and 1, columns 0 and 1: 0, 2, 6, 8 in channel 0.
        assert_eq!(out, [4.0, 5.0, 16.0, 17.0]);
    }
}

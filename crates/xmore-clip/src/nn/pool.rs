//! Average pooling over channels-last images.

use rayon::prelude::*;

use super::conv::Size;
use super::gemm::Threads;

/// Means over squares of `side` × `side` pixels, as PyTorch's `AvgPool2d(side)`: pixels at the end that fill no square are left out.
///
/// `x` is `[images, height, width, channels]`, `out` as many images of [`pooled`] size.
pub(crate) fn average_pool(
    x: &[f32],
    size: Size,
    channels: usize,
    side: usize,
    out: &mut [f32],
    threads: Threads,
) {
    let to = pooled(size, side);
    let images = x.len() / (size.area() * channels);
    assert_eq!(out.len(), images * to.area() * channels);
    let scale = 1.0 / (side * side) as f32;
    let line = |n: usize, line: &mut [f32]| {
        let x = &x[n / to.height * size.area() * channels..];
        let y = n % to.height;
        line.fill(0.0);
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
}

/// The size of an image of such means.
pub(crate) fn pooled(size: Size, side: usize) -> Size {
    Size { height: size.height / side, width: size.width / side }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_whole_squares_only() {
        let x: Vec<f32> = (0..5 * 3 * 2).map(|i| i as f32).collect();
        let size = Size { height: 5, width: 3 };
        assert_eq!(pooled(size, 2), Size { height: 2, width: 1 });
        let mut out = [f32::NAN; 4];
        average_pool(&x, size, 2, 2, &mut out, Threads::Pool);
        // Rows 0 and 1, columns 0 and 1: 0, 2, 6, 8 in channel 0.
        assert_eq!(out, [4.0, 5.0, 16.0, 17.0]);
    }
}

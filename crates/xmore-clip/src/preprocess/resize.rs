//! Pillow's resampling, to the bit.
//!
//! Reference: Pillow, `src/libImaging/Resample.c`: the horizontal pass first, bytes between the passes. No crate gives the same bytes: those
//! that are fast run the vertical pass first or round otherwise. Only the wanted region of the output is computed.

use image::RgbImage;
use rayon::prelude::*;

use super::interpolation::{Interpolation, PRECISION_BITS};

/// A rectangle of the resized image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Pillow's `image.resize((width, height), interpolation).crop(region)`.
///
/// # Panics
/// If the region does not lie inside `width` × `height`, or the image has no pixels.
pub fn resize(
    image: &RgbImage,
    width: u32,
    height: u32,
    interpolation: Interpolation,
    region: Region,
) -> RgbImage {
    resize_by(image, width, height, interpolation, region, Threads::Pool)
}

/// Who does the work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Threads {
    /// The thread pool.
    Pool,
    /// The calling thread alone.
    Own,
}

impl Threads {
    /// Calls `fill` for each row of `rows` with its index.
    fn fill(self, rows: &mut [u8], stride: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
        match self {
            Self::Pool => {
                rows.par_chunks_mut(stride).with_min_len(32).enumerate().for_each(|(y, row)| fill(y, row))
            }
            Self::Own => rows.chunks_mut(stride).enumerate().for_each(|(y, row)| fill(y, row)),
        }
    }
}

/// [`resize`] by the given threads.
pub(super) fn resize_by(
    image: &RgbImage,
    width: u32,
    height: u32,
    interpolation: Interpolation,
    region: Region,
    threads: Threads,
) -> RgbImage {
    assert!(
        region.x + region.width <= width && region.y + region.height <= height,
        "{region:?} in {width}x{height}"
    );
    let columns = interpolation.taps(image.width(), width, region.x, region.width);
    let rows = interpolation.taps(image.height(), height, region.y, region.height);
    let top = rows.iter().map(|t| t.first).min().unwrap_or(0);
    let bottom = rows.iter().map(|t| t.first + t.weights.len()).max().unwrap_or(0);
    let in_stride = image.width() as usize * 3;
    let out_stride = region.width as usize * 3;

    let mut narrow = vec![0u8; (bottom - top) * out_stride];
    threads.fill(&mut narrow, out_stride, |y, out| {
        let input = &image.as_raw()[(top + y) * in_stride..][..in_stride];
        for (taps, out) in columns.iter().zip(out.as_chunks_mut::<3>().0) {
            let mut sum = [1i32 << (PRECISION_BITS - 1); 3];
            let pixels = &input[taps.first * 3..(taps.first + taps.weights.len()) * 3];
            for (&weight, pixel) in taps.weights.iter().zip(pixels.as_chunks::<3>().0) {
                for c in 0..3 {
                    sum[c] += i32::from(pixel[c]) * weight;
                }
            }
            *out = sum.map(clip8);
        }
    });

    let mut bytes = vec![0u8; region.height as usize * out_stride];
    threads.fill(&mut bytes, out_stride, |y, out| {
        let taps = &rows[y];
        let mut sum = vec![1i32 << (PRECISION_BITS - 1); out_stride];
        for (n, &weight) in taps.weights.iter().enumerate() {
            let row = &narrow[(taps.first - top + n) * out_stride..][..out_stride];
            for (s, &value) in sum.iter_mut().zip(row) {
                *s += i32::from(value) * weight;
            }
        }
        for (o, s) in out.iter_mut().zip(sum) {
            *o = clip8(s);
        }
    });
    RgbImage::from_raw(region.width, region.height, bytes).expect("the buffer has the region's size")
}

fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 7 + y) as u8, (y * 5) as u8, (x * y) as u8]))
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let image = gradient(9, 7);
        let whole = Region { x: 0, y: 0, width: 9, height: 7 };
        assert_eq!(resize(&image, 9, 7, Interpolation::Bicubic, whole), image);
    }

    #[test]
    fn a_region_is_a_crop_of_the_whole() {
        let image = gradient(61, 43);
        for interpolation in [Interpolation::Bicubic, Interpolation::Bilinear] {
            let resize = |region| resize(&image, 30, 50, interpolation, region);
            let whole = resize(Region { x: 0, y: 0, width: 30, height: 50 });
            let part = resize(Region { x: 4, y: 9, width: 20, height: 31 });
            for (x, y, pixel) in part.enumerate_pixels() {
                assert_eq!(pixel, whole.get_pixel(x + 4, y + 9));
            }
        }
    }

    #[test]
    fn an_extreme_shape_takes_no_more_memory_than_the_region() {
        // 1 x 50000 to a short side of 224: the full result would have 7.5 gigabytes.
        let image = RgbImage::from_pixel(1, 50_000, image::Rgb([3, 200, 7]));
        let region = Region { x: 0, y: 5_599_888, width: 224, height: 224 };
        let out = resize(&image, 224, 11_200_000, Interpolation::Bicubic, region);
        assert!(out.pixels().all(|p| p.0 == [3, 200, 7]));
    }
}

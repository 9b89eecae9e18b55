//! Images of any shape as patches: the preprocessing of SigLIP 2's NaFlex models, whose towers take up to so many patches of any aspect.
//!
//! Reference: transformers 5.23, `image_processing_pil_siglip2.py`: the size by a binary search, Pillow's resize, patches in rows.

use image::RgbImage;

use super::interpolation::Interpolation;
use super::resize::{Region, Threads, resize_by};

/// Most pixels of all patches of an image together.
const MAX_PIXELS: u64 = 1 << 26;
/// How near the search comes to the largest scale whose patches are not too many.
const EPSILON: f64 = 1e-5;
/// The largest scale that is looked at.
const MAX_SCALE: f64 = 100.0;

/// The side of a patch, and how many an image may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NaFlex {
    patch: u32,
    max_patches: u32,
}

/// How many patches an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGrid {
    /// From top to bottom.
    pub rows: u32,
    /// From left to right.
    pub columns: u32,
}

impl NaFlex {
    /// Patches of `patch` × `patch` pixels, at most `max_patches` an image. `None` if either is 0, or their pixels are more than 2²⁶.
    pub fn new(patch: u32, max_patches: u32) -> Option<Self> {
        let pixels = u64::from(patch).saturating_mul(patch.into()).saturating_mul(max_patches.into());
        (1..=MAX_PIXELS).contains(&pixels).then_some(Self { patch, max_patches })
    }

    /// Side of a patch, in pixels.
    pub fn patch(self) -> u32 {
        self.patch
    }

    /// Most patches of an image.
    pub fn max_patches(self) -> u32 {
        self.max_patches
    }

    /// Whether a grid has at least one patch, and no more than an image may have.
    pub(crate) fn holds(self, grid: PatchGrid) -> bool {
        (1..=u64::from(self.max_patches)).contains(&(u64::from(grid.rows) * u64::from(grid.columns)))
    }

    /// The values of a grid that [holds](Self::holds).
    pub(crate) fn values(self, grid: PatchGrid) -> usize {
        (grid.rows * grid.columns * self.patch * self.patch * 3) as usize
    }

    /// The patches of an image of this size: `get_image_size_for_max_num_patches`, in patches instead of pixels.
    pub fn grid(self, width: u32, height: u32) -> PatchGrid {
        let patches = |length: u32, scale: f64| {
            let patches = (f64::from(length) * scale / f64::from(self.patch)).ceil();
            patches.clamp(1.0, f64::from(u32::MAX)) as u32
        };
        let grid = |scale| PatchGrid { rows: patches(height, scale), columns: patches(width, scale) };
        let (mut fits, mut exceeds) = (EPSILON / 10.0, MAX_SCALE);
        while exceeds - fits >= EPSILON {
            let scale = (fits + exceeds) / 2.0;
            let PatchGrid { rows, columns } = grid(scale);
            if u64::from(rows) * u64::from(columns) <= u64::from(self.max_patches) {
                fits = scale;
            } else {
                exceeds = scale;
            }
        }
        let PatchGrid { rows, columns } = grid(fits);
        // An image of more than a million patches a side may have too many at the least scale: one row or column of them stays.
        let rows = rows.min(self.max_patches);
        PatchGrid { rows, columns: columns.min(self.max_patches / rows) }
    }

    /// Resizes an image to its grid and lays its patches out: each row of the result is a patch, `[patches, patch * patch]` pixels, patches in
    /// rows from the top, and so are pixels in a patch.
    ///
    /// # Panics
    /// If the image has no pixels.
    pub fn patches(self, image: &RgbImage, interpolation: Interpolation) -> (PatchGrid, RgbImage) {
        self.patches_by(image, interpolation, Threads::Pool)
    }

    /// [`NaFlex::patches`] by the given threads.
    pub(super) fn patches_by(
        self,
        image: &RgbImage,
        interpolation: Interpolation,
        threads: Threads,
    ) -> (PatchGrid, RgbImage) {
        let grid = self.grid(image.width(), image.height());
        let (width, height) = (grid.columns * self.patch, grid.rows * self.patch);
        let whole = Region { x: 0, y: 0, width, height };
        let resized = resize_by(image, width, height, interpolation, whole, threads);
        let row = self.patch as usize * 3;
        let band = row * width as usize;
        let mut bytes = Vec::with_capacity(resized.as_raw().len());
        for band in resized.as_raw().chunks_exact(band) {
            for column in 0..grid.columns as usize {
                for line in band.chunks_exact(width as usize * 3) {
                    bytes.extend_from_slice(&line[column * row..][..row]);
                }
            }
        }
        let patches = RgbImage::from_raw(self.patch * self.patch, grid.rows * grid.columns, bytes);
        (grid, patches.expect("all pixels of the resized image"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_bounded() {
        for (patch, max_patches) in [(0, 256), (16, 0), (u32::MAX, u32::MAX), (1 << 13, 2)] {
            assert_eq!(NaFlex::new(patch, max_patches), None);
        }
        assert!(NaFlex::new(1 << 13, 1).is_some());
    }

    #[test]
    fn patches_are_squares_of_the_picture() {
        let image = RgbImage::from_fn(32, 16, |x, y| image::Rgb([x as u8, y as u8, 7]));
        // The grid's own size, so that nothing is resized.
        let (grid, patches) = NaFlex::new(8, 8).unwrap().patches(&image, Interpolation::Bilinear);
        assert_eq!((grid, patches.dimensions()), (PatchGrid { rows: 2, columns: 4 }, (64, 8)));
        for (at, patch, pixel) in patches.enumerate_pixels() {
            let (x, y) = (patch % 4 * 8 + at % 8, patch / 4 * 8 + at / 8);
            assert_eq!(pixel, image.get_pixel(x, y));
        }
    }

    proptest! {
        #[test]
        fn no_image_has_too_many_patches(
            width in 1u32..=u32::MAX, height in 1u32..=u32::MAX, patch in 1u32..100, max_patches in 1u32..2000,
        ) {
            let naflex = NaFlex::new(patch, max_patches).unwrap();
            for (width, height) in [(width, height), (width % 5000 + 1, height % 5000 + 1)] {
                let PatchGrid { rows, columns } = naflex.grid(width, height);
                prop_assert!(rows > 0 && columns > 0 && rows * columns <= max_patches);
            }
        }
    }
}

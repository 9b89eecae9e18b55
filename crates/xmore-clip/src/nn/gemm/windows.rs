//! A convolution's input as rows of the matrix product: the pixels under each output position, where they lie.

use crate::nn::simd::MAX_ROWS;

/// An image `[height, width, channels]` and the square windows that slide over it.
///
/// Row r is output position (r / out_width, r % out_width); its pieces are the window's pixels in row order. What lies outside is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a> {
    pub(crate) image: &'a [f32],
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// A pixel of zeros; as many as there are channels.
    pub(crate) zeros: &'a [f32],
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zero rows above the first, and zero columns left of it.
    pub(crate) padding: [usize; 2],
    pub(crate) out_width: usize,
}

impl Windows<'_> {
    pub(super) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Writes where the pieces of rows `first..first + count` begin: that of row r and tap t to `places[t * MAX_ROWS + r]`.
    pub(super) fn places(&self, first: usize, count: usize, places: &mut [*const f32]) {
        let channels = self.zeros.len();
        assert_eq!(self.image.len(), self.height * self.width * channels);
        let (mut oy, mut ox) = (first / self.out_width, first % self.out_width);
        for r in 0..count {
            let mut tap = r;
            // A coordinate before the image wraps to a number larger than its size.
            let (y0, x0) = (oy * self.stride, ox * self.stride);
            for ky in 0..self.kernel {
                let y = (y0 + ky).wrapping_sub(self.padding[0]);
                let line = if y < self.height {
                    Some(&self.image[y * self.width * channels..(y + 1) * self.width * channels])
                } else {
                    None
                };
                for kx in 0..self.kernel {
                    let x = (x0 + kx).wrapping_sub(self.padding[1]);
                    places[tap] = match line {
                        Some(line) if x < self.width => line[x * channels..].as_ptr(),
                        _ => self.zeros.as_ptr(),
                    };
                    tap += MAX_ROWS;
                }
            }
            ox += 1;
            if ox == self.out_width {
                (oy, ox) = (oy + 1, 0);
            }
        }
    }
}

/// An image `[height, width, channels]`, zeros around it included, and the square windows that slide over it.
///
/// Row r is output position (r / out_width, r % out_width); its pieces are the window's lines, each `kernel * channels` values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) image: &'a [f32],
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) out_width: usize,
}

impl Lines<'_> {
    /// Values of a piece.
    pub(super) fn depth(&self) -> usize {
        self.kernel * self.channels
    }

    /// As [`Windows::places`].
    pub(super) fn places(&self, first: usize, count: usize, places: &mut [*const f32]) {
        let line = self.width * self.channels;
        let (mut oy, mut ox) = (first / self.out_width, first % self.out_width);
        for r in 0..count {
            let start = (oy * line + ox * self.channels) * self.stride;
            for ky in 0..self.kernel {
                places[ky * MAX_ROWS + r] = self.image[start + ky * line..][..self.depth()].as_ptr();
            }
            ox += 1;
            if ox == self.out_width {
                (oy, ox) = (oy + 1, 0);
            }
        }
    }
}

//! A convolution's input as rows of the matrix product: the pixels under each output position, where they lie.

use crate::nn::simd::MAX_ROWS;

/// Images `[images, height, width, channels]` and the square windows that slide over each.
///
/// Row r is an image's output position, images first, then lines; its pieces are the window's pixels in row order. What lies outside is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows<'a, T = f32> {
    pub(crate) images: &'a [T],
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// A pixel of zeros; as many as there are channels.
    pub(crate) zeros: &'a [T],
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Zero rows above the first, and zero columns left of it.
    pub(crate) padding: [usize; 2],
    /// Height and width of an image's output.
    pub(crate) out: [usize; 2],
}

impl<T> Windows<'_, T> {
    /// Whether each window is a pixel, one after the other.
    pub(crate) fn are_pixels(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == [0, 0]
    }

    pub(crate) fn channels(&self) -> usize {
        self.zeros.len()
    }

    /// The pixels of row r.
    pub(crate) fn pixels(&self, r: usize) -> impl Iterator<Item = &[T]> {
        let channels = self.channels();
        let (image, [y0, x0]) = self.place(r);
        (0..self.kernel).flat_map(move |ky| {
            // A coordinate before the image wraps to a number larger than its size.
            let line = self.line(image, (y0 + ky).wrapping_sub(self.padding[0]));
            (0..self.kernel).map(move |kx| {
                let x = (x0 + kx).wrapping_sub(self.padding[1]);
                match line {
                    Some(line) if x < self.width => &line[x * channels..(x + 1) * channels],
                    _ => self.zeros,
                }
            })
        })
    }

    /// The image of row r, and where its window begins in the image with its padding.
    fn place(&self, r: usize) -> (usize, [usize; 2]) {
        let [height, width] = self.out;
        let (line, x) = (r / width, r % width);
        (line / height, [line % height, x].map(|n| n * self.stride))
    }

    /// A line of an image, if it is inside.
    fn line(&self, image: usize, y: usize) -> Option<&[T]> {
        let len = self.width * self.channels();
        (y < self.height).then(|| &self.images[(image * self.height + y) * len..][..len])
    }
}

impl Windows<'_> {
    pub(super) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Writes where the pieces of rows `first..first + count` begin: that of row r and tap t to `places[t * MAX_ROWS + r]`.
    pub(super) fn places(&self, first: usize, count: usize, places: &mut [*const f32]) {
        let channels = self.channels();
        assert!(self.images.len().is_multiple_of(self.height * self.width * channels));
        for r in 0..count {
            let mut tap = r;
            let (image, [y0, x0]) = self.place(first + r);
            for ky in 0..self.kernel {
                // A coordinate before the image wraps to a number larger than its size.
                let line = self.line(image, (y0 + ky).wrapping_sub(self.padding[0]));
                for kx in 0..self.kernel {
                    let x = (x0 + kx).wrapping_sub(self.padding[1]);
                    places[tap] = match line {
                        Some(line) if x < self.width => line[x * channels..].as_ptr(),
                        _ => self.zeros.as_ptr(),
                    };
                    tap += MAX_ROWS;
                }
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

//! A map of an image's values, in memory that is used again.

use std::ops::Range;

use crate::nn::conv::{MapOutput, MapValues, Size};
use crate::nn::simd::LINE;

/// Channels-last values of one image, or of several one behind another.
#[derive(Default)]
pub(crate) struct Map {
    /// Longer than the values.
    buffer: Vec<f32>,
    /// Elements of the buffer that are values. They begin at a cache line, so that a vector of 16 lies in one.
    place: Range<usize>,
    /// Whether each of them is two values in bf16.
    is_bf16: bool,
    /// How many images there are, and the size of each.
    shape: Option<(usize, Size)>,
}

impl Map {
    /// Without values, in memory of which they will be part.
    pub(super) fn in_buffer(buffer: Vec<f32>) -> Self {
        Self { buffer, ..Self::default() }
    }

    pub(super) fn into_buffer(self) -> Vec<f32> {
        self.buffer
    }

    pub(super) fn images(&self) -> usize {
        self.shape.expect("written before it is read").0
    }

    pub(super) fn size(&self) -> Size {
        self.shape.expect("written before it is read").1
    }

    /// Of a map in floats.
    pub(super) fn channels(&self) -> usize {
        self.floats().len() / (self.images() * self.size().area())
    }

    pub(super) fn values(&self) -> MapValues<'_> {
        if self.is_bf16 {
            MapValues::Bf16(bytemuck::cast_slice(&self.buffer[self.place.clone()]))
        } else {
            MapValues::Floats(self.floats())
        }
    }

    pub(super) fn floats(&self) -> &[f32] {
        assert!(!self.is_bf16, "read by a layer that takes floats");
        &self.buffer[self.place.clone()]
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        assert!(!self.is_bf16, "read by a layer that takes floats");
        &mut self.buffer[self.place.clone()]
    }

    /// Floats that hold anything, to be written.
    pub(super) fn write(&mut self, images: usize, size: Size, channels: usize) -> &mut [f32] {
        self.take(images, size, images * size.area() * channels, false)
    }

    /// What a convolution writes: floats, or bf16 if only layers read it that take it.
    pub(super) fn output(
        &mut self,
        images: usize,
        size: Size,
        channels: usize,
        is_bf16: bool,
    ) -> MapOutput<'_> {
        let len = images * size.area() * channels;
        if is_bf16 {
            MapOutput::Bf16(bytemuck::cast_slice_mut(self.take(images, size, len / 2, true)))
        } else {
            MapOutput::Floats { data: self.take(images, size, len, false), add: false }
        }
    }

    /// Floats by a function that gives the buffer their length, and returns their size.
    pub(super) fn write_by(&mut self, images: usize, write: impl FnOnce(&mut Vec<f32>) -> Size) {
        let size = write(&mut self.buffer);
        (self.place, self.is_bf16, self.shape) = (0..self.buffer.len(), false, Some((images, size)));
    }

    /// The buffer gets no shorter: what it grows by later would be filled with zeros.
    fn take(&mut self, images: usize, size: Size, len: usize, is_bf16: bool) -> &mut [f32] {
        if self.buffer.len() < len + LINE {
            self.buffer.resize(len + LINE, 0.0);
        }
        let start = self.buffer.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        (self.place, self.is_bf16, self.shape) = (start..start + len, is_bf16, Some((images, size)));
        &mut self.buffer[self.place.clone()]
    }
}

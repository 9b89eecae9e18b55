//! A map of an image's values, in memory that is used again.

use crate::nn::conv::{MapOutput, MapValues, Size};

/// Channels-last values of one image, or of several one behind another.
#[derive(Default)]
pub(crate) struct Map {
    /// At least as long as the values.
    buffer: Vec<f32>,
    /// Elements of the buffer that are values.
    len: usize,
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

    /// Images one behind another, in floats.
    pub(super) fn joined(images: usize, size: Size, values: Vec<f32>) -> Self {
        Self { len: values.len(), buffer: values, is_bf16: false, shape: Some((images, size)) }
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
            MapValues::Bf16(bytemuck::cast_slice(&self.buffer[..self.len]))
        } else {
            MapValues::Floats(self.floats())
        }
    }

    pub(super) fn floats(&self) -> &[f32] {
        assert!(!self.is_bf16, "read by a layer that takes floats");
        &self.buffer[..self.len]
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        assert!(!self.is_bf16, "read by a layer that takes floats");
        &mut self.buffer[..self.len]
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

    /// The same by a function that gives the buffer its length, and returns the size.
    pub(super) fn write_by(&mut self, images: usize, write: impl FnOnce(&mut Vec<f32>) -> Size) {
        let size = write(&mut self.buffer);
        self.take(images, size, self.buffer.len(), false);
    }

    /// A buffer never gets shorter: what it grows by is filled with zeros.
    fn take(&mut self, images: usize, size: Size, len: usize, is_bf16: bool) -> &mut [f32] {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0.0);
        }
        (self.len, self.is_bf16, self.shape) = (len, is_bf16, Some((images, size)));
        &mut self.buffer[..len]
    }
}

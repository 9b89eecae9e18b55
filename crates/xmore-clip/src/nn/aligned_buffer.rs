//! Working memory that is aligned to cache lines.

use bytemuck::Pod;

/// Cache line, in bytes.
pub(super) const LINE_BYTES: usize = 64;

/// Values that begin at a cache line.
pub(super) struct AlignedBuffer<T> {
    values: Vec<T>,
    /// The first value that begins at a line.
    offset: usize,
}

impl<T: Pod> AlignedBuffer<T> {
    /// `len` zeros or a few more.
    pub(super) fn zeroed(len: usize) -> Self {
        let line = LINE_BYTES / size_of::<T>();
        let values = vec![T::zeroed(); len + line];
        let offset = values.as_ptr().align_offset(LINE_BYTES).min(line);
        Self { values, offset }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.values[self.offset..]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.values[self.offset..]
    }
}

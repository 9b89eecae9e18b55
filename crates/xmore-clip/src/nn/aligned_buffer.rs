//! Memory for packed weights: aligned to cache lines, large ones on pages of their own.

use bytemuck::Pod;
use memmap2::MmapMut;

/// From this size on a buffer gets pages of its own, huge ones where the system has them: fewer page faults while
/// loading, fewer misses of the address cache while multiplying.
const OWN_PAGES: usize = 1 << 20;

/// Cache line, in bytes.
const LINE: usize = 64;

/// Values that begin at a cache line.
pub(super) enum AlignedBuffer<T> {
    Pages(MmapMut),
    /// With the offset that aligns it to a cache line.
    Heap(Vec<T>, usize),
}

impl<T: Pod> AlignedBuffer<T> {
    /// `len` zeros or a few more.
    pub(super) fn zeroed(len: usize) -> Self {
        if len * size_of::<T>() >= OWN_PAGES
            && let Ok(map) = MmapMut::map_anon(len * size_of::<T>())
        {
            // Optional: without huge pages everything works, a little slower.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Pages(map);
        }
        let line = LINE / size_of::<T>();
        let heap = vec![T::zeroed(); len + line];
        let offset = heap.as_ptr().align_offset(LINE).min(line);
        Self::Heap(heap, offset)
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::Pages(map) => bytemuck::cast_slice(map),
            Self::Heap(heap, offset) => &heap[*offset..],
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::Pages(map) => bytemuck::cast_slice_mut(map),
            Self::Heap(heap, offset) => &mut heap[*offset..],
        }
    }
}

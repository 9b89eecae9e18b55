//! Weights laid out as the tile functions read them, made once when a layer is loaded.

use memmap2::MmapMut;
use rayon::prelude::*;

use super::kernel::{KERNELS, Kernel};
use crate::nn::simd::MAX_WIDTH;

/// From this size on a matrix gets pages of its own, huge ones where the system has them: fewer page faults while
/// loading, fewer misses of the address cache while multiplying.
const OWN_PAGES: usize = 1 << 20;

/// A matrix `[depth, columns]` in panels of `2 * lanes` columns, each panel `[depth, width]` in row-major order. The last panel is
/// one vector wide if that suffices; columns that do not exist are zero.
pub(crate) struct Packed {
    buffer: Buffer,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) kernel: &'static Kernel,
}

enum Buffer {
    Pages(MmapMut),
    /// With the offset that aligns it to a cache line.
    Heap(Vec<f32>, usize),
}

/// Cache line, in f32.
const LINE: usize = 16;

impl Buffer {
    fn zeroed(len: usize) -> Self {
        if len * size_of::<f32>() >= OWN_PAGES
            && let Ok(map) = MmapMut::map_anon(len * size_of::<f32>())
        {
            // Optional: without huge pages everything works, a little slower.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Pages(map);
        }
        let heap = vec![0.0; len + LINE];
        let offset = heap.as_ptr().align_offset(LINE * 4).min(LINE);
        Self::Heap(heap, offset)
    }

    fn as_slice(&self) -> &[f32] {
        match self {
            Self::Pages(map) => bytemuck::cast_slice(map),
            Self::Heap(heap, offset) => &heap[*offset..],
        }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        match self {
            Self::Pages(map) => bytemuck::cast_slice_mut(map),
            Self::Heap(heap, offset) => &mut heap[*offset..],
        }
    }
}

impl Packed {
    /// From the columns, each given as a row of `depth` elements and a factor: a linear layer's weight as PyTorch stores it.
    pub(crate) fn from_rows<'w>(
        columns: usize,
        depth: usize,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        Self::for_kernel(KERNELS.best(), columns, depth, row)
    }

    pub(super) fn for_kernel<'w>(
        kernel: &'static Kernel,
        columns: usize,
        depth: usize,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        let full = 2 * kernel.lanes;
        let len = packed_len(kernel, depth, columns);
        let mut buffer = Buffer::zeroed(len);
        // A chunk is one panel; the last may be shorter.
        buffer.as_mut_slice()[..len].par_chunks_mut((depth * full).max(1)).enumerate().for_each(
            |(p, panel)| {
                let width = panel_width(kernel, columns, p);
                let first = p * full;
                transpose((first..columns.min(first + full)).map(&row), panel, width);
            },
        );
        Self { buffer, depth, columns, kernel }
    }

    /// Rows of the matrix: inputs of a layer.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Columns of the matrix: outputs of a layer.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn view(&self) -> Panels<'_> {
        Panels { data: self.buffer.as_slice(), depth: self.depth, columns: self.columns, kernel: self.kernel }
    }
}

/// Elements of a packed matrix.
pub(super) fn packed_len(kernel: &Kernel, depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(kernel.lanes) * depth
}

/// Columns of panel `p`, those that do not exist included.
pub(super) fn panel_width(kernel: &Kernel, columns: usize, p: usize) -> usize {
    let rest = columns - p * 2 * kernel.lanes;
    if rest <= kernel.lanes { kernel.lanes } else { 2 * kernel.lanes }
}

/// A packed matrix that lies anywhere.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) data: &'a [f32],
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) kernel: &'static Kernel,
}

/// Writes rows as columns: `to[i * width + r] = row[i] * factor` for row number `r`, at most `MAX_WIDTH` of them.
pub(super) fn transpose<'w>(rows: impl Iterator<Item = (&'w [f32], f32)>, to: &mut [f32], width: usize) {
    // A block of lines stays in the first cache while all rows are written to it.
    const LINES: usize = 64;
    let mut some: [(&[f32], f32); MAX_WIDTH] = [(&[], 0.0); MAX_WIDTH];
    let mut count = 0;
    for (place, row) in some.iter_mut().zip(rows) {
        *place = row;
        count += 1;
    }
    for (n, lines) in to.chunks_mut(width * LINES).enumerate() {
        for (r, (row, factor)) in some[..count].iter().enumerate() {
            let row = row.get(n * LINES..).unwrap_or_default();
            for (line, &value) in lines.chunks_exact_mut(width).zip(row) {
                line[r] = value * factor;
            }
        }
    }
}

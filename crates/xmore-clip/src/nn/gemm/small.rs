//! Products small enough for one thread and the caches, as attention has by the thousand: nothing is blocked or allocated.

use std::marker::PhantomData;

use super::beside;
use super::kernel::{self, Kernel, MAX_ROWS, Tile};
use super::packed::{packed_len, panel_width, transpose};

/// A right operand in a buffer that is used again and again.
pub(crate) struct Scratch {
    kernel: &'static Kernel,
    buffer: Vec<f32>,
    /// Where the buffer is aligned to a cache line.
    start: usize,
    depth: usize,
    columns: usize,
}

/// Rows in a slice: row `r` is `data[r * stride..]`.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
}

impl<'a> Strided<'a> {
    fn row(&self, r: usize, at: usize, len: usize) -> &'a [f32] {
        &self.data[r * self.stride + at..][..len]
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { kernel: kernel::best(), buffer: Vec::new(), start: 0, depth: 0, columns: 0 }
    }

    /// Rows of the tile that uses the registers best.
    pub(crate) fn tile_rows(&self) -> usize {
        self.kernel.rows
    }

    /// `columns`, rounded up to what an output row needs to have room for.
    pub(crate) fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.kernel.lanes)
    }

    fn resize(&mut self, depth: usize, columns: usize) {
        const LINE: usize = 64;
        (self.depth, self.columns) = (depth, columns);
        let len = packed_len(self.kernel, depth, columns);
        if self.buffer.len() < len + LINE {
            self.buffer = vec![0.0; len + LINE];
            self.start = self.buffer.as_ptr().align_offset(LINE).min(LINE);
        }
    }

    /// Takes the transpose of `count` rows' elements `at..at + len`: column c is row c.
    pub(crate) fn set_transposed(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        self.resize(len, count);
        let full = 2 * self.kernel.lanes;
        for p in 0..count.div_ceil(full) {
            let width = panel_width(self.kernel, count, p);
            let columns = p * full..count.min((p + 1) * full);
            let panel = &mut self.buffer[self.start + p * full * len..][..width * len];
            transpose(columns.map(|c| (rows.row(c, at, len), 1.0)), panel, width);
        }
    }

    /// Takes `count` rows' elements `at..at + len` as they are.
    pub(crate) fn set(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        self.resize(count, len);
        let full = 2 * self.kernel.lanes;
        for p in 0..len.div_ceil(full) {
            let width = panel_width(self.kernel, len, p);
            let have = width.min(len - p * full);
            let panel = &mut self.buffer[self.start + p * full * count..][..width * count];
            for (r, line) in panel.chunks_exact_mut(width).enumerate() {
                line[..have].copy_from_slice(rows.row(r, at + p * full, have));
            }
        }
    }

    /// `out = a · self` for `count` rows of `a`, whose elements from `at` on are read. `out` must have room for padded columns or be
    /// exactly as wide as the product.
    pub(crate) fn multiply(&self, a: Strided<'_>, count: usize, at: usize, out: &mut ColumnBlock<'_>) {
        let full = 2 * self.kernel.lanes;
        assert!(out.rows >= count && (out.columns == self.columns || out.columns >= self.padded(self.columns)));
        for first in (0..count).step_by(self.kernel.rows) {
            let rows = self.kernel.rows.min(count - first);
            let mut pointers = [std::ptr::null(); MAX_ROWS];
            for (r, pointer) in pointers[..rows].iter_mut().enumerate() {
                *pointer = a.row(first + r, at, self.depth).as_ptr();
            }
            for p in 0..self.columns.div_ceil(full) {
                let width = panel_width(self.kernel, self.columns, p);
                let columns = width.min(out.columns - p * full);
                let panel = &self.buffer[self.start + p * full * self.depth..][..width * self.depth];
                let function =
                    self.kernel.tiles[width / self.kernel.lanes - 1][rows - 1].expect("the kernel has such tiles");
                // SAFETY: the pieces and the panel were sliced to their lengths; the block is ours alone and has the rows and columns.
                #[allow(unsafe_code)]
                unsafe {
                    let mut tile = Tile {
                        a: pointers.as_ptr(),
                        taps: 1,
                        skip: 0,
                        depth: self.depth,
                        b: panel.as_ptr(),
                        c: out.data.add(first * out.stride + p * full),
                        stride: out.stride,
                        bias: std::ptr::null(),
                        add: false,
                    };
                    if columns == width {
                        function(&tile);
                    } else {
                        beside(function, &mut tile, None, rows, columns, width);
                    }
                }
            }
        }
    }
}

/// Some columns of all rows of a matrix, to be written by one thread while others write other columns.
pub(crate) struct ColumnBlock<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: blocks of one matrix are disjoint and each is the only way to its elements, as with `&mut [f32]`.
#[allow(unsafe_code)]
unsafe impl Send for ColumnBlock<'_> {}

impl<'a> ColumnBlock<'a> {
    /// All of a matrix with `columns` columns.
    pub(crate) fn whole(data: &'a mut [f32], columns: usize) -> Self {
        Self {
            rows: data.len() / columns,
            data: data.as_mut_ptr(),
            columns,
            stride: columns,
            lifetime: PhantomData,
        }
    }

    /// The rows from `first` on.
    pub(crate) fn from_row(&mut self, first: usize) -> ColumnBlock<'_> {
        assert!(first <= self.rows);
        // SAFETY: row `first` lies in the matrix or just behind it.
        #[allow(unsafe_code)]
        let data = unsafe { self.data.add(if first == self.rows { 0 } else { first * self.stride }) };
        ColumnBlock { data, rows: self.rows - first, lifetime: PhantomData, ..*self }
    }

    /// Cuts a matrix `[rows, stride]` into blocks of `columns` columns each.
    pub(crate) fn split(data: &'a mut [f32], stride: usize, columns: usize) -> Vec<Self> {
        assert!(data.len().is_multiple_of(stride) && stride.is_multiple_of(columns));
        let (rows, start) = (data.len() / stride, data.as_mut_ptr());
        let block = |n: usize| {
            // SAFETY: column `n * columns` lies in the first row.
            #[allow(unsafe_code)]
            let data = unsafe { start.add(if rows == 0 { 0 } else { n * columns }) };
            Self { data, rows, columns, stride, lifetime: PhantomData }
        };
        (0..stride / columns).map(block).collect()
    }
}

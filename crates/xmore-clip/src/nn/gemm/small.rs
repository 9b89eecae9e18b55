//! Products small enough for one thread and the caches, as attention has by the thousand: nothing is blocked or allocated.

use std::marker::PhantomData;
use std::ops::Range;

use crate::nn::activation::Activation;
use crate::nn::aligned_buffer::AlignedBuffer;
use crate::nn::operand::Operand;
use crate::nn::simd::MAX_ROWS;

use super::kernel::{KERNELS, Kernel, Tile};
use super::packed::{packed_len, transpose};
use super::run_edge_tile;

/// The right operand of a small product, packed into a buffer that is reused.
pub(crate) struct OperandBuffer {
    kernel: &'static Kernel,
    buffer: AlignedBuffer<f32>,
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
    /// Elements `at..at + len` of row `r`.
    pub(crate) fn row(&self, r: usize, at: usize, len: usize) -> &'a [f32] {
        &self.data[r * self.stride + at..][..len]
    }
}

impl OperandBuffer {
    pub(crate) fn new() -> Self {
        Self { kernel: KERNELS.best(), buffer: AlignedBuffer::zeroed(0), depth: 0, columns: 0 }
    }

    fn resize(&mut self, depth: usize, columns: usize) {
        (self.depth, self.columns) = (depth, columns);
        let len = packed_len(self.kernel, depth, columns);
        if self.buffer.as_slice().len() < len {
            self.buffer = AlignedBuffer::zeroed(len);
        }
    }
}

impl Operand for OperandBuffer {
    fn tile_rows(&self) -> usize {
        self.kernel.rows
    }

    fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.kernel.lanes)
    }

    fn set_transposed(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        self.resize(len, count);
        let full = self.kernel.panel_columns();
        for p in 0..count.div_ceil(full) {
            let width = self.kernel.panel_width(count, p);
            let columns = p * full..count.min((p + 1) * full);
            let panel = &mut self.buffer.as_mut_slice()[p * full * len..][..width * len];
            transpose(columns.map(|c| (rows.row(c, at, len), 1.0)), panel, width);
        }
    }

    fn set(&mut self, rows: Strided<'_>, count: usize, at: usize, len: usize) {
        self.resize(count, len);
        let full = self.kernel.panel_columns();
        for p in 0..len.div_ceil(full) {
            let width = self.kernel.panel_width(len, p);
            let have = width.min(len - p * full);
            let panel = &mut self.buffer.as_mut_slice()[p * full * count..][..width * count];
            for (r, line) in panel.chunks_exact_mut(width).enumerate() {
                line[..have].copy_from_slice(rows.row(r, at + p * full, have));
            }
        }
    }

    fn multiply(&mut self, a: Strided<'_>, count: usize, at: usize, out: &mut ColumnBlock<'_>) {
        let full = self.kernel.panel_columns();
        assert!(
            out.rows >= count && (out.columns == self.columns || out.columns >= self.padded(self.columns))
        );
        for first in (0..count).step_by(self.kernel.rows) {
            let rows = self.kernel.rows.min(count - first);
            let mut pointers = [std::ptr::null(); MAX_ROWS];
            for (r, pointer) in pointers[..rows].iter_mut().enumerate() {
                *pointer = a.row(first + r, at, self.depth).as_ptr();
            }
            for p in 0..self.columns.div_ceil(full) {
                let width = self.kernel.panel_width(self.columns, p);
                let columns = width.min(out.columns - p * full);
                let panel = &self.buffer.as_slice()[p * full * self.depth..][..width * self.depth];
                let function = self.kernel.tile(rows, width / self.kernel.lanes);
                // SAFETY: the pieces and the panel were sliced to their lengths; the block has the rows and columns,
                // and no other thread touches them while it is borrowed.
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
                        ceiling: None,
                        prefetch: std::ptr::null()..std::ptr::null(),
                    };
                    if columns == width {
                        function(&tile);
                    } else {
                        run_edge_tile(function, &mut tile, None, rows, columns, width);
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
    pub(crate) fn skip_rows(&mut self, first: usize) -> ColumnBlock<'_> {
        assert!(first <= self.rows);
        // SAFETY: row `first` lies in the matrix, or at its end.
        #[allow(unsafe_code)]
        let data = unsafe { self.data.add(if first == self.rows { 0 } else { first * self.stride }) };
        ColumnBlock { data, rows: self.rows - first, lifetime: PhantomData, ..*self }
    }

    /// Cuts a matrix `[rows, stride]` into these ranges of columns, which must follow one another.
    pub(crate) fn split_at(data: &'a mut [f32], stride: usize, ranges: &[Range<usize>]) -> Vec<Self> {
        assert!(data.len().is_multiple_of(stride) && ranges.last().is_none_or(|last| last.end <= stride));
        assert!(
            ranges.windows(2).all(|pair| pair[0].end <= pair[1].start)
                && ranges.iter().all(|r| r.start <= r.end)
        );
        let (rows, start) = (data.len() / stride, data.as_mut_ptr());
        let block = |range: &Range<usize>| {
            // SAFETY: column `range.start` lies in the first row, or at its end.
            #[allow(unsafe_code)]
            let data = unsafe { start.add(if rows == 0 { 0 } else { range.start }) };
            Self { data, rows, columns: range.len(), stride, lifetime: PhantomData }
        };
        ranges.iter().map(block).collect()
    }

    /// Where some rows and columns of the block begin.
    pub(crate) fn place(&self, row: usize, rows: usize, column: usize, columns: usize) -> *mut f32 {
        assert!(row + rows <= self.rows && column + columns <= self.columns && rows > 0);
        // SAFETY: the row and column are the block's.
        #[allow(unsafe_code)]
        unsafe {
            self.data.add(row * self.stride + column)
        }
    }

    /// Some rows and columns of the block.
    pub(crate) fn part(&mut self, row: usize, rows: usize, column: usize, columns: usize) -> ColumnBlock<'_> {
        let data = self.place(row, rows, column, columns);
        ColumnBlock { data, rows, columns, stride: self.stride, lifetime: PhantomData }
    }

    /// Columns of the block.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Where the block begins, and the elements from one of its rows to the next.
    pub(crate) fn pointer(&mut self) -> (*mut f32, usize) {
        (self.data, self.stride)
    }

    /// Copies the block to rows of `width` elements.
    pub(crate) fn copy_to(&self, to: &mut [f32], width: usize) {
        for (r, to) in to.chunks_exact_mut(width).take(self.rows).enumerate() {
            // SAFETY: row `r` is the block's.
            #[allow(unsafe_code)]
            let row = unsafe { std::slice::from_raw_parts(self.data.add(r * self.stride), self.columns) };
            to[..self.columns].copy_from_slice(row);
        }
    }

    /// Fills the block from rows of `width` elements.
    pub(crate) fn copy_from(&mut self, from: &[f32], width: usize) {
        for (r, from) in from.chunks_exact(width).take(self.rows).enumerate() {
            // SAFETY: row `r` is the block's, and no other reference to it exists while it is borrowed.
            #[allow(unsafe_code)]
            let row = unsafe { std::slice::from_raw_parts_mut(self.data.add(r * self.stride), self.columns) };
            row.copy_from_slice(&from[..self.columns]);
        }
    }

    /// Applies an activation to all elements.
    pub(crate) fn activate(&mut self, activation: Activation) {
        // SAFETY: the rows and columns are the block's, and no other reference to them exists while it is borrowed.
        #[allow(unsafe_code)]
        unsafe {
            activation.apply_rows(self.data, self.stride, self.rows, self.columns);
        }
    }

    /// Cuts a matrix `[rows, stride]` into blocks of `columns` columns each.
    pub(crate) fn split(data: &'a mut [f32], stride: usize, columns: usize) -> Vec<Self> {
        let ranges: Vec<_> = (0..stride / columns).map(|n| n * columns..(n + 1) * columns).collect();
        Self::split_at(data, stride, &ranges)
    }
}

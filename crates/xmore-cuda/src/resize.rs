//! Pillow's resampling on the card: images of 8-bit RGB, of any sizes, to squares of bytes, a batch by one copy and two launches.
//!
//! The caller says which input pixels have which weights ([`Taps`]) and where the result is in the square. The bytes are those of the same fixed-point
//! sums on the processor.

use std::collections::HashMap;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::buffer::{Buffer, PinnedBuffer};
use crate::device::Device;
use crate::error::Result;
use crate::kernels::{Kernel, Source};
use crate::stream::{Arg, Event, Launch, Stream};

/// Threads of a block.
const BLOCK: u32 = 256;
/// Rows that a block of the horizontal pass works on at a time: `ROWS` of the kernel.
const ROWS: usize = 8;
/// Blocks of the horizontal pass for an image at most; each goes on to further rows.
const MAX_BLOCKS: usize = 128;
/// Shared memory of a block at most: what every card gives.
const MAX_SHARED: usize = 48 << 10;
/// Images and tables in the uploaded buffer begin at multiples of this, which the kernel's 16-byte loads need.
const ALIGNMENT: usize = 256;
/// Bytes that are worth a thread of their own to be copied aside.
const BYTES_PER_THREAD: usize = 8 << 20;
/// Threads that copy at most: they reach the memory's bandwidth.
const MAX_COPY_THREADS: usize = 4;

/// Input pixels under each output position of an axis, and their weights: fixed-point numbers with 22 bits of fraction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taps {
    /// First inputs, counts, weights `[largest count][positions]`: as the kernels read them.
    table: Vec<i32>,
    positions: usize,
    /// Inputs that are read.
    inputs: Range<usize>,
}

impl Taps {
    /// Of each output position: the first input, and the weights from there on.
    ///
    /// # Panics
    /// If an index does not fit an `i32`.
    pub fn new<W: AsRef<[i32]>>(positions: &[(usize, W)]) -> Self {
        let n = positions.len();
        let largest = positions.iter().map(|(_, weights)| weights.as_ref().len()).max().unwrap_or(0);
        let mut table = vec![0; (2 + largest) * n];
        let begin = positions.iter().map(|&(first, _)| first).min().unwrap_or(0);
        let mut end = begin;
        for (i, (first, weights)) in positions.iter().enumerate() {
            let weights = weights.as_ref();
            table[i] = index(*first);
            table[n + i] = index(weights.len());
            for (k, &weight) in weights.iter().enumerate() {
                table[(2 + k) * n + i] = weight;
            }
            end = end.max(first + weights.len());
        }
        Self { table, positions: n, inputs: begin..end }
    }

    /// Output positions.
    pub fn positions(&self) -> usize {
        self.positions
    }
}

/// Where an image's pixels are.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// RGB in this machine's memory, row after row.
    Host(&'a [u8]),
    /// RGB on the card.
    Device {
        /// The memory.
        buffer: &'a Buffer,
        /// Where pixel (0, 0) is, in bytes.
        offset: usize,
        /// Bytes from a pixel to the next one of its row: 3, or another number where the image is turned or mirrored as it is read.
        x_step: isize,
        /// Bytes from a pixel to the one below.
        y_step: isize,
    },
}

/// An image, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct ResizeImage<'a> {
    /// Its pixels.
    pub pixels: Pixels<'a>,
    /// Its width.
    pub width: usize,
    /// Its height.
    pub height: usize,
    /// Of each column of the result. Images that share a table by reference share it on the card.
    pub columns: &'a Taps,
    /// Of each row of the result.
    pub rows: &'a Taps,
    /// Where the result begins in the square.
    pub x: usize,
    /// Where the result begins in the square.
    pub y: usize,
}

/// Must be `Image` of resize.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Descriptor {
    pixels: u64,
    x_step: i64,
    y_step: i64,
    narrow: u64,
    top: i32,
    rows: i32,
    left: i32,
    columns: i32,
    column_taps: i32,
    row_taps: i32,
    x: i32,
    y: i32,
    width: i32,
    height: i32,
}

/// Resizes batches. Its memory grows to the largest batch and is kept.
#[derive(Debug)]
pub struct Resizer {
    device: Device,
    side: usize,
    fill: u8,
    horizontal: Kernel,
    vertical: Kernel,
    /// What is uploaded: descriptors, tables, images of this machine.
    staging: PinnedBuffer,
    uploaded: Buffer,
    /// Rows between the passes.
    narrow: Buffer,
    /// Behind the last batch's copy.
    copied: Event,
    /// Behind the last batch's kernels.
    done: Event,
}

/// A batch's upload, before it is written.
struct Layout<'a> {
    descriptors: Vec<Descriptor>,
    /// Tables, and where they begin in the buffer.
    tables: Vec<(usize, &'a [i32])>,
    /// Images' bytes, and where they begin in the buffer.
    images: Vec<(usize, &'a [u8])>,
    bytes: usize,
}

impl Resizer {
    /// For squares of `side` pixels, filled with `fill` beside the image.
    ///
    /// # Errors
    /// Those of compiling and of the driver.
    pub fn new(device: &Device, side: usize, fill: u8) -> Result<Self> {
        let stream = Stream::new(device)?;
        let resizer = Self {
            device: *device,
            side,
            fill,
            horizontal: device.kernel(Source::Resize, "horizontal", &[], MAX_SHARED)?,
            vertical: device.kernel(Source::Resize, "vertical", &[], 0)?,
            staging: PinnedBuffer::new(device, 0)?,
            uploaded: Buffer::new(device, 0)?,
            narrow: Buffer::new(device, 0)?,
            copied: Event::new(device)?,
            done: Event::new(device)?,
        };
        resizer.copied.record(&stream)?;
        resizer.done.record(&stream)?;
        Ok(resizer)
    }

    /// Bytes of a result.
    pub fn square_bytes(&self) -> usize {
        self.side * self.side * 3
    }

    /// Queues the work on images: `out` becomes `[images, side, side, 3]`. Images of this machine are read before this returns. Those on the card, and
    /// `out`, are the caller's to leave unchanged until the stream has done it.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`](crate::CudaError::OutOfMemory), those of the driver.
    ///
    /// # Panics
    /// If pixels or `out` are shorter than the sizes say, a table reads beyond its image, or a result is not inside the square.
    pub fn resize(&mut self, stream: &Stream, images: &[ResizeImage], out: &Buffer) -> Result<()> {
        self.resize_behind(stream, images, out, 0)
    }

    /// As [`Resizer::resize`], but to the squares of `out` from `first` on.
    ///
    /// # Errors
    /// Those of [`Resizer::resize`].
    ///
    /// # Panics
    /// As [`Resizer::resize`].
    pub fn resize_behind(
        &mut self,
        stream: &Stream,
        images: &[ResizeImage],
        out: &Buffer,
        first: usize,
    ) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let squares = first + images.len();
        assert!(out.bytes() >= squares * self.square_bytes(), "{squares} squares");
        assert!(images.len() <= usize::from(u16::MAX), "{} images in a batch", images.len());
        // Rows end at a multiple of four bytes, which the vertical pass reads at a time.
        let stride = (self.side * 3).next_multiple_of(4);
        let mut layout = self.layout(images);
        let narrow_rows: usize = layout.descriptors.iter().map(|d| d.rows as usize).sum();

        stream.wait(&self.done)?;
        self.copied.synchronize()?;
        self.grow(layout.bytes, narrow_rows * stride)?;
        self.place(&mut layout, images, stride);
        self.stage(&layout);
        // SAFETY: both are this value's; the next batch waits for `copied` before it changes the staging and, on its stream, for `done` before it
        // changes the buffer. Dropping waits for the driver.
        #[allow(unsafe_code)]
        unsafe {
            self.staging.copy_to(stream, &self.uploaded, layout.bytes)?;
        }
        self.copied.record(stream)?;
        let out = out.pointer() + (first * self.square_bytes()) as u64;
        self.launch(stream, &layout.descriptors, stride, out)?;
        self.done.record(stream)
    }

    /// Checks images and lays them out: pointers are relative to `uploaded` for images of this machine and to `narrow`, until [`Resizer::place`].
    fn layout<'a>(&self, images: &[ResizeImage<'a>]) -> Layout<'a> {
        let mut bytes = (images.len() * size_of::<Descriptor>()).next_multiple_of(ALIGNMENT);
        let mut reserve = |length: usize| {
            let at = bytes;
            bytes = (bytes + length).next_multiple_of(ALIGNMENT);
            at
        };
        let mut tables = Vec::new();
        let mut known: HashMap<*const Taps, i32> = HashMap::new();
        let mut table = |taps: &'a Taps| {
            *known.entry(std::ptr::from_ref(taps)).or_insert_with(|| {
                let at = reserve(size_of_val(taps.table.as_slice()));
                tables.push((at, taps.table.as_slice()));
                index(at / size_of::<i32>())
            })
        };
        let places: Vec<_> = images.iter().map(|image| (table(image.columns), table(image.rows))).collect();
        let mut pixels = Vec::new();
        let describe = |(image, (column_taps, row_taps)): (&ResizeImage<'a>, (i32, i32))| {
            image.check(self.side);
            let (columns, rows) = (&image.columns.inputs, &image.rows.inputs);
            let (start, x_step, y_step) = match image.pixels {
                Pixels::Host(all) => {
                    let stride = image.width * 3;
                    let at = reserve(rows.len() * stride);
                    pixels.push((at, &all[rows.start * stride..rows.end * stride]));
                    // Only the needed rows are uploaded: where row 0 would be.
                    ((at as u64).wrapping_sub((rows.start * stride) as u64), 3, stride as i64)
                }
                Pixels::Device { buffer, offset, x_step, y_step } => {
                    (buffer.pointer() + offset as u64, x_step as i64, y_step as i64)
                }
            };
            Descriptor {
                pixels: start,
                x_step,
                y_step,
                narrow: 0,
                top: index(rows.start),
                rows: index(rows.len()),
                left: index(columns.start),
                columns: index(columns.len()),
                column_taps,
                row_taps,
                x: index(image.x),
                y: index(image.y),
                width: index(image.columns.positions),
                height: index(image.rows.positions),
            }
        };
        let descriptors = images.iter().zip(places).map(describe).collect();
        Layout { descriptors, tables, images: pixels, bytes }
    }

    /// Makes the buffers long enough.
    fn grow(&mut self, upload: usize, narrow: usize) -> Result<()> {
        self.narrow.grow(narrow)?;
        self.uploaded.grow(upload)?;
        if self.staging.as_slice().len() < upload {
            self.staging = PinnedBuffer::new(&self.device, self.uploaded.bytes())?;
        }
        Ok(())
    }

    /// Makes the descriptors' pointers absolute.
    fn place(&self, layout: &mut Layout, images: &[ResizeImage], stride: usize) {
        let mut narrow = self.narrow.pointer();
        for (descriptor, image) in layout.descriptors.iter_mut().zip(images) {
            if matches!(image.pixels, Pixels::Host(_)) {
                descriptor.pixels = descriptor.pixels.wrapping_add(self.uploaded.pointer());
            }
            descriptor.narrow = narrow;
            narrow += descriptor.rows as u64 * stride as u64;
        }
    }

    /// Writes the upload into the staging memory.
    fn stage(&mut self, layout: &Layout) {
        let all = &mut self.staging.as_mut_slice()[..layout.bytes];
        let (head, mut rest) = all.split_at_mut(layout.images.first().map_or(layout.bytes, |&(at, _)| at));
        head[..size_of_val(layout.descriptors.as_slice())]
            .copy_from_slice(bytemuck::cast_slice(&layout.descriptors));
        for &(at, table) in &layout.tables {
            head[at..][..size_of_val(table)].copy_from_slice(bytemuck::cast_slice(table));
        }
        let mut at = head.len();
        let mut copies = Vec::with_capacity(layout.images.len());
        for &(start, image) in &layout.images {
            let (to, behind) = std::mem::take(&mut rest)[start - at..].split_at_mut(image.len());
            at = start + image.len();
            rest = behind;
            copies.push((to, image));
        }
        copy(copies);
    }

    fn launch(&self, stream: &Stream, descriptors: &[Descriptor], stride: usize, out: u64) -> Result<()> {
        let groups = descriptors.iter().map(|d| (d.rows as usize).div_ceil(ROWS)).max().unwrap_or(0);
        // What the kernel computes: 16-byte loads of a row that begins anywhere in the first.
        let shared = |d: &Descriptor| (d.columns as usize * 3 + 30) / 16 * 16 * ROWS;
        let staged =
            descriptors.iter().filter(|d| d.x_step == 3).map(shared).filter(|&bytes| bytes <= MAX_SHARED);
        let shared = staged.max().unwrap_or(0);
        let tables = Arg::Pointer(self.uploaded.pointer());
        let horizontal = Launch::blocks([groups.min(MAX_BLOCKS), descriptors.len(), 1], BLOCK, shared);
        let blocks = (self.side * stride / 4).div_ceil(BLOCK as usize);
        let vertical = Launch::blocks([blocks, descriptors.len(), 1], BLOCK, 0);
        // SAFETY: descriptors, tables and images are within the buffers, as `layout` and `check` made sure; `out` has a square for each image.
        // Buffers that are dropped wait for the work.
        #[allow(unsafe_code)]
        unsafe {
            stream.launch(&self.horizontal, horizontal, &[tables, tables, stride.into(), shared.into()])?;
            let (fill, out) = (Arg::I32(i32::from(self.fill)), Arg::Pointer(out));
            stream.launch(
                &self.vertical,
                vertical,
                &[tables, tables, out, self.side.into(), stride.into(), fill],
            )
        }
    }
}

impl Drop for Resizer {
    fn drop(&mut self) {
        // The card may still read the memory that is given back now.
        let _ = self.done.synchronize();
    }
}

impl ResizeImage<'_> {
    fn check(&self, side: usize) {
        let (width, height) = (self.columns.positions, self.rows.positions);
        assert!(
            self.columns.inputs.end <= self.width && self.rows.inputs.end <= self.height,
            "weights of {:?} x {:?} for an image of {} x {}",
            self.columns.inputs,
            self.rows.inputs,
            self.width,
            self.height
        );
        assert!(
            self.x + width <= side && self.y + height <= side,
            "{width} x {height} at {}, {} in a square of {side}",
            self.x,
            self.y
        );
        let fits = match self.pixels {
            Pixels::Host(all) => {
                self.width.checked_mul(self.height * 3).is_some_and(|bytes| bytes <= all.len())
            }
            Pixels::Device { buffer, offset, x_step, y_step } => {
                let reach = |length: usize, step: isize| length.saturating_sub(1) as i128 * step as i128;
                let (across, down) = (reach(self.width, x_step), reach(self.height, y_step));
                let lowest = offset as i128 + across.min(0) + down.min(0);
                let highest = offset as i128 + across.max(0) + down.max(0) + 3;
                lowest >= 0 && highest <= buffer.bytes() as i128
            }
        };
        assert!(fits, "an image of {} x {} is beyond its pixels", self.width, self.height);
    }
}

/// Copies images, by several threads where they are many bytes.
fn copy(mut copies: Vec<(&mut [u8], &[u8])>) {
    let total: usize = copies.iter().map(|(_, from)| from.len()).sum();
    let threads = (total / BYTES_PER_THREAD).clamp(1, MAX_COPY_THREADS);
    let share = copies.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut shares = copies.chunks_mut(share);
        let own = shares.next();
        let fill = |share: &mut [(&mut [u8], &[u8])]| {
            share.iter_mut().for_each(|(to, from)| to.copy_from_slice(from))
        };
        for share in shares {
            scope.spawn(move || fill(share));
        }
        own.map(fill);
    });
}

/// A number for the kernels, which count in `int`.
fn index(value: usize) -> i32 {
    i32::try_from(value).expect("sizes and tables of a batch fit an int")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_firsts_then_counts_then_the_weights_of_all_positions_by_turns() {
        let taps = Taps::new(&[(4, vec![1, 2]), (3, vec![5, 6, 7]), (8, vec![9])]);
        assert_eq!(taps.positions(), 3);
        assert_eq!(taps.inputs, 3..9);
        assert_eq!(taps.table, [4, 3, 8, 2, 3, 1, 1, 5, 9, 2, 6, 0, 0, 7, 0]);
    }

    #[test]
    fn a_table_of_no_positions_reads_nothing() {
        let taps = Taps::new::<Vec<i32>>(&[]);
        assert_eq!((taps.positions(), taps.inputs.len()), (0, 0));
    }

    #[test]
    fn copies_by_several_threads_are_all_made() {
        let from: Vec<Vec<u8>> = (0..7).map(|i| vec![i; BYTES_PER_THREAD / 2 + usize::from(i)]).collect();
        let mut to: Vec<Vec<u8>> = from.iter().map(|bytes| vec![255; bytes.len()]).collect();
        copy(to.iter_mut().zip(&from).map(|(to, from)| (to.as_mut_slice(), from.as_slice())).collect());
        assert_eq!(to, from);
    }
}

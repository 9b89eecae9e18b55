//! The sidecar of a part's rows: 8-bit codes with a proven error each, so that most rows need not be read at all.
//!
//! A row x is x = μ + s·c + r: μ the mean of the part's rows, c whole numbers of −127 to 127, s the row's scale, and r what is
//! left, of which the length e = ‖r‖₂ is stored. For any query y then |x·y − (μ·y + s c·y)| ≤ e ‖y‖ (Cauchy and Schwarz), and
//! the integers c·y need a byte a dimension instead of float16's two.
//!
//! The halves of the byte c + 128 lie apart: a first look reads the high ones alone, half of all bytes. With 8 in place of the low
//! half they are codes, too, h = 16 ⌊(c + 128) / 16⌋ + 8 − 128, with a rest and an error e' of their own. All is little-endian:
//!
//! ```text
//! 64 bytes    magic, version u32, dim u32, rows u64, largest ‖s·c‖ f32, largest ‖x‖ f32, largest ‖s·h‖ f32, zeros
//! mean        f32 [dim], zeros up to a multiple of 64 bytes
//! high parts  of each block of 16 rows: scales f32 [16], errors e' f32 [16], high halves u8 [dim / 8][16][4]
//! low parts   of each block: errors e f32 [16], low halves u8 [dim / 8][16][4]
//! ```
//! Byte `[i][r][j]` holds row r's halves of dimension 8i + j in its lower four bits and of 8i + 4 + j in its upper ones. Dimensions are
//! padded to a multiple of 8 and rows to a multiple of 16; padding is c = 0. A row with a NaN or an infinity has the errors +∞, so
//! that no bound excludes it and its exact product decides.
//!
//! Version 1, which is read, has no halves: its blocks are scales, errors e, codes u8 `[dim / 4][16][4]`.

pub(super) mod kernel;
mod limits;
mod prefetch;
pub(super) mod quantize;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use half::f16;
use memmap2::Mmap;
use rayon::prelude::*;
use xmore_files::open_regular;

#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::{AtPath, Result};
use crate::search::VectorError;
use crate::store::{MAX_DIM, StoreError};
use kernel::{ALIGN, BLOCK, GROUP, Kernel, PAIR};
use limits::Limits;
use quantize::{Encoder, Largest};

const MAGIC: &[u8; 8] = b"\x93XMCODES";
/// Version written.
const VERSION: u32 = 2;
/// Version without halves.
const WHOLE_VERSION: u32 = 1;
/// Bytes of the header before the mean.
const HEADER_BYTES: usize = 64;
/// Blocks that are encoded at a time when writing.
const WRITE_BLOCKS: usize = 256;

/// Writes the codes of `rows` (`[rows, dim]`) to `path`: under a temporary name, made durable, then renamed. The same rows give
/// the same bytes, whatever the number of threads of the current rayon pool, which encodes them.
///
/// # Errors
/// [`VectorError::Length`] if `rows` is no whole number of rows, [`MemoryError::Io`].
pub fn write(path: &Path, rows: &[f16], dim: usize) -> Result<()> {
    if dim == 0 || dim > MAX_DIM || !rows.len().is_multiple_of(dim) {
        return Err(VectorError::Length { what: "matrix to encode", expected: dim, found: rows.len() }.into());
    }
    let temporary = path.with_extension("bin.tmp");
    let mut file = BufWriter::with_capacity(1 << 18, File::create(&temporary).at("create", &temporary)?);
    let encoder = Encoder::new(rows, dim);
    let layout = Layout::new(rows.len() / dim, dim, VERSION);
    let mut head = vec![0; layout.head_bytes];
    let mut largest = Largest::default();
    // The largest norms are known at the end only.
    let mut write_at = |at: usize, bytes: &[u8]| {
        file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(bytes)).at("write", &temporary)
    };
    let mut high = vec![0; WRITE_BLOCKS * layout.high_bytes];
    let mut low = vec![0; WRITE_BLOCKS * layout.low_bytes];
    for (lot, rows) in rows.chunks(WRITE_BLOCKS * BLOCK * dim).enumerate() {
        let blocks = rows.len().div_ceil(BLOCK * dim);
        let (high, low) = (&mut high[..blocks * layout.high_bytes], &mut low[..blocks * layout.low_bytes]);
        let parts =
            high.par_chunks_exact_mut(layout.high_bytes).zip(low.par_chunks_exact_mut(layout.low_bytes));
        let found = parts.zip(rows.par_chunks(BLOCK * dim)).with_min_len(8);
        let found = found.map(|((high, low), rows)| encoder.block(rows, high, low));
        largest = found.reduce(Largest::default, Largest::or).or(largest);
        write_at(layout.high_at(lot * WRITE_BLOCKS), high)?;
        write_at(layout.low_at(lot * WRITE_BLOCKS), low)?;
    }
    layout.fill_head(&mut head, largest, encoder.mean());
    write_at(0, &head)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).at("write", &temporary)?;
    std::fs::rename(&temporary, path).at("rename to", path)
}

/// Where everything is in a file of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    rows: usize,
    dim: usize,
    /// Bytes before the first block.
    head_bytes: usize,
    /// Bytes of a block's high part; of all of it without halves.
    high_bytes: usize,
    /// Bytes of a block's low part; 0 without halves.
    low_bytes: usize,
}

impl Layout {
    /// Bytes of the scales and errors of a block, or of its high part.
    const HIGH_FACTORS: usize = 2 * BLOCK * size_of::<f32>();
    /// Bytes of the errors of a block's low part.
    const LOW_FACTORS: usize = BLOCK * size_of::<f32>();

    fn new(rows: usize, dim: usize, version: u32) -> Layout {
        let head_bytes = (HEADER_BYTES + dim * size_of::<f32>()).next_multiple_of(ALIGN);
        let (codes, halves) =
            (BLOCK * GROUP * dim.div_ceil(GROUP), BLOCK * GROUP * dim.div_ceil(PAIR * GROUP));
        let (high, low_bytes) =
            if version == WHOLE_VERSION { (codes, 0) } else { (halves, Layout::LOW_FACTORS + halves) };
        Layout { rows, dim, head_bytes, high_bytes: Layout::HIGH_FACTORS + high, low_bytes }
    }

    fn has_halves(&self) -> bool {
        self.low_bytes > 0
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Groups of dimensions, padding included.
    fn groups(&self) -> usize {
        let groups = self.dim.div_ceil(GROUP);
        if self.has_halves() { groups.next_multiple_of(PAIR) } else { groups }
    }

    /// Size of the file; `None` if it is too large for a map.
    fn bytes(&self) -> Option<usize> {
        self.blocks().checked_mul(self.high_bytes + self.low_bytes)?.checked_add(self.head_bytes)
    }

    /// Where a block's high part begins.
    fn high_at(&self, block: usize) -> usize {
        self.head_bytes + block * self.high_bytes
    }

    /// Where a block's low part begins.
    fn low_at(&self, block: usize) -> usize {
        self.high_at(self.blocks()) + block * self.low_bytes
    }

    fn fill_head(&self, head: &mut [u8], largest: Largest, mean: &[f32]) {
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        // At most `MAX_DIM`, as was checked.
        head[12..16].copy_from_slice(&(self.dim as u32).to_le_bytes());
        head[16..24].copy_from_slice(&(self.rows as u64).to_le_bytes());
        head[24..28].copy_from_slice(&largest.code.to_le_bytes());
        head[28..32].copy_from_slice(&largest.row.to_le_bytes());
        head[32..36].copy_from_slice(&largest.half.to_le_bytes());
        head[HEADER_BYTES..][..size_of_val(mean)].copy_from_slice(bytemuck::cast_slice(mean));
    }
}

/// A part's codes, memory-mapped.
#[derive(Debug)]
pub struct Codes {
    map: Mmap,
    layout: Layout,
    largest: Largest,
    /// One of the states below.
    trust: AtomicU8,
}

/// Factors of rows have not been looked at.
const UNCHECKED: u8 = 0;
/// All factors are as rows can have them.
const CHECKED: u8 = 1;
/// Factors, or a score outside its bounds, show that the codes are not those of the rows.
const DAMAGED: u8 = 2;

impl Codes {
    /// Maps a file of codes and checks that it is of `rows` rows of `dim` dimensions and that its header does not contradict
    /// itself. Reads the header only.
    ///
    /// The scales and errors of the rows are checked when a search first uses them: one that no row can have makes it read the
    /// embeddings instead. That the codes are of the very rows they are used with is checked on the rows that a search scores: one outside
    /// its bounds does the same. Other damage is not noticed here, and can cost a search its best rows; a checksum of the
    /// file is what finds it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is anything else, [`MemoryError::Io`].
    pub fn open(path: &Path, rows: usize, dim: usize) -> Result<Codes> {
        let damaged = |expected: String, found: String| {
            StoreError::Damaged { path: path.to_owned(), expected, found }.into()
        };
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(damaged(format!("a dimension in 1..={MAX_DIM}"), dim.to_string()));
        }
        let file = open_regular(path).at("open", path)?;
        let bytes = file.metadata().at("read", path)?.len();
        if bytes < HEADER_BYTES as u64 {
            return Err(damaged("a file of codes".to_owned(), format!("{bytes} bytes")));
        }
        // SAFETY: the map is only ever read. Files of codes are not changed in place: the writer replaces whole files by rename.
        // That no other program truncates them is asked of the user, as for every mapped index.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.at("map", path)?;
        // Between asking for the size and mapping it may have changed.
        if map.len() as u64 != bytes {
            return Err(damaged(format!("{bytes} bytes"), format!("{} bytes", map.len())));
        }

        if &map[..8] != MAGIC {
            return Err(damaged(
                "a file of codes".to_owned(),
                "a file that does not begin as one".to_owned(),
            ));
        }
        let (version, wide) = (read_u32(&map, 8), read_u32(&map, 12));
        let high = u64::from(read_u32(&map, 20));
        let count = high << 32 | u64::from(read_u32(&map, 16));
        if !(WHOLE_VERSION..=VERSION).contains(&version) {
            return Err(damaged(format!("codes of a version up to {VERSION}"), format!("version {version}")));
        }
        let layout = Layout::new(rows, dim, version);
        if layout.bytes() != Some(map.len()) {
            let expected = layout.bytes().map_or("a size that fits a file".to_owned(), |n| {
                format!("{n} bytes: the codes of {rows} rows of {dim}")
            });
            return Err(damaged(expected, format!("{bytes} bytes")));
        }
        if (count, wide as usize) != (rows as u64, dim) {
            return Err(damaged(
                format!("the codes of {rows} rows of {dim}"),
                format!("those of {count} of {wide}"),
            ));
        }
        let norm = |at: usize| f32::from_bits(read_u32(&map, at));
        // Without halves these bytes are of the zeros.
        let largest = Largest { code: norm(24), row: norm(28), half: norm(32) };
        let zeros = if layout.has_halves() { 36 } else { 32 };
        let codes = Codes { map, layout, largest, trust: AtomicU8::new(UNCHECKED) };
        let padding = HEADER_BYTES + dim * size_of::<f32>()..layout.head_bytes;
        if codes.map[zeros..HEADER_BYTES].iter().chain(&codes.map[padding]).any(|&byte| byte != 0) {
            return Err(damaged("zeros in the header".to_owned(), "others".to_owned()));
        }
        limits::check_header(&codes)
            .map_err(|found| damaged("a mean and norms that belong together".to_owned(), found))?;
        Ok(codes)
    }

    /// Whether nothing has shown that these are not the codes of the rows. The first call looks at the scale and error of every row.
    pub(super) fn are_trusted(&self) -> bool {
        match self.trust.load(Ordering::Relaxed) {
            CHECKED => true,
            DAMAGED => false,
            // Two threads may both do it; waiting for one another within the pool could never end.
            _ => {
                let limits = Limits::new(self.largest, self.layout.dim, self.has_halves());
                let rows = |block: usize| (self.layout.rows - block * BLOCK).min(BLOCK);
                let blocks = (0..self.blocks()).into_par_iter().with_min_len(256);
                let sound = blocks.all(|index| limits.allow(self.factors(index), rows(index)));
                self.trust.fetch_max(if sound { CHECKED } else { DAMAGED }, Ordering::Relaxed);
                sound
            }
        }
    }

    /// Has no search use them any more: a score was outside its bounds.
    pub(super) fn distrust(&self) {
        self.trust.store(DAMAGED, Ordering::Relaxed);
    }

    /// Whether a search found that these are not the codes of the rows, and used the embeddings instead.
    pub fn found_damaged(&self) -> bool {
        self.trust.load(Ordering::Relaxed) == DAMAGED
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Dimensions of a row.
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Mean of the rows, `[dim]`.
    pub(super) fn mean(&self) -> &[f32] {
        bytemuck::cast_slice(&self.map[HEADER_BYTES..][..self.layout.dim * size_of::<f32>()])
    }

    /// Largest ‖s·c‖ of a row.
    pub(super) fn largest_code(&self) -> f32 {
        self.largest.code
    }

    /// Largest ‖s·h‖ of a row, 0 without halves.
    pub(super) fn largest_half(&self) -> f32 {
        self.largest.half
    }

    /// Largest ‖x‖ of a finite row.
    pub(super) fn largest_row(&self) -> f32 {
        self.largest.row
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.layout.blocks()
    }

    /// Groups of dimensions of a block, padding included.
    pub(super) fn groups(&self) -> usize {
        self.layout.groups()
    }

    /// Whether the high halves can be read alone.
    pub(super) fn has_halves(&self) -> bool {
        self.layout.has_halves()
    }

    /// The part of a block that lies first: scales, errors and high halves; scales, errors and codes without halves.
    pub(super) fn high(&self, index: usize) -> CodeBlock<'_> {
        let bytes = &self.map[self.layout.high_at(index)..][..self.layout.high_bytes];
        let (factors, codes) = bytes.split_at(Layout::HIGH_FACTORS);
        let (scales, errors) = bytemuck::cast_slice(factors).split_at(BLOCK);
        CodeBlock { scales, errors, codes }
    }

    /// Errors, `[BLOCK]`, and low halves of a block.
    fn low(&self, index: usize) -> (&[f32], &[u8]) {
        let bytes = &self.map[self.layout.low_at(index)..][..self.layout.low_bytes];
        let (errors, halves) = bytes.split_at(Layout::LOW_FACTORS);
        (bytemuck::cast_slice(errors), halves)
    }

    /// A block of rows. Codes of which the halves lie apart are joined in `buffer`, of `BLOCK` · `GROUP` bytes for each group.
    pub(super) fn block<'a>(&'a self, index: usize, kernel: &Kernel, buffer: &'a mut [u8]) -> CodeBlock<'a> {
        let high = self.high(index);
        if !self.has_halves() {
            return high;
        }
        let (errors, low) = self.low(index);
        kernel.join(high.codes, low, buffer);
        CodeBlock { errors, codes: buffer, ..high }
    }

    /// Asks for the high part of a block that is read soon.
    pub(super) fn prefetch_high(&self, index: usize) {
        prefetch::prefetch(&self.map[self.layout.high_at(index)..][..self.layout.high_bytes]);
    }

    /// Asks for all of a block that is read soon.
    pub(super) fn prefetch(&self, index: usize) {
        self.prefetch_high(index);
        prefetch::prefetch(&self.map[self.layout.low_at(index)..][..self.layout.low_bytes]);
    }

    /// The factors of a block's rows.
    pub(super) fn factors(&self, index: usize) -> Factors<'_> {
        let CodeBlock { scales, errors, .. } = self.high(index);
        if !self.has_halves() {
            return Factors { scales, errors, half_errors: None };
        }
        Factors { scales, errors: self.low(index).0, half_errors: Some(errors) }
    }
}

/// Sixteen rows.
#[derive(Clone, Copy)]
pub(super) struct CodeBlock<'a> {
    /// `[BLOCK]`.
    pub scales: &'a [f32],
    /// `[BLOCK]`.
    pub errors: &'a [f32],
    /// `[groups, BLOCK, GROUP]`, or high halves, `[groups / PAIR, BLOCK, GROUP]`.
    pub codes: &'a [u8],
}

/// Scales and errors of sixteen rows, `[BLOCK]` each.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a> {
    pub scales: &'a [f32],
    pub errors: &'a [f32],
    pub half_errors: Option<&'a [f32]>,
}

/// Every header has the bytes that are asked for, since every size is at least that.
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

//! The sidecar of a part's rows: 8-bit codes with a proven error each, so that most rows need not be read at all.
//!
//! A row x is x = μ + s·c + r: μ the mean of the part's rows, c whole numbers of −127 to 127, s the row's scale, and r what is
//! left, of which the length e = ‖r‖₂ is stored. For any query y then |x·y − (μ·y + s c·y)| ≤ e ‖y‖ (Cauchy and Schwarz), and
//! the integers c·y need a byte a dimension instead of float16's two. All is little-endian:
//!
//! ```text
//! 64 bytes    magic, version u32, dim u32, rows u64, largest ‖s·c‖ f32, largest ‖x‖ f32, zeros
//! mean        f32 [dim], zeros up to a multiple of 64 bytes
//! blocks      of 16 rows: scales f32 [16], errors f32 [16], codes u8 [dim / 4][16][4], each c + 128
//! ```
//! Dimensions are padded to a multiple of 4 and rows to a multiple of 16; padding is c = 0. A row with a NaN or an infinity has
//! the error +∞, so that no bound excludes it and its exact product decides.

pub(super) mod kernel;
mod limits;
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
use kernel::{BLOCK, GROUP};
use limits::Limits;
use quantize::{Encoder, Largest};

const MAGIC: &[u8; 8] = b"\x93XMCODES";
/// Version written, and the only one read.
const VERSION: u32 = 1;
/// Bytes of the header before the mean.
const HEADER_BYTES: usize = 64;
/// Everything begins on a multiple of this: a vector of the widest instruction set never straddles two cache lines.
const ALIGN: usize = 64;
/// Bytes of a block's scales and errors.
const FACTOR_BYTES: usize = 2 * BLOCK * size_of::<f32>();
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
    let layout = Layout::new(rows.len() / dim, dim);
    let mut head = vec![0; layout.head_bytes];
    let mut largest = Largest::default();
    // The largest norms are known at the end only.
    file.write_all(&head).at("write", &temporary)?;
    let mut bytes = vec![0; WRITE_BLOCKS * layout.block_bytes];
    for rows in rows.chunks(WRITE_BLOCKS * BLOCK * dim) {
        let bytes = &mut bytes[..rows.len().div_ceil(BLOCK * dim) * layout.block_bytes];
        let blocks = bytes.par_chunks_exact_mut(layout.block_bytes).zip(rows.par_chunks(BLOCK * dim));
        let found = blocks.with_min_len(8).map(|(block, rows)| encoder.block(rows, block));
        largest = found.reduce(Largest::default, Largest::or).or(largest);
        file.write_all(bytes).at("write", &temporary)?;
    }
    layout.fill_head(&mut head, largest, encoder.mean());
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(&head))
        .and_then(|()| file.flush())
        .and_then(|()| file.get_ref().sync_all())
        .at("write", &temporary)?;
    std::fs::rename(&temporary, path).at("rename to", path)
}

/// Where everything is in a file of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    rows: usize,
    dim: usize,
    /// Bytes before the first block.
    head_bytes: usize,
    block_bytes: usize,
}

impl Layout {
    fn new(rows: usize, dim: usize) -> Layout {
        let head_bytes = (HEADER_BYTES + dim * size_of::<f32>()).next_multiple_of(ALIGN);
        Layout { rows, dim, head_bytes, block_bytes: FACTOR_BYTES + BLOCK * GROUP * dim.div_ceil(GROUP) }
    }

    /// Size of the file; `None` if it is too large for a map.
    fn bytes(&self) -> Option<usize> {
        self.rows.div_ceil(BLOCK).checked_mul(self.block_bytes)?.checked_add(self.head_bytes)
    }

    fn fill_head(&self, head: &mut [u8], largest: Largest, mean: &[f32]) {
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        // At most `MAX_DIM`, as was checked.
        head[12..16].copy_from_slice(&(self.dim as u32).to_le_bytes());
        head[16..24].copy_from_slice(&(self.rows as u64).to_le_bytes());
        head[24..28].copy_from_slice(&largest.code.to_le_bytes());
        head[28..32].copy_from_slice(&largest.row.to_le_bytes());
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
        let layout = Layout::new(rows, dim);
        let file = open_regular(path).at("open", path)?;
        let bytes = file.metadata().at("read", path)?.len();
        if layout.bytes().map(|n| n as u64) != Some(bytes) {
            let expected = layout.bytes().map_or("a size that fits a file".to_owned(), |n| {
                format!("{n} bytes: the codes of {rows} rows of {dim}")
            });
            return Err(damaged(expected, format!("{bytes} bytes")));
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
        if version != VERSION {
            return Err(damaged(format!("codes of version {VERSION}"), format!("version {version}")));
        }
        if (count, wide as usize) != (rows as u64, dim) {
            return Err(damaged(
                format!("the codes of {rows} rows of {dim}"),
                format!("those of {count} of {wide}"),
            ));
        }
        let largest =
            Largest { code: f32::from_bits(read_u32(&map, 24)), row: f32::from_bits(read_u32(&map, 28)) };
        let codes = Codes { map, layout, largest, trust: AtomicU8::new(UNCHECKED) };
        let padding = HEADER_BYTES + dim * size_of::<f32>()..layout.head_bytes;
        if codes.map[32..HEADER_BYTES].iter().chain(&codes.map[padding]).any(|&byte| byte != 0) {
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
                let limits = Limits::new(self.largest, self.layout.dim);
                let rows = |block: usize| (self.layout.rows - block * BLOCK).min(BLOCK);
                let blocks = (0..self.blocks()).into_par_iter().with_min_len(256);
                let sound = blocks.all(|index| limits.allow(self.block(index), rows(index)));
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

    /// Largest ‖x‖ of a finite row.
    pub(super) fn largest_row(&self) -> f32 {
        self.largest.row
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.layout.rows.div_ceil(BLOCK)
    }

    /// A block of rows.
    pub(super) fn block(&self, index: usize) -> CodeBlock<'_> {
        let bytes = &self.map[self.layout.head_bytes + index * self.layout.block_bytes..];
        let (factors, codes) = bytes[..self.layout.block_bytes].split_at(FACTOR_BYTES);
        let (scales, errors) = bytemuck::cast_slice(factors).split_at(BLOCK);
        CodeBlock { scales, errors, codes }
    }
}

/// Sixteen rows.
#[derive(Clone, Copy)]
pub(super) struct CodeBlock<'a> {
    /// `[BLOCK]`.
    pub scales: &'a [f32],
    /// `[BLOCK]`.
    pub errors: &'a [f32],
    /// `[groups, BLOCK, GROUP]`.
    pub codes: &'a [u8],
}

/// Every header has the bytes that are asked for, since every size is at least that.
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

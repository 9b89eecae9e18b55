//! A pass of the card over rows for up to [`PASS_QUERIES`] queries: lists of entries that hold each query's n best.

use half::f16;
use xmore_cuda::{Arg, Buffer, Device, Kernel, Launch, Result, Source, Stream, TensorMapBytes};

use super::bound::Arithmetic;
use super::schedule::{TILE_ROWS, capacity, launches, step};

/// Queries of a pass; bounds the memory of the lists.
pub(super) const PASS_QUERIES: usize = 1024;

/// Queries that are read for: more are multiplied by tensor cores.
const FEW: usize = 8;

/// Queries of a block of the kernels for many: the least that holds all of them, else the most.
const MANY_TILES: [usize; 1] = [64];
const MOST_TILE: usize = 128;
const HOPPER_TILES: [usize; 2] = [64, 128];
const MOST_HOPPER_TILE: usize = 256;

/// Shared memory that the kernels for many ask for.
const MANY_SHARED: usize = 96 << 10;
const HOPPER_SHARED: usize = (192 << 10) + 1024;

/// Threads of a block of the scans, of `select`, of the others.
const SCAN_THREADS: u32 = 256;
const HOPPER_THREADS: u32 = 288;
const SELECT_THREADS: u32 = 512;
const THREADS: u32 = 256;

/// Blocks for each multiprocessor.
const FEW_BLOCKS: usize = 3;
const MANY_BLOCKS: usize = 2;

/// A row that may be among a query's best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    /// The card's score.
    pub score: f32,
    /// Number of the row.
    pub row: u32,
}

/// How rows of `width` elements are multiplied with so many queries: few of them are kept in shared memory as f32.
pub(super) fn arithmetic(device: &Device, queries: usize, width: usize) -> Arithmetic {
    let fits = few_shared(queries.next_power_of_two(), width) <= device.info().shared_memory;
    if queries <= FEW && fits { Arithmetic::F32 } else { Arithmetic::TensorCore }
}

/// Shared memory of the kernel for few.
fn few_shared(queries: usize, width: usize) -> usize {
    queries * width * size_of::<f32>()
}

/// What a pass is asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// `[q, dim]`, at most [`PASS_QUERIES`]; few enough for the arithmetic.
    pub queries: &'a [f32],
    /// How far below the n-th best score a row is kept, for each query.
    pub margins: &'a [f32],
    pub dim: usize,
    /// Elements of a row on the card.
    pub width: usize,
    pub arithmetic: Arithmetic,
    /// Hits of each query.
    pub n: usize,
}

/// Queue and memory of passes, kept from one to the next.
pub(super) struct Scanner {
    stream: Stream,
    /// Whether many queries are multiplied by the kernel for compute capability 9.0.
    hopper: bool,
    lists: Option<Lists>,
}

/// Memory of a pass on the card.
struct Lists {
    /// Queries for which there is memory.
    of_queries: usize,
    /// Entries of each list.
    capacity: usize,
    /// As f32 or f16.
    queries: Buffer,
    margins: Buffer,
    cuts: Buffer,
    counts: Buffer,
    entries: Buffer,
    /// Of `pack`: where each list begins and its length, how many entries there are, and all of them.
    places: Buffer,
    total: Buffer,
    packed: Buffer,
    packed_entries: usize,
}

/// What multiplies.
enum Scan {
    Few {
        kernel: Kernel,
        shared: usize,
    },
    Many {
        kernel: Kernel,
        groups: usize,
    },
    /// The same for compute capability 9.0.
    Hopper {
        kernel: Kernel,
        groups: usize,
        queries: TensorMapBytes,
    },
}

/// A pass that was begun.
pub(super) struct Pass<'s> {
    stream: &'s Stream,
    lists: &'s Lists,
    scan: Scan,
    select: Kernel,
    queries: usize,
    width: usize,
    n: usize,
    /// Rows scanned so far.
    seen: u64,
}

impl Scanner {
    pub fn new(device: &Device, hopper: bool) -> Result<Self> {
        Ok(Self { stream: Stream::new(device)?, hopper, lists: None })
    }

    /// Begins a pass.
    pub fn begin(&mut self, asked: &Asked<'_>) -> Result<Pass<'_>> {
        let Asked { queries, margins, dim, width, arithmetic, n } = *asked;
        let device = *self.stream.device();
        let count = margins.len();
        // A pass that failed may have left work that uses this memory.
        self.stream.synchronize()?;
        let least = |tiles: &[usize]| tiles.iter().copied().find(|&tile| count <= tile);
        let tile = match arithmetic {
            Arithmetic::F32 => count.next_power_of_two(),
            Arithmetic::TensorCore if self.hopper => least(&HOPPER_TILES).unwrap_or(MOST_HOPPER_TILE),
            Arithmetic::TensorCore => least(&MANY_TILES).unwrap_or(MOST_TILE),
        };
        let padded = count.next_multiple_of(tile);
        let wanted = [padded, capacity(n)];
        let had = self.lists.as_ref().map_or([0, 0], |lists| [lists.of_queries, lists.capacity]);
        if had[0] < wanted[0] || had[1] < wanted[1] {
            // The old memory is given back before the new is asked for. It only grows: searches of several sizes take turns.
            self.lists = None;
            let [queries, capacity] = [had[0].max(wanted[0]), had[1].max(wanted[1])];
            self.lists = Some(Lists::new(&device, queries, width, capacity)?);
        }
        let Self { stream, hopper, lists: Some(lists) } = self else { unreachable!("set above") };
        lists.margins.write(stream, 0, margins)?;
        let groups = padded / tile;
        let scan = match arithmetic {
            Arithmetic::F32 => {
                lists.queries.write(stream, 0, &padded_rows(queries, dim, width, padded, |v| v))?;
                let shared = few_shared(tile, width);
                let defines = [("QUERIES", tile as i64), ("WIDTH", width as i64)];
                Scan::Few { kernel: device.kernel(Source::Search, "scan_few", &defines, shared)?, shared }
            }
            Arithmetic::TensorCore => {
                lists.queries.write(stream, 0, &padded_rows(queries, dim, width, padded, f16::from_f32))?;
                if *hopper {
                    let kernel = device.kernel(
                        Source::Search,
                        "scan_hopper",
                        &[("HOPPER", tile as i64)],
                        HOPPER_SHARED,
                    )?;
                    let pointer = lists.queries.pointer();
                    let queries = TensorMapBytes::of_rows(&device, pointer, padded, width, tile)?;
                    Scan::Hopper { kernel, groups, queries }
                } else {
                    let defines = [("TILE", tile as i64)];
                    let kernel = device.kernel(Source::Search, "scan_many", &defines, MANY_SHARED)?;
                    Scan::Many { kernel, groups }
                }
            }
        };
        let select = device.kernel(Source::Search, "select", &[], 0)?;
        Ok(Pass { stream, lists, scan, select, queries: count, width, n, seen: 0 })
    }
}

/// Queries with zeros to `width` each, and whole ones of zeros up to `count`.
fn padded_rows<T: bytemuck::Zeroable + Clone>(
    queries: &[f32],
    dim: usize,
    width: usize,
    count: usize,
    convert: impl Fn(f32) -> T,
) -> Vec<T> {
    let mut rows = vec![T::zeroed(); count * width];
    for (row, query) in rows.chunks_exact_mut(width).zip(queries.chunks_exact(dim)) {
        row.iter_mut().zip(query).for_each(|(to, &value)| *to = convert(value));
    }
    rows
}

impl Lists {
    fn new(device: &Device, queries: usize, width: usize, capacity: usize) -> Result<Self> {
        // Four times the hits and more; with more candidates than that a query costs as much without the card.
        let packed_entries = queries * capacity / 4;
        let words = |count: usize| Buffer::new(device, count * size_of::<u32>());
        Ok(Self {
            of_queries: queries,
            capacity,
            queries: words(queries * width)?,
            margins: words(queries)?,
            cuts: words(queries)?,
            counts: words(queries)?,
            entries: words(queries * capacity * 2)?,
            places: words(queries * 2)?,
            total: words(1)?,
            packed: words(packed_entries * 2)?,
            packed_entries,
        })
    }
}

impl<'s> Pass<'s> {
    /// Where its work is queued.
    pub fn stream(&self) -> &'s Stream {
        self.stream
    }

    /// Scans `count` rows at `rows`, of which the first has number `base`.
    ///
    /// # Safety
    /// `rows` are as many rows of the pass' width on the stream's card, valid until the stream has done this.
    #[allow(unsafe_code)]
    pub unsafe fn rows(&mut self, rows: u64, base: usize, count: usize) -> Result<()> {
        let tiles = count.div_ceil(TILE_ROWS);
        let step = step(tiles);
        let rows = match self.scan {
            Scan::Hopper { .. } => {
                let device = self.stream.device();
                Arg::TensorMap(TensorMapBytes::of_rows(device, rows, count, self.width, TILE_ROWS)?)
            }
            Scan::Few { .. } | Scan::Many { .. } => Arg::Pointer(rows),
        };
        for visited in launches(tiles, self.seen, self.n) {
            let sample = self.seen == 0 && visited.start == 0;
            let of_rows = [
                rows,
                count.into(),
                base.into(),
                tiles.into(),
                step.into(),
                visited.start.into(),
                visited.end.into(),
            ];
            // SAFETY: the caller's promise of the rows; the lists are of this shape.
            unsafe { self.scan(&of_rows, visited.len(), sample)? };
            self.select(if sample { visited.len() * TILE_ROWS } else { 0 })?;
        }
        self.seen += count as u64;
        Ok(())
    }

    /// One launch of a scan.
    ///
    /// # Safety
    /// As [`rows`](Self::rows).
    #[allow(unsafe_code)]
    unsafe fn scan(&self, rows: &[Arg], tiles: usize, sample: bool) -> Result<()> {
        let lists = self.lists;
        let processors = self.stream.device().info().processors;
        let mut args = rows.to_vec();
        let queries = Arg::Pointer(lists.queries.pointer());
        let count = Arg::from(self.queries);
        // As many blocks for each group as there are at a time.
        let lanes = |blocks: usize, groups: usize| (blocks / groups).clamp(1, tiles.max(1));
        let (kernel, launch) = match self.scan {
            Scan::Few { kernel, shared } => {
                args.extend([queries, count]);
                let blocks = tiles.min(processors * FEW_BLOCKS);
                (kernel, Launch::blocks([blocks, 1, 1], SCAN_THREADS, shared))
            }
            Scan::Many { kernel, groups } => {
                args.extend([queries, count, self.width.into(), groups.into()]);
                let blocks = lanes(processors * MANY_BLOCKS, groups) * groups;
                (kernel, Launch::blocks([blocks, 1, 1], SCAN_THREADS, MANY_SHARED))
            }
            Scan::Hopper { kernel, groups, queries } => {
                args.extend([Arg::TensorMap(queries), count, self.width.into(), groups.into()]);
                let blocks = lanes(processors, groups) * groups;
                (kernel, Launch::blocks([blocks, 1, 1], HOPPER_THREADS, HOPPER_SHARED))
            }
        };
        args.extend([
            Arg::Pointer(lists.cuts.pointer()),
            Arg::Pointer(lists.counts.pointer()),
            Arg::Pointer(lists.entries.pointer()),
            Arg::from(lists.capacity),
            Arg::from(usize::from(sample)),
        ]);
        // SAFETY: the kernel's parameters in order; sizes are those that the lists were made with.
        unsafe { self.stream.launch(&kernel, launch, &args) }
    }

    /// Raises the cuts; `sampled` is the length of the lists after the first launch, 0 later.
    fn select(&self, sampled: usize) -> Result<()> {
        let lists = self.lists;
        let args = [
            Arg::Pointer(lists.entries.pointer()),
            Arg::Pointer(lists.counts.pointer()),
            Arg::Pointer(lists.cuts.pointer()),
            Arg::Pointer(lists.margins.pointer()),
            lists.capacity.into(),
            self.n.into(),
            sampled.into(),
        ];
        let launch = Launch::blocks([self.queries, 1, 1], SELECT_THREADS, 0);
        // SAFETY: a block for each query, of lists that hold at least as many.
        #[allow(unsafe_code)]
        unsafe {
            self.stream.launch(&self.select, launch, &args)
        }
    }

    /// The entries of each query, in no order; `None` for a query of which some were lost.
    pub fn finish(self) -> Result<Vec<Option<Vec<Entry>>>> {
        let lists = self.lists;
        let device = *self.stream.device();
        let pack = device.kernel(Source::Search, "pack", &[], 0)?;
        lists.total.fill(self.stream, 0)?;
        let args = [
            Arg::Pointer(lists.entries.pointer()),
            Arg::Pointer(lists.counts.pointer()),
            lists.capacity.into(),
            Arg::Pointer(lists.places.pointer()),
            Arg::Pointer(lists.total.pointer()),
            Arg::Pointer(lists.packed.pointer()),
            lists.packed_entries.into(),
        ];
        // SAFETY: a block for each query, of lists that hold at least as many.
        #[allow(unsafe_code)]
        unsafe {
            self.stream.launch(&pack, Launch::blocks([self.queries, 1, 1], THREADS, 0), &args)?;
        }
        let mut places = vec![[0i32; 2]; self.queries];
        lists.places.read(self.stream, 0, &mut places)?;
        let place = |[start, count]: [i32; 2]| {
            let (start, count) = (usize::try_from(start).ok()?, usize::try_from(count).ok()?);
            Some(start..start + count)
        };
        let end = places.iter().filter_map(|&p| place(p)).map(|range| range.end).max().unwrap_or(0);
        let mut entries = vec![[0u32; 2]; end];
        lists.packed.read(self.stream, 0, &mut entries)?;
        let entry = |&[score, row]: &[u32; 2]| Entry { score: f32::from_bits(score), row };
        Ok(places
            .into_iter()
            .map(|p| place(p).map(|range| entries[range].iter().map(entry).collect()))
            .collect())
    }
}

/// Queues `largest_row` over rows on the card: the largest sum of squares becomes at least theirs, as the bits of an f32.
///
/// # Safety
/// `rows` are `count` rows of `width` on the stream's card, `largest` is 4 bytes there; both are valid until the stream has done this.
#[allow(unsafe_code)]
pub(super) unsafe fn largest_row(
    stream: &Stream,
    rows: u64,
    count: usize,
    width: usize,
    largest: &Buffer,
) -> Result<()> {
    let kernel = stream.device().kernel(Source::Search, "largest_row", &[], 0)?;
    let blocks = count.div_ceil(THREADS as usize / 32).min(stream.device().info().processors * 8);
    let args = [Arg::Pointer(rows), Arg::I64(count as i64), width.into(), Arg::Pointer(largest.pointer())];
    // SAFETY: the caller's promise.
    unsafe { stream.launch(&kernel, Launch::blocks([blocks, 1, 1], THREADS, 0), &args) }
}

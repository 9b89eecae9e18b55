//! What the kernels' functions are given, and what they write.

use std::ops::Range;

use super::coded::CodedQuery;
use super::codes::CodeBlock;
use super::codes::kernel::{
    ALIGN, BLOCK, GROUP, Kernel, MAX_BLOCKS, MAX_QUERIES, PAIR, Sums, Test, Tile, TileFn,
};

/// What a tile's function writes, `[blocks, queries]` each.
pub(super) struct TileOut {
    pub sums: [Sums; MAX_BLOCKS * MAX_QUERIES],
    /// Bit r: row r of the block passes the query's test.
    pub passed: [u16; MAX_BLOCKS * MAX_QUERIES],
}

impl TileOut {
    pub fn new() -> TileOut {
        TileOut { sums: [[0; BLOCK]; MAX_BLOCKS * MAX_QUERIES], passed: [0; MAX_BLOCKS * MAX_QUERIES] }
    }
}

/// Buffers for the joined codes of the largest tile's blocks, on whole cache lines.
#[derive(Default)]
pub(super) struct BlockBuffers(Vec<u8>);

impl BlockBuffers {
    /// A buffer for each block, of `groups` groups of dimensions.
    pub fn of(&mut self, groups: usize) -> [&mut [u8]; MAX_BLOCKS] {
        let bytes = groups * BLOCK * GROUP;
        if self.0.len() < MAX_BLOCKS * bytes + ALIGN {
            self.0.resize(MAX_BLOCKS * bytes + ALIGN, 0);
        }
        let start = self.0.as_ptr().align_offset(ALIGN).min(ALIGN);
        let (first, second) = self.0[start..].split_at_mut(bytes);
        [first, &mut second[..bytes]]
    }
}

/// The high digits of a few queries, as a tile reads them.
pub(super) struct Panel {
    pub queries: Range<usize>,
    /// `[groups, queries, GROUP]`.
    digits: Vec<i8>,
    /// `[queries]`.
    offsets: Vec<i32>,
}

impl Panel {
    pub fn digits(&self) -> Digits8<'_> {
        Digits8 { values: &self.digits, offsets: &self.offsets }
    }
}

/// All queries in panels of nearly equal size.
pub(super) fn panels(kernel: &Kernel, queries: &[CodedQuery<'_>]) -> Vec<Panel> {
    let count = queries.len().div_ceil(kernel.queries).max(1);
    let bound = |p: usize| p * queries.len() / count;
    let panel = |p: usize| {
        let range = bound(p)..bound(p + 1);
        let of = &queries[range.clone()];
        let groups = of.first().map_or(0, |q| q.digits.high.len() / GROUP);
        let digits =
            (0..groups).flat_map(|k| of.iter().flat_map(move |q| &q.digits.high[k * GROUP..][..GROUP]));
        let offsets = of.iter().map(|q| q.digits.high_offset).collect();
        Panel { queries: range, digits: digits.copied().collect(), offsets }
    };
    (0..count).map(panel).collect()
}

/// One digit of some queries: `[groups, queries, GROUP]` values, and what each query's sums start from.
#[derive(Clone, Copy)]
pub(super) struct Digits8<'a> {
    pub values: &'a [i8],
    pub offsets: &'a [i32],
}

/// Computes the sums of one or two blocks of `groups` groups of dimensions with some queries, and which of them have a row that
/// passes: bit q of a block's answer.
pub(super) fn run_tile(
    kernel: &Kernel,
    blocks: &[CodeBlock<'_>],
    groups: usize,
    digits: Digits8<'_>,
    tests: &[Test],
    out: &mut TileOut,
) -> [u32; MAX_BLOCKS] {
    let function = kernel.tiles[blocks.len() - 1][tests.len() - 1].expect("the kernel has such tiles");
    assert!(blocks.iter().all(|block| block.codes.len() >= groups * BLOCK * GROUP));
    run(function, blocks, groups, digits, tests, out)
}

/// The same of the high halves of one block.
pub(super) fn run_halves(
    kernel: &Kernel,
    block: CodeBlock<'_>,
    groups: usize,
    digits: Digits8<'_>,
    tests: &[Test],
    out: &mut TileOut,
) -> u32 {
    let function = kernel.halves[tests.len() - 1].expect("the kernel has such tiles");
    assert!(groups.is_multiple_of(PAIR) && block.codes.len() >= groups / PAIR * BLOCK * GROUP);
    run(function, &[block], groups, digits, tests, out)[0]
}

/// Calls a function for this number of blocks and tests, of which the blocks have the codes it reads.
fn run(
    function: TileFn,
    blocks: &[CodeBlock<'_>],
    groups: usize,
    digits: Digits8<'_>,
    tests: &[Test],
    out: &mut TileOut,
) -> [u32; MAX_BLOCKS] {
    let (first, last) = (blocks[0], blocks[blocks.len() - 1]);
    let queries = tests.len();
    assert!(digits.values.len() >= groups * queries * GROUP && digits.offsets.len() == queries);
    assert!(blocks.iter().all(|block| [block.scales.len(), block.errors.len()] == [BLOCK; 2]));
    let tile = Tile {
        codes: [first.codes.as_ptr(), last.codes.as_ptr()],
        scales: [first.scales.as_ptr(), last.scales.as_ptr()],
        errors: [first.errors.as_ptr(), last.errors.as_ptr()],
        groups,
        panel: digits.values.as_ptr(),
        offsets: digits.offsets.as_ptr(),
        tests: tests.as_ptr(),
        sums: out.sums.as_mut_ptr(),
        passed: out.passed.as_mut_ptr(),
    };
    // SAFETY: the callers checked that the blocks have their codes; factors, digits and offsets were just checked to be as many as the
    // function with this number of blocks and queries reads, and the output has the size of the largest tile's. Kernels are those
    // that the processor was found to have.
    #[allow(unsafe_code)]
    unsafe {
        function(&tile)
    }
}

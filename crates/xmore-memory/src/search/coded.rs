//! Search through the parts' codes: one pass over them bounds every row's score, and only rows that can be among the best are
//! scored exactly.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::bounds::Bounds;
use super::candidates::{Candidate, Candidates, Capacity};
use super::codes::Codes;
use super::codes::kernel::{self, BLOCK, GROUP, Kernel, MAX_BLOCKS, MAX_QUERIES, Sums, Test, Tile};
use super::digits::Digits;
use super::rescore::rescore;
use super::rowset::Filter;
use super::top::Top;
use super::{Counts, SearchPart};

/// Blocks of a unit of parallel work.
const UNIT_BLOCKS: usize = 128;

/// Blocks after which the tests take up risen floors.
const FLOOR_BLOCKS: usize = 8;

/// Queries of one pass over the codes: bounds the working space of a large batch.
pub(super) const PASS_QUERIES: usize = 64;

/// A query with its digits.
pub(super) struct CodedQuery<'q> {
    /// `[dim]`.
    pub values: &'q [f32],
    pub digits: Digits,
}

/// Offers the coded parts' best rows to each query's best, `[q]`, which may hold rows of other parts already. `None` in place of
/// those of a query that the bounds do not decide.
pub(super) fn top_n(
    parts: &[SearchPart<'_>],
    queries: &[CodedQuery<'_>],
    n: usize,
    filter: &Filter<'_>,
    tops: Vec<Top>,
) -> (Vec<Option<Top>>, Counts) {
    top_n_with(kernel::best(), parts, queries, n, filter, tops)
}

/// As [`top_n`], with a given kernel.
pub(super) fn top_n_with(
    kernel: &Kernel,
    parts: &[SearchPart<'_>],
    queries: &[CodedQuery<'_>],
    n: usize,
    filter: &Filter<'_>,
    mut tops: Vec<Top>,
) -> (Vec<Option<Top>>, Counts) {
    let coded: Vec<CodedPart<'_>> = parts
        .iter()
        .filter_map(|part| part.codes.map(|codes| CodedPart { codes, first_id: part.first_id }))
        .collect();
    let units: Vec<Unit> = (0..coded.len()).flat_map(|part| units(&coded[part], part, filter)).collect();
    let rows: usize = coded.iter().map(|part| part.codes.rows()).sum();
    let pass = Pass {
        kernel,
        n,
        filter,
        queries,
        panels: panels(kernel, queries),
        bounds: coded
            .par_iter()
            .map(|part| queries.iter().map(|q| Bounds::new(q.values, &q.digits, part.codes)).collect())
            .collect(),
        parts: coded,
        floors: tops.iter_mut().map(|top| Floor::new(top.floor())).collect(),
        undecided: queries.iter().map(|_| AtomicBool::new(false)).collect(),
        capacity: Capacity::new(n, rows),
    };
    let candidates = pass.run(&units);
    let results: Vec<(Option<Top>, Counts)> = candidates
        .into_par_iter()
        .zip(tops)
        .enumerate()
        .map(|(q, (candidates, top))| {
            if pass.undecided[q].load(Ordering::Relaxed) {
                return (None, Counts::default());
            }
            rescore(parts, queries[q].values, candidates, pass.floors[q].get(), top)
        })
        .collect();
    let counts = results.iter().fold(Counts::default(), |sum, (_, counts)| sum + *counts);
    (results.into_iter().map(|(top, _)| top).collect(), counts)
}

/// A part that has codes.
struct CodedPart<'a> {
    codes: &'a Codes,
    first_id: u64,
}

/// Consecutive blocks of a part.
struct Unit {
    part: usize,
    blocks: Range<usize>,
}

/// The units of a part in which a row may be found.
fn units<'u>(
    part: &'u CodedPart<'_>,
    index: usize,
    filter: &'u Filter<'_>,
) -> impl Iterator<Item = Unit> + 'u {
    (0..part.codes.blocks()).step_by(UNIT_BLOCKS).filter_map(move |start| {
        let blocks = start..part.codes.blocks().min(start + UNIT_BLOCKS);
        let id = |block: usize| part.first_id + (block * BLOCK).min(part.codes.rows()) as u64;
        filter.touches(id(start)..id(blocks.end)).then_some(Unit { part: index, blocks })
    })
}

/// The high digits of a few queries, as a tile reads them.
struct Panel {
    queries: Range<usize>,
    /// `[groups, queries, GROUP]`.
    digits: Vec<i8>,
    /// `[queries]`.
    offsets: Vec<i32>,
}

/// All queries in panels of nearly equal size.
fn panels(kernel: &Kernel, queries: &[CodedQuery<'_>]) -> Vec<Panel> {
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

/// A score that certainly n rows reach, raised by any thread.
struct Floor(AtomicU32);

impl Floor {
    fn new(floor: f32) -> Floor {
        Floor(AtomicU32::new(Self::key(floor)))
    }

    /// Whole numbers in the order of the floats, of which none is NaN.
    fn key(x: f32) -> u32 {
        let bits = x.to_bits();
        if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
    }

    fn get(&self) -> f32 {
        let key = self.0.load(Ordering::Relaxed);
        f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
    }

    fn raise(&self, floor: f32) {
        self.0.fetch_max(Self::key(floor), Ordering::Relaxed);
    }
}

/// One pass over all codes for a few queries.
struct Pass<'a> {
    kernel: &'a Kernel,
    n: usize,
    filter: &'a Filter<'a>,
    queries: &'a [CodedQuery<'a>],
    panels: Vec<Panel>,
    parts: Vec<CodedPart<'a>>,
    /// `[parts][queries]`.
    bounds: Vec<Vec<Bounds>>,
    /// `[queries]`.
    floors: Vec<Floor>,
    /// `[queries]`: whether too many rows could be among the best.
    undecided: Vec<AtomicBool>,
    capacity: Capacity,
}

/// Working space of one thread.
struct State {
    /// `[queries]`.
    candidates: Vec<Candidates>,
    /// `[queries]`, of the part at hand.
    tests: Vec<Test>,
    out: TileOut,
    /// Of the low digits.
    low: TileOut,
}

/// What a tile's function writes, `[blocks, queries]` each.
struct TileOut {
    sums: [Sums; MAX_BLOCKS * MAX_QUERIES],
    /// Bit r: row r of the block passes the query's test.
    passed: [u16; MAX_BLOCKS * MAX_QUERIES],
}

impl TileOut {
    fn new() -> TileOut {
        TileOut { sums: [[0; BLOCK]; MAX_BLOCKS * MAX_QUERIES], passed: [0; MAX_BLOCKS * MAX_QUERIES] }
    }
}

impl Pass<'_> {
    /// All rows that can be among the best, `[queries]`.
    fn run(&self, units: &[Unit]) -> Vec<Vec<Candidate>> {
        // As many states as threads, handed from unit to unit, so that floors rise and lists stay short.
        let states: Mutex<Vec<State>> = Mutex::new(Vec::new());
        let lock = || states.lock().unwrap_or_else(PoisonError::into_inner);
        units.par_iter().for_each(|unit| {
            let free = lock().pop();
            let mut state = free.unwrap_or_else(|| State {
                candidates: self.queries.iter().map(|_| Candidates::new(self.capacity)).collect(),
                tests: vec![Test::default(); self.queries.len()],
                out: TileOut::new(),
                low: TileOut::new(),
            });
            self.scan(unit, &mut state);
            lock().push(state);
        });
        let states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Vec<Candidate>> = self.queries.iter().map(|_| Vec::new()).collect();
        for state in states {
            for (all, candidates) in all.iter_mut().zip(state.candidates) {
                all.append(&mut candidates.into_vec());
            }
        }
        all
    }

    fn scan(&self, unit: &Unit, state: &mut State) {
        let (part, bounds) = (&self.parts[unit.part], &self.bounds[unit.part]);
        for (test, bounds) in state.tests.iter_mut().zip(bounds) {
            *test = bounds.test;
        }
        // One query is read for, many are computed for: two blocks at a time only where a panel is reused.
        let step = if self.queries.len() > self.kernel.queries / 2 { self.kernel.blocks } else { 1 };
        for first in unit.blocks.clone().step_by(step) {
            // A floor that has risen since only lets a few rows more through.
            if (first - unit.blocks.start).is_multiple_of(FLOOR_BLOCKS) {
                for (test, floor) in state.tests.iter_mut().zip(&self.floors) {
                    test.floor = floor.get();
                }
            }
            let blocks = first..unit.blocks.end.min(first + step);
            let masks: [u16; MAX_BLOCKS] = std::array::from_fn(|b| {
                let row = (first + b) * BLOCK;
                let count = part.codes.rows().saturating_sub(row).min(BLOCK);
                if b < blocks.len() { self.filter.block(part.first_id + row as u64, count) } else { 0 }
            });
            if masks == [0; MAX_BLOCKS] {
                continue;
            }
            for panel in &self.panels {
                let tests = &state.tests[panel.queries.clone()];
                let digits = Digits8 { values: &panel.digits, offsets: &panel.offsets };
                let some = run_tile(self.kernel, part.codes, blocks.clone(), digits, tests, &mut state.out);
                for b in 0..blocks.len() {
                    let mut left = if masks[b] == 0 { 0 } else { some[b] };
                    while left != 0 {
                        let q = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let place = b * panel.queries.len() + q;
                        let rows = state.out.passed[place] & masks[b];
                        if rows != 0 {
                            let passed = Passed {
                                part: unit.part,
                                block: first + b,
                                rows,
                                query: panel.queries.start + q,
                                high: state.out.sums[place],
                            };
                            self.refine(&passed, state);
                        }
                    }
                }
            }
        }
    }

    /// Bounds rows with both digits of a query, and keeps those that can be among its best.
    #[inline(never)]
    fn refine(&self, passed: &Passed, state: &mut State) {
        let query = passed.query;
        if self.undecided[query].load(Ordering::Relaxed) {
            return;
        }
        let (bounds, part) = (&self.bounds[passed.part][query], &self.parts[passed.part]);
        let digits = &self.queries[query].digits;
        let low = Digits8 { values: &digits.low, offsets: &[digits.low_offset] };
        run_tile(
            self.kernel,
            part.codes,
            passed.block..passed.block + 1,
            low,
            &[bounds.test],
            &mut state.low,
        );
        let (low, factors) = (&state.low.sums[0], part.codes.block(passed.block));
        let (floor, candidates) = (&self.floors[query], &mut state.candidates[query]);
        let mut left = passed.rows;
        while left != 0 {
            let r = left.trailing_zeros() as usize;
            left &= left - 1;
            let (lower, upper) = bounds.of(passed.high[r], low[r], factors.scales[r], factors.errors[r]);
            if upper < floor.get() {
                continue;
            }
            let id = part.first_id + (passed.block * BLOCK + r) as u64;
            candidates.push(Candidate { id, lower, upper });
            if !candidates.is_full() {
                continue;
            }
            // A higher floor shortens the list, and if it does not, the bounds do not decide.
            floor.raise(candidates.floor(self.n));
            if !candidates.prune(floor.get()) {
                self.undecided[query].store(true, Ordering::Relaxed);
                floor.raise(f32::INFINITY);
                candidates.clear();
                return;
            }
        }
    }
}

/// Rows of a block that pass a query's test.
struct Passed {
    part: usize,
    block: usize,
    /// A bit each.
    rows: u16,
    query: usize,
    /// The block's sums with the query's high digits.
    high: Sums,
}

/// One digit of some queries: `[groups, queries, GROUP]` values, and what each query's sums start from.
struct Digits8<'a> {
    values: &'a [i8],
    offsets: &'a [i32],
}

/// Computes the sums of one or two blocks with some queries, and which of them have a row that passes.
fn run_tile(
    kernel: &Kernel,
    codes: &Codes,
    blocks: Range<usize>,
    digits: Digits8<'_>,
    tests: &[Test],
    out: &mut TileOut,
) -> [u32; MAX_BLOCKS] {
    let (groups, queries) = (codes.dim().div_ceil(GROUP), tests.len());
    assert_eq!((digits.values.len(), digits.offsets.len()), (groups * queries * GROUP, queries));
    let function = kernel.tiles[blocks.len() - 1][queries - 1].expect("the kernel has such tiles");
    let first = codes.block(blocks.start);
    let last = codes.block(blocks.end - 1);
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
    // SAFETY: a block has all its codes and factors; digits and offsets were just checked to be as many as the function with this
    // number of blocks and queries reads, and the output has the size of the largest tile's. Kernels are those that the processor
    // was found to have.
    #[allow(unsafe_code)]
    unsafe {
        function(&tile)
    }
}

#[cfg(test)]
#[path = "coded_tests.rs"]
mod tests;

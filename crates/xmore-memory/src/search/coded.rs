//! Search through the parts' codes: one pass over them bounds every row's score, and only rows that can be among the best are
//! scored exactly.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::bounds::Bounds;
use super::candidates::{Candidate, Candidates, Capacity, nth_lower};
use super::codes::kernel::{self, BLOCK, Kernel, MAX_BLOCKS, Sums, Test};
use super::codes::{CodeBlock, Codes};
use super::digits::Digits;
use super::first_look::When;
use super::rescore::rescore;
use super::rowset::Filter;
use super::tiles::{BlockBuffers, Digits8, Panel, TileOut, panels, run_tile};
use super::top::Top;
use super::{Counts, SearchPart};

/// Blocks of a unit of parallel work.
pub(super) const UNIT_BLOCKS: usize = 128;

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
    top_n_with(kernel::best(), When::Pays, parts, queries, n, filter, tops)
}

/// As [`top_n`], with a given kernel, and a first look when it is said.
pub(super) fn top_n_with(
    kernel: &Kernel,
    look: When,
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
        look,
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
pub(super) struct CodedPart<'a> {
    pub codes: &'a Codes,
    pub first_id: u64,
}

/// Consecutive blocks of a part.
pub(super) struct Unit {
    pub part: usize,
    pub blocks: Range<usize>,
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

/// A score that certainly n rows reach, raised by any thread.
pub(super) struct Floor(AtomicU32);

impl Floor {
    fn new(floor: f32) -> Floor {
        Floor(AtomicU32::new(Self::key(floor)))
    }

    /// Whole numbers in the order of the floats, of which none is NaN.
    fn key(x: f32) -> u32 {
        let bits = x.to_bits();
        if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
    }

    pub(super) fn get(&self) -> f32 {
        let key = self.0.load(Ordering::Relaxed);
        f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
    }

    pub(super) fn raise(&self, floor: f32) {
        self.0.fetch_max(Self::key(floor), Ordering::Relaxed);
    }
}

/// One pass over all codes for a few queries.
pub(super) struct Pass<'a> {
    pub kernel: &'a Kernel,
    pub look: When,
    pub n: usize,
    pub filter: &'a Filter<'a>,
    pub queries: &'a [CodedQuery<'a>],
    pub panels: Vec<Panel>,
    pub parts: Vec<CodedPart<'a>>,
    /// `[parts][queries]`.
    pub bounds: Vec<Vec<Bounds>>,
    /// `[queries]`.
    pub floors: Vec<Floor>,
    /// `[queries]`: whether too many rows could be among the best.
    pub undecided: Vec<AtomicBool>,
    pub capacity: Capacity,
}

/// Working space of one thread.
pub(super) struct State {
    /// `[queries]`.
    pub candidates: Vec<Candidates>,
    /// `[queries]`, of the part at hand.
    pub tests: Vec<Test>,
    pub out: TileOut,
    /// Of the low digits.
    pub low: TileOut,
    pub buffers: BlockBuffers,
}

impl State {
    pub(super) fn new(pass: &Pass<'_>) -> State {
        State {
            candidates: pass.queries.iter().map(|_| Candidates::new(pass.capacity)).collect(),
            tests: vec![Test::default(); pass.queries.len()],
            out: TileOut::new(),
            low: TileOut::new(),
            buffers: BlockBuffers::default(),
        }
    }
}

/// As many states as threads, handed from unit to unit, so that floors rise and lists stay short.
#[derive(Default)]
pub(super) struct States(Mutex<Vec<State>>);

impl States {
    /// Has `work` done with one that no other thread has.
    pub(super) fn lend(&self, pass: &Pass<'_>, work: impl FnOnce(&mut State)) {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = lock().pop();
        let mut state = free.unwrap_or_else(|| State::new(pass));
        work(&mut state);
        lock().push(state);
    }

    /// Scores that `n` rows of all candidates certainly reach, `[queries]`.
    pub(super) fn floors(&self, pass: &Pass<'_>, n: usize) -> Vec<f32> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |q: usize| {
            let all: Vec<&[Candidate]> = states.iter().map(|state| state.candidates[q].as_slice()).collect();
            nth_lower(&all.concat(), n)
        };
        (0..pass.queries.len()).map(of).collect()
    }
}

impl Pass<'_> {
    /// All rows that can be among the best, `[queries]`.
    fn run(&self, units: &[Unit]) -> Vec<Vec<Candidate>> {
        let states = States::default();
        if !self.looks(units, &states) {
            units.par_iter().for_each(|unit| states.lend(self, |state| self.scan(unit, state)));
        }
        let states = states.0.into_inner().unwrap_or_else(PoisonError::into_inner);
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
                self.take_floors(&mut state.tests);
            }
            let blocks = first..unit.blocks.end.min(first + step);
            let masks: [u16; MAX_BLOCKS] =
                std::array::from_fn(|b| if b < blocks.len() { self.mask(part, first + b) } else { 0 });
            if masks == [0; MAX_BLOCKS] {
                continue;
            }
            self.bound(unit.part, blocks, masks, state);
        }
    }

    /// Bounds the rows of one block.
    pub(super) fn read_block(&self, part: usize, block: usize, state: &mut State) {
        for (test, bounds) in state.tests.iter_mut().zip(&self.bounds[part]) {
            *test = bounds.test;
        }
        self.take_floors(&mut state.tests);
        self.bound(part, block..block + 1, [self.mask(&self.parts[part], block), 0], state);
    }

    /// Has the tests take up floors that have risen.
    fn take_floors(&self, tests: &mut [Test]) {
        for (test, floor) in tests.iter_mut().zip(&self.floors) {
            test.floor = floor.get();
        }
    }

    /// Which rows of a block may be found, a bit each.
    pub(super) fn mask(&self, part: &CodedPart<'_>, block: usize) -> u16 {
        let row = block * BLOCK;
        let count = part.codes.rows().saturating_sub(row).min(BLOCK);
        self.filter.block(part.first_id + row as u64, count)
    }

    /// Bounds the rows of one or two blocks with the high digits of all queries, and refines those that pass a test.
    fn bound(&self, part: usize, blocks: Range<usize>, masks: [u16; MAX_BLOCKS], state: &mut State) {
        let codes = self.parts[part].codes;
        let mut buffers = std::mem::take(&mut state.buffers);
        let [first_buffer, last_buffer] = buffers.of(codes.groups());
        let first = codes.block(blocks.start, self.kernel, first_buffer);
        let last =
            if blocks.len() > 1 { codes.block(blocks.end - 1, self.kernel, last_buffer) } else { first };
        let both = [first, last];
        for panel in &self.panels {
            let (tests, given) = (&state.tests[panel.queries.clone()], &both[..blocks.len()]);
            let some = run_tile(self.kernel, given, codes.groups(), panel.digits(), tests, &mut state.out);
            for b in 0..blocks.len() {
                let mut left = if masks[b] == 0 { 0 } else { some[b] };
                while left != 0 {
                    let q = left.trailing_zeros() as usize;
                    left &= left - 1;
                    let place = b * panel.queries.len() + q;
                    let rows = state.out.passed[place] & masks[b];
                    if rows != 0 {
                        let passed = Passed {
                            part,
                            block: blocks.start + b,
                            codes: both[b],
                            rows,
                            query: panel.queries.start + q,
                            high: state.out.sums[place],
                        };
                        self.refine(&passed, state);
                    }
                }
            }
        }
        state.buffers = buffers;
    }

    /// Bounds rows with both digits of a query, and keeps those that can be among its best.
    #[inline(never)]
    fn refine(&self, passed: &Passed<'_>, state: &mut State) {
        let query = passed.query;
        if self.undecided[query].load(Ordering::Relaxed) {
            return;
        }
        let (bounds, part) = (&self.bounds[passed.part][query], &self.parts[passed.part]);
        let (digits, codes) = (&self.queries[query].digits, passed.codes);
        let low = Digits8 { values: &digits.low, offsets: &[digits.low_offset] };
        run_tile(self.kernel, &[codes], part.codes.groups(), low, &[bounds.test], &mut state.low);
        let low = &state.low.sums[0];
        let (floor, candidates) = (&self.floors[query], &mut state.candidates[query]);
        let mut left = passed.rows;
        while left != 0 {
            let r = left.trailing_zeros() as usize;
            left &= left - 1;
            let (lower, upper) = bounds.of(passed.high[r], low[r], codes.scales[r], codes.errors[r]);
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
struct Passed<'a> {
    part: usize,
    block: usize,
    codes: CodeBlock<'a>,
    /// A bit each.
    rows: u16,
    query: usize,
    /// The block's sums with the query's high digits.
    high: Sums,
}

#[cfg(test)]
#[path = "coded_tests.rs"]
mod tests;

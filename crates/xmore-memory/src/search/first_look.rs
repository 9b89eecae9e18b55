//! A first look at a few queries' rows: the high halves of codes, half of all bytes, bound every row's score loosely, and only
//! blocks with a row that can be among the best are read whole.
//!
//! Floors come before what they exclude: the blocks whose bounds are highest are read first, and their rows' bounds by whole codes give
//! nearly the floor that the whole search ends with. All that is left out has an upper bound below a floor that n rows certainly reach,
//! so what is found does not depend on which blocks are read first, nor on whether there is a first look.

use rayon::prelude::*;

use super::coded::{Floor, Pass, States, UNIT_BLOCKS, Unit};
use super::codes::kernel::{BLOCK, Test};
use super::tiles::{TileOut, run_halves};

/// Queries that a first look is for, at most: reading takes longer than computing for so few.
pub(super) const MOST_QUERIES: usize = 8;

/// Of so many units one is looked at to see whether a look at all of them pays.
const SAMPLE: usize = 32;

/// When there is a first look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Where a sample says that it pays.
    Pays,
    /// Wherever it can be.
    #[cfg(test)]
    Always,
}

/// Blocks that are handed out together.
const LOT: usize = 32;

/// What the scores of a block's rows are at most, once the block has been read or if none of its rows may be found.
const NOTHING: f32 = f32::NEG_INFINITY;

/// What the scores of all blocks' rows are at most.
struct Uppers<'u> {
    units: &'u [Unit],
    queries: usize,
    /// `[units, UNIT_BLOCKS, queries]`.
    values: Vec<f32>,
}

impl Uppers<'_> {
    /// Place of every block, and its values, `[queries]`.
    fn blocks(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.values.chunks_exact(self.queries).enumerate()
    }

    /// The unit and the block at a place.
    fn at(&self, place: usize) -> (&Unit, usize) {
        let unit = &self.units[place / UNIT_BLOCKS];
        (unit, unit.blocks.start + place % UNIT_BLOCKS)
    }

    /// Blocks that have not been read and have a row that can reach the floor of some query.
    fn reaching(&self, floors: &[f32]) -> Vec<usize> {
        let reaches = |(upper, floor): (&f32, &f32)| upper >= floor && *upper > NOTHING;
        let blocks = self.blocks().filter(|(_, uppers)| uppers.iter().zip(floors).any(reaches));
        blocks.map(|(place, _)| place).collect()
    }
}

impl Pass<'_> {
    /// Looks at the high halves first and then at those blocks that matter. `false`, and nothing is done, if that would not pay.
    pub(super) fn looks(&self, units: &[Unit], states: &States) -> bool {
        let queries = self.queries.len();
        let few = queries <= MOST_QUERIES && self.panels.len() == 1;
        if !few || units.is_empty() || !self.parts.iter().all(|part| part.codes.has_halves()) {
            return false;
        }
        let values = vec![NOTHING; units.len() * UNIT_BLOCKS * queries];
        let mut uppers = Uppers { units, queries, values };
        self.look(&mut uppers, |unit| unit.is_multiple_of(SAMPLE));
        if self.look == When::Pays && !self.pays(&uppers) {
            return false;
        }
        self.look(&mut uppers, |unit| !unit.is_multiple_of(SAMPLE));
        let floors = self.read_highest(&mut uppers, self.n, states);
        for (floor, reached) in self.floors.iter().zip(floors) {
            floor.raise(reached);
        }
        let floors: Vec<f32> = self.floors.iter().map(Floor::get).collect();
        self.read(&uppers, &uppers.reaching(&floors), states);
        true
    }

    /// Whether few enough blocks of those looked at so far matter: those that do are read twice, and not in order.
    fn pays(&self, sample: &Uppers<'_>) -> bool {
        let mut sample = Uppers { values: sample.values.clone(), ..*sample };
        let all = sample.reaching(&[NOTHING; MOST_QUERIES]).len();
        // What n rows of all reach, some n / SAMPLE rows of the sample do.
        let floors = self.read_highest(&mut sample, self.n.div_ceil(SAMPLE), &States::default());
        3 * sample.reaching(&floors).len() <= all
    }

    /// Bounds the blocks of some units by their high halves.
    fn look(&self, uppers: &mut Uppers<'_>, chosen: impl Fn(usize) -> bool + Sync) {
        let stride = UNIT_BLOCKS * uppers.queries;
        let of_units = uppers.values.par_chunks_exact_mut(stride).zip(uppers.units).enumerate();
        of_units.filter(|(place, _)| chosen(*place)).for_each(|(_, (uppers, unit))| {
            let (codes, mut out) = (self.parts[unit.part].codes, TileOut::new());
            let blocks = unit.blocks.clone().zip(uppers.chunks_exact_mut(self.queries.len()));
            for (block, uppers) in blocks {
                if block + 1 < codes.blocks() {
                    codes.prefetch_high(block + 1);
                }
                self.look_at(unit.part, block, uppers, &mut out);
            }
        });
    }

    /// Bounds a block for each query.
    fn look_at(&self, part: usize, block: usize, uppers: &mut [f32], out: &mut TileOut) {
        let codes = self.parts[part].codes;
        let mask = self.mask(&self.parts[part], block);
        if mask == 0 {
            return;
        }
        let mut tests = [Test::default(); MOST_QUERIES];
        let tests = &mut tests[..self.queries.len()];
        for (test, bounds) in tests.iter_mut().zip(&self.bounds[part]) {
            *test = bounds.test_of_halves;
        }
        let halves = codes.high(block);
        run_halves(self.kernel, halves, codes.groups(), self.panels[0].digits(), tests, out);
        for ((upper, test), sums) in uppers.iter_mut().zip(&*tests).zip(&out.sums) {
            let of = |r: usize| test.upper(sums[r], halves.scales[r], halves.errors[r]);
            *upper = largest(std::array::from_fn(of), mask);
        }
    }

    /// Reads some `n` blocks with the highest bounds for each query; the scores that n rows then certainly reach, `[queries]`.
    fn read_highest(&self, uppers: &mut Uppers<'_>, n: usize, states: &States) -> Vec<f32> {
        let mut places = Vec::new();
        for q in 0..uppers.queries {
            let mut values: Vec<f32> = uppers.blocks().map(|(_, uppers)| uppers[q]).collect();
            let least = if n < values.len() {
                *values.select_nth_unstable_by(n, |a, b| b.total_cmp(a)).1
            } else {
                NOTHING
            };
            let blocks = uppers.values.chunks_exact_mut(uppers.queries).enumerate();
            for (place, uppers) in blocks.filter(|(_, u)| u[q] >= least && u[q] > NOTHING) {
                places.push(place);
                uppers.fill(NOTHING);
            }
        }
        self.read(uppers, &places, states);
        states.floors(self, n)
    }

    /// Bounds the rows of blocks by their whole codes.
    fn read(&self, uppers: &Uppers<'_>, places: &[usize], states: &States) {
        let read = |lot: &[usize], state: &mut _| {
            for (i, &place) in lot.iter().enumerate() {
                if let Some(&next) = lot.get(i + 1) {
                    let (unit, block) = uppers.at(next);
                    self.parts[unit.part].codes.prefetch(block);
                }
                let (unit, block) = uppers.at(place);
                self.read_block(unit.part, block, state);
            }
        };
        places.par_chunks(LOT).for_each(|lot| states.lend(self, |state| read(lot, state)));
    }
}

/// The largest of the rows' bounds that the mask has, infinity if one of these is NaN, which excludes nothing.
fn largest(bounds: [f32; BLOCK], mask: u16) -> f32 {
    // Four at a time, so that it needs few instructions everywhere.
    let mut largest = [f32::MIN; 4];
    for (i, four) in bounds.chunks_exact(4).enumerate() {
        let mask = mask >> (4 * i) & 15;
        for r in 0..4 {
            let bound = if four[r].is_nan() { f32::INFINITY } else { four[r] };
            let bound = if mask == 15 || mask >> r & 1 == 1 { bound } else { f32::MIN };
            largest[r] = if bound > largest[r] { bound } else { largest[r] };
        }
    }
    largest.into_iter().fold(f32::MIN, f32::max)
}

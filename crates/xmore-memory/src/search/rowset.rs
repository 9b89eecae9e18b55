//! Sets of rows that a search is confined to.

use std::ops::Range;

use super::codes::kernel::BLOCK;

/// A set of pair ids below a bound: a bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    rows: u64,
    len: u64,
}

impl RowSet {
    /// An empty set of ids below `rows`, usually [`Memory::len`](crate::Memory::len). Takes a bit for each.
    pub fn new(rows: u64) -> RowSet {
        RowSet { words: vec![0; rows.div_ceil(64) as usize], rows, len: 0 }
    }

    /// The ids below `rows` for which `allowed` is true.
    pub fn from_fn(rows: u64, mut allowed: impl FnMut(u64) -> bool) -> RowSet {
        let mut set = RowSet::new(rows);
        for id in 0..rows {
            if allowed(id) {
                set.insert(id);
            }
        }
        set
    }

    /// Puts an id in. Returns whether it is new; an id that is not below the set's bound is not put in.
    pub fn insert(&mut self, id: u64) -> bool {
        let new = id < self.rows && !self.contains(id);
        if new {
            self.words[(id / 64) as usize] |= 1 << (id % 64);
            self.len += 1;
        }
        new
    }

    /// Whether an id is in the set.
    pub fn contains(&self, id: u64) -> bool {
        self.words.get((id / 64) as usize).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Number of ids in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no id is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bit j says whether id `first + j` is in the set, for 64 of them.
    fn word_at(&self, first: u64) -> u64 {
        let (index, shift) = ((first / 64) as usize, first % 64);
        let word = |i: usize| self.words.get(i).copied().unwrap_or(0);
        let high = if shift == 0 { 0 } else { word(index + 1) << (64 - shift) };
        word(index) >> shift | high
    }
}

/// Which rows a search may find.
#[derive(Debug, Clone)]
pub(super) struct Filter<'a> {
    pub rows: Range<u64>,
    pub allowed: Option<&'a RowSet>,
}

impl Filter<'_> {
    /// Bit j says whether row `first + j` may be found, for the `count` rows (at most [`BLOCK`]) from `first` on.
    pub fn block(&self, first: u64, count: usize) -> u16 {
        let all = match self.allowed {
            Some(set) => set.word_at(first),
            None => u64::MAX,
        };
        let end = self.rows.end.min(first + count as u64);
        let low = |n: u64| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
        let (skipped, kept) = (self.rows.start.saturating_sub(first), end.saturating_sub(first));
        const { assert!(BLOCK == u16::BITS as usize) };
        (all & low(kept.min(BLOCK as u64)) & !low(skipped)) as u16
    }

    /// Whether any of the rows in `range` could be found, as far as the range of rows says.
    pub fn touches(&self, range: Range<u64>) -> bool {
        self.rows.start.max(range.start) < self.rows.end.min(range.end)
    }

    /// Whether every row in `range` may be found.
    pub fn is_open(&self, range: Range<u64>) -> bool {
        self.allowed.is_none() && self.rows.start <= range.start && range.end <= self.rows.end
    }

    /// An upper bound on the number of rows that may be found among `total`.
    pub fn at_most(&self, total: u64) -> u64 {
        let rows = self.rows.end.saturating_sub(self.rows.start).min(total);
        self.allowed.map_or(rows, |set| rows.min(set.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_block_of_the_filter_is_what_asking_for_each_row_says(
            bits in prop::collection::vec(any::<bool>(), 0..300),
            first in 0u64..320, count in 0usize..=BLOCK, start in 0u64..320, length in 0u64..320, with_set: bool,
        ) {
            let set = RowSet::from_fn(bits.len() as u64, |id| bits[id as usize]);
            prop_assert_eq!(set.len(), bits.iter().filter(|&&b| b).count() as u64);
            let filter = Filter { rows: start..start + length, allowed: with_set.then_some(&set) };
            let mask = filter.block(first, count);
            for j in 0..BLOCK as u64 {
                let id = first + j;
                let allowed = !with_set || bits.get(id as usize).copied().unwrap_or(false);
                let expected = j < count as u64 && filter.rows.contains(&id) && allowed;
                prop_assert_eq!(mask >> j & 1 == 1, expected, "row {}", id);
            }
        }
    }

    #[test]
    fn an_id_counts_once_and_only_below_the_bound() {
        let mut set = RowSet::new(70);
        assert!(set.is_empty());
        assert_eq!(
            [set.insert(69), set.insert(69), set.insert(70), set.insert(u64::MAX)],
            [true, false, false, false]
        );
        assert_eq!((set.len(), set.contains(69), set.contains(70)), (1, true, false));
    }
}

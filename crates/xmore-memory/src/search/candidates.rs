//! The rows that can still be among the n best of a query, in bounded space.

/// A row and what its exact score is at least and at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub id: u64,
    pub lower: f32,
    pub upper: f32,
}

/// How many candidates a list holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// Before it is first pruned.
    start: usize,
    /// At most: with more of them, scoring each is slower than reading every row in order.
    limit: usize,
}

impl Capacity {
    /// For the `n` best of `rows`.
    pub fn new(n: usize, rows: usize) -> Capacity {
        let start = (4 * n).max(512);
        Capacity { start, limit: (rows / 64).clamp(4096, 65_536).max(2 * start) }
    }
}

/// The candidates that one thread has found for one query.
#[derive(Debug)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    capacity: usize,
    limit: usize,
}

impl Candidates {
    pub fn new(capacity: Capacity) -> Candidates {
        Candidates { list: Vec::new(), capacity: capacity.start, limit: capacity.limit }
    }

    /// The caller prunes a list that is full.
    pub fn push(&mut self, candidate: Candidate) {
        self.list.push(candidate);
    }

    pub fn is_full(&self) -> bool {
        self.list.len() >= self.capacity
    }

    /// A score that n rows certainly reach, if there are as many.
    pub fn floor(&self, n: usize) -> f32 {
        nth_lower(&self.list, n)
    }

    /// Drops those that do not reach the floor. `false` if too many do.
    pub fn prune(&mut self, floor: f32) -> bool {
        self.list.retain(|c| c.upper >= floor);
        // Pruning again at once would find nothing: each costs as much as the list is long.
        if self.list.len() > self.capacity / 2 {
            self.capacity *= 2;
        }
        self.capacity <= self.limit
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    pub fn as_slice(&self) -> &[Candidate] {
        &self.list
    }

    pub fn into_vec(self) -> Vec<Candidate> {
        self.list
    }
}

/// The n-th largest lower bound, negative infinity if there are fewer; n is not 0.
pub(super) fn nth_lower(candidates: &[Candidate], n: usize) -> f32 {
    if candidates.len() < n {
        return f32::NEG_INFINITY;
    }
    let mut lower: Vec<f32> = candidates.iter().map(|c| c.lower).collect();
    *lower.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the exact scores between the bounds turn out to be, the n best are all kept.
        #[test]
        fn no_row_that_can_be_among_the_best_is_dropped(
            rows in prop::collection::vec((-1.0f32..1.0, 0.0f32..0.1, 0.0f32..=1.0), 1..3000), n in 1usize..40,
        ) {
            let mut candidates = Candidates::new(Capacity::new(n, rows.len()));
            let mut scored = Vec::new();
            let mut floor = f32::NEG_INFINITY;
            for (id, &(lower, width, at)) in rows.iter().enumerate() {
                let (id, upper) = (id as u64, lower + width);
                scored.push(((lower + at * width).clamp(lower, upper), id));
                if upper >= floor {
                    candidates.push(Candidate { id, lower, upper });
                }
                if candidates.is_full() {
                    floor = floor.max(candidates.floor(n));
                    prop_assert!(candidates.prune(floor));
                }
            }
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let kept: std::collections::HashSet<u64> = candidates.into_vec().iter().map(|c| c.id).collect();
            prop_assert!(scored.iter().take(n).all(|(_, id)| kept.contains(id)));
        }
    }

    #[test]
    fn a_list_that_no_floor_can_shorten_is_too_long_in_the_end() {
        let mut candidates = Candidates::new(Capacity::new(10, 1_000_000));
        let (mut pushed, mut fits) = (0, true);
        while fits {
            candidates.push(Candidate { id: pushed, lower: 0.0, upper: 1.0 });
            pushed += 1;
            if candidates.is_full() {
                let floor = candidates.floor(10);
                fits = candidates.prune(floor);
            }
        }
        assert!((4096..=65_536).contains(&pushed), "{pushed}");
    }
}

//! The n best hits of a stream, in bounded space.

use std::cmp::Ordering;

use super::Hit;

/// Hits beyond n that are held before the worst are dropped, at least: a selection now and then costs less than a heap's path for each
/// hit that is kept, above all for a large n.
const SLACK: usize = 64;

/// Keeps the `n` best hits offered to it. Which ones are kept depends only on what was offered, not on the order,
/// since no two hits are equal: ids differ.
#[derive(Debug)]
pub(super) struct Top {
    n: usize,
    /// The best, and some more.
    hits: Vec<Hit>,
    /// How many are held before the worst are dropped.
    capacity: usize,
    /// Similarity below which a hit is certainly not kept.
    floor: f32,
}

/// From best to worst.
fn order(a: &Hit, b: &Hit) -> Ordering {
    b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id))
}

impl Top {
    /// Will keep at most `n`, which must not be 0.
    pub fn new(n: usize) -> Top {
        let capacity = n.saturating_add((n / 2).max(SLACK));
        Top { n, hits: Vec::new(), capacity, floor: f32::NEG_INFINITY }
    }

    /// How many are kept at most.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Similarity below which a hit is certainly not kept: the worst one's, if there are n.
    pub fn floor(&mut self) -> f32 {
        self.drop_worst();
        self.floor
    }

    /// Offers a hit. A NaN similarity is never kept.
    #[inline]
    pub fn offer(&mut self, id: u64, similarity: f32) {
        // The comparison is false for a NaN. Nearly all hits of a long scan end here.
        if similarity >= self.floor {
            // Adding 0 makes -0 and 0 one number, as they are in a comparison; total_cmp tells them apart.
            self.hits.push(Hit { id, similarity: similarity + 0.0 });
            if self.hits.len() >= self.capacity {
                self.drop_worst();
            }
        }
    }

    /// Drops all but the n best.
    fn drop_worst(&mut self) {
        if self.hits.len() >= self.n {
            let (_, worst, _) = self.hits.select_nth_unstable_by(self.n - 1, order);
            self.floor = worst.similarity;
            self.hits.truncate(self.n);
        }
    }

    /// Takes in all that another has kept.
    pub fn merge(&mut self, other: Top) {
        for hit in other.hits {
            self.offer(hit.id, hit.similarity);
        }
    }

    /// The hits kept, best first.
    pub fn into_hits(mut self) -> Vec<Hit> {
        self.drop_worst();
        self.hits.sort_unstable_by(order);
        self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_keeps_what_sorting_would(
            similarities in prop::collection::vec(prop_oneof![(-3i8..3).prop_map(f32::from), Just(-0.0), Just(f32::NAN)], 0..60),
            n in 1usize..20, split in any::<prop::sample::Index>(),
        ) {
            let mut sorted: Vec<Hit> = similarities
                .iter()
                .enumerate()
                .map(|(i, &similarity)| Hit { id: i as u64, similarity })
                .filter(|h| !h.similarity.is_nan())
                .collect();
            sorted.sort_by(|a, b| b.similarity.partial_cmp(&a.similarity).unwrap().then(a.id.cmp(&b.id)));
            sorted.truncate(n);

            let split = split.index(similarities.len() + 1);
            let (mut first, mut second) = (Top::new(n), Top::new(n));
            for (i, &similarity) in similarities.iter().enumerate() {
                let half = if i < split { &mut first } else { &mut second };
                half.offer(i as u64, similarity);
            }
            second.merge(first);
            prop_assert_eq!(second.into_hits(), sorted);
        }
    }
}

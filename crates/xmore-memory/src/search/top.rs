//! The n best hits of a stream, in bounded space.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Hit;

/// Keeps the `n` best hits offered to it. Which ones are kept depends only on what was offered, not on the order,
/// since no two hits are equal: ids differ.
#[derive(Debug)]
pub(super) struct Top {
    n: usize,
    /// The worst hit kept is on top.
    heap: BinaryHeap<Worst>,
    /// Similarity below which a hit is certainly not kept.
    floor: f32,
}

/// Orders hits from best to worst, so that the greatest is the worst.
#[derive(Debug)]
struct Worst(Hit);

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.similarity.total_cmp(&self.0.similarity).then(self.0.id.cmp(&other.0.id))
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worst {}

impl Top {
    /// Will keep at most `n`, which must not be 0.
    pub fn new(n: usize) -> Top {
        Top { n, heap: BinaryHeap::new(), floor: f32::NEG_INFINITY }
    }

    /// How many are kept at most.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Similarity below which a hit is certainly not kept: the worst one's, if there are n.
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// Offers a hit. A NaN similarity is never kept.
    #[inline]
    pub fn offer(&mut self, id: u64, similarity: f32) {
        // The comparison is false for a NaN. Nearly all hits of a long scan end here.
        if similarity >= self.floor {
            // Adding 0 makes -0 and 0 one number, as they are in a comparison; total_cmp tells them apart.
            self.keep(Worst(Hit { id, similarity: similarity + 0.0 }));
        }
    }

    fn keep(&mut self, hit: Worst) {
        if self.heap.len() < self.n {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
        if self.heap.len() == self.n
            && let Some(worst) = self.heap.peek()
        {
            self.floor = worst.0.similarity;
        }
    }

    /// Takes in all that another has kept.
    pub fn merge(&mut self, other: Top) {
        for Worst(hit) in other.heap {
            self.offer(hit.id, hit.similarity);
        }
    }

    /// The hits kept, best first.
    pub fn into_hits(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|Worst(hit)| hit).collect()
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

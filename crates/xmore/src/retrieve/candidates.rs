//! The second stage of one query image: captions without duplicates, scored, the K best kept.

use std::collections::HashSet;

use super::{Ranking, RetrievalOptions, RetrievedCaption};
use crate::math::dot;

/// The second stage of one query.
pub(super) struct Candidates {
    options: RetrievalOptions,
    seen: HashSet<String>,
    candidates: Vec<(usize, RetrievedCaption, Vec<f32>)>,
}

impl Candidates {
    pub(super) fn new(options: RetrievalOptions) -> Self {
        Self { options, seen: HashSet::new(), candidates: Vec::new() }
    }

    /// Whether the caption is new and its image is not the query itself.
    pub(super) fn wants(&mut self, caption: &str, image_similarity: f32) -> bool {
        !self.options.is_query(image_similarity)
            && !self.seen.contains(caption)
            && self.seen.insert(caption.to_owned())
    }

    /// Adds a caption, the place of its pair among those found, and its embedding by the model that ranks.
    pub(super) fn add(&mut self, place: usize, caption: RetrievedCaption, embedding: Vec<f32>) {
        self.candidates.push((place, caption, embedding));
    }

    /// The K best with the places of their pairs, best first, ties by id.
    pub(super) fn best(mut self) -> Vec<(usize, RetrievedCaption)> {
        let order = |(_, a, _): &(usize, RetrievedCaption, _), (_, b, _): &(usize, RetrievedCaption, _)| {
            b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id))
        };
        // Offered they are in the order of their images.
        if self.options.ranking != Ranking::ByImage {
            self.candidates.sort_by(order);
        }
        let mut kept: Vec<(usize, RetrievedCaption, Vec<f32>)> = Vec::with_capacity(self.options.k);
        for candidate in self.candidates {
            let near = |limit: f32| kept.iter().any(|(_, _, embedding)| dot(embedding, &candidate.2) > limit);
            if self.options.near_duplicates_above.is_some_and(near) {
                continue;
            }
            kept.push(candidate);
            if kept.len() == self.options.k {
                break;
            }
        }
        kept.into_iter().map(|(place, caption, _)| (place, caption)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(options: RetrievalOptions, offered: &[(u64, &str, f32, [f32; 2])]) -> Vec<u64> {
        let mut candidates = Candidates::new(options);
        for (id, caption, image_similarity, embedding) in offered {
            if candidates.wants(caption, *image_similarity) {
                let caption = RetrievedCaption {
                    id: *id,
                    caption: (*caption).to_owned(),
                    image_path: String::new(),
                    similarity: dot(&[1.0, 0.0], embedding),
                    image_similarity: *image_similarity,
                };
                candidates.add(0, caption, embedding.to_vec());
            }
        }
        candidates.best().into_iter().map(|(_, caption)| caption.id).collect()
    }

    #[test]
    fn captions_are_ranked_and_duplicates_left_out() {
        let offered = [
            (7, "the query itself", 0.9999, [1.0, 0.0]),
            (3, "a", 0.9, [0.6, 0.8]),
            (4, "a", 0.8, [0.6, 0.8]),
            (9, "b", 0.7, [0.8, 0.6]),
            (2, "nearly b", 0.6, [0.8, 0.6]),
            (5, "c", 0.5, [0.0, 1.0]),
        ];
        let all = RetrievalOptions { k: 10, ..Default::default() };
        assert_eq!(
            ids(all, &offered),
            [7, 2, 9, 3, 5],
            "by similarity, equal ones by id, the first of equal texts"
        );
        let strict =
            RetrievalOptions { query_duplicates_above: Some(0.99), near_duplicates_above: Some(0.97), ..all };
        assert_eq!(ids(strict, &offered), [2, 3, 5]);
        assert_eq!(ids(RetrievalOptions { k: 2, ..all }, &offered), [7, 2]);
        let by_image = RetrievalOptions { ranking: Ranking::ByImage, ..all };
        assert_eq!(ids(by_image, &offered), [7, 3, 9, 2, 5], "as offered, duplicates left out");
    }
}

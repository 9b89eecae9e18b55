//! Support by names: captions name a label, and the model finds the label in their images.

use rayon::prelude::*;

use super::references::{Images, Pairs};
use super::trust::share_of_wins;
use super::{mean_row, ramp};
use crate::error::Result;
use crate::labels::Labels;
use crate::math::dot;
use crate::mentions::find_mentions;

/// Images of which a label's support and prototype are made at most.
const IMAGES_OF_LABEL: usize = 1024;
/// Images that support counts as one label's share of trust: n / (n + 3).
const FEW: f64 = 3.0;
/// Share of comparisons with other images that the label's images win, below which nothing is trusted, and from which all is.
const TRUSTED_WINS: [f64; 2] = [0.6, 0.8];

/// What captions that name labels show of them.
pub(super) struct Named {
    /// For each label the images that name it, the same ones for the same memory.
    pub images: Vec<Images>,
    /// h_c, in [0, 1]: how many images name the label, and how far they can be trusted to show it.
    pub support: Vec<f64>,
    /// u_c, in [0, 1]: how much of what the memory knows of the label's last word cannot be known of the label.
    pub head_only: Vec<f64>,
}

impl Named {
    /// Looks for the labels in all captions. `texts` are the labels' embeddings, `[C, dim]`; `sample` are images of the memory to compare with.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn find(
        pairs: Pairs<'_>,
        labels: &Labels,
        texts: &[&[f32]],
        sample: &Images,
        others: usize,
    ) -> Result<Self> {
        let mentions = find_mentions(pairs.memory, pairs.filter, labels, IMAGES_OF_LABEL)?;
        let images: Vec<Images> =
            mentions.rows.into_par_iter().map(|rows| pairs.images(rows)).collect::<Result<_>>()?;
        let mean = mean_row(texts.iter().copied(), pairs.set.dim());
        let support = texts.par_iter().zip(&images).zip(&mentions.images).map(|((text, images), &count)| {
            // x·t_c − mean_c' x·t_c' = x·(t_c − t̄): what the label has of an image beyond what all labels have.
            let direction: Vec<f32> = text.iter().zip(&mean).map(|(t, &m)| t - m as f32).collect();
            let score = |image: &[f32]| dot(image, &direction);
            let own: Vec<f32> = images.each().map(score).collect();
            let other = sample.each().zip(&sample.rows).take(others);
            // Both hold the images of the smallest hashes, so none of the label's is missed among these.
            let other: Vec<f32> = other
                .filter(|(_, row)| images.rows.binary_search(row).is_err())
                .map(|(x, _)| score(x))
                .collect();
            ramp(share_of_wins(&own, other), TRUSTED_WINS) * enough(count)
        });
        let support = support.collect();
        let head_only = mentions.head_only.iter().zip(&mentions.images);
        let head_only = head_only.map(|(&head, &whole)| enough(head) * (1.0 - enough(whole))).collect();
        Ok(Self { images, support, head_only })
    }
}

/// n / (n + 3).
fn enough(images: u64) -> f64 {
    let images = images as f64;
    images / (images + FEW)
}

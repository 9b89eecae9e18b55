//! Whether what belongs together is closer than what does not.

use rayon::prelude::*;

use super::ramp;
use super::references::{Images, Pairs};
use crate::error::Result;
use crate::math::dot;

/// Share of comparisons that an image's own caption wins against those of other images, up to which captions are taken for those of other
/// images, and from which they are trusted.
const PAIRED_WINS: [f64; 2] = [0.55, 0.65];

/// How far the captions of these images, in [0, 1], fit their own images better than other images' captions do: 0 for captions of other
/// images, and for one caption of all.
///
/// # Errors
/// Those of reading the memory.
pub(super) fn pairing_trust(pairs: Pairs<'_>, sample: &Images, count: usize) -> Result<f64> {
    let rows = &sample.rows[..sample.rows.len().min(count)];
    let captions = pairs.captions(rows)?;
    let captions: Vec<&[f32]> = captions.chunks_exact(pairs.set.dim()).collect();
    let images: Vec<&[f32]> = sample.each().take(rows.len()).collect();
    let wins = images.par_iter().enumerate().map(|(i, image)| {
        let own = dot(image, captions[i]);
        let others = captions.iter().enumerate().filter(|(j, _)| *j != i);
        share_of_wins(&[own], others.map(|(_, caption)| dot(image, caption)).collect())
    });
    Ok(ramp(wins.sum::<f64>() / rows.len().max(1) as f64, PAIRED_WINS))
}

/// The share of pairs of a value of `own` and one of `other` in which the first is larger, ties half; ½ where one is empty.
pub(super) fn share_of_wins(own: &[f32], mut other: Vec<f32>) -> f64 {
    if own.is_empty() || other.is_empty() {
        return 0.5;
    }
    other.sort_unstable_by(f32::total_cmp);
    let wins = own.iter().map(|value| {
        let below = other.partition_point(|o| o < value);
        let up_to = other.partition_point(|o| o <= value);
        (below + up_to) as f64 / 2.0
    });
    wins.sum::<f64>() / (own.len() * other.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half() {
        assert_eq!(share_of_wins(&[1.0, 3.0], vec![2.0, 1.0]), 0.625);
        assert_eq!(share_of_wins(&[], vec![1.0]), 0.5);
        assert_eq!(share_of_wins(&[1.0], vec![]), 0.5);
    }
}

//! Prototypes: what the images of captions that name a label have in common, under a metric in which all of the memory's images vary alike.
//!
//! w_c = S⁻¹ (x̄_c − μ) / ‖·‖_S⁻¹ with x̄_c the mean of the images that name label c, μ and S mean and covariance of the memory's images,
//! S shrunk towards a multiple of the identity: linear discriminant analysis with captions instead of labels. An image v is read as
//! l_c = (v − μ)·w_c.

use rayon::prelude::*;

use super::mean_row;
use super::references::Images;
use crate::math::{dot, dot_wide};

/// Images whose products are summed in f32.
const BLOCK: usize = 64;

/// Prototypes of the labels that captions name.
pub(super) struct Prototypes {
    /// How many labels there are, those without a prototype included.
    labels: usize,
    /// μ.
    mean: Vec<f64>,
    covariance: Cholesky,
    each: Vec<Prototype>,
}

/// The prototype of one label.
struct Prototype {
    label: usize,
    /// The images that make it up.
    images: Vec<u64>,
    /// x̄_c − μ.
    center: Vec<f64>,
    direction: Direction,
}

/// How an image is read: (v − μ)·w.
struct Direction {
    /// w.
    w: Vec<f32>,
    /// μ·w.
    offset: f64,
}

impl Direction {
    fn new(center: &[f64], mean: &[f64], covariance: &Cholesky) -> Self {
        let w = covariance.direction(center);
        let offset = mean.iter().zip(&w).map(|(m, &w)| m * f64::from(w)).sum();
        Self { w, offset }
    }

    fn read(&self, image: &[f32]) -> f64 {
        f64::from(dot(image, &self.w)) - self.offset
    }
}

impl Prototypes {
    /// `named` has for each label its images, `supported` whether it has a prototype, `sample` the images whose covariance is taken. `None` where
    /// these do not vary.
    pub fn new(named: Vec<Images>, supported: &[bool], sample: &Images, dim: usize) -> Option<Self> {
        let (mean, covariance) = mean_and_covariance(sample, dim)?;
        let covariance = Cholesky::new(covariance, dim)?;
        let labels = named.len();
        let each = named
            .into_par_iter()
            .zip(supported)
            .enumerate()
            .filter(|(_, (images, supported))| **supported && !images.rows.is_empty())
            .map(|(label, (images, _))| {
                let mut center = mean_row(images.each(), dim);
                center.iter_mut().zip(&mean).for_each(|(center, mean)| *center -= mean);
                let direction = Direction::new(&center, &mean, &covariance);
                Prototype { label, images: images.rows, center, direction }
            })
            .collect();
        Some(Self { labels, mean, covariance, each })
    }

    /// l_c of an image, `[C]`, 0 for labels without a prototype. `left_out` are images of the memory that prototypes are not to be made of, with
    /// their embeddings: copies of the query image.
    pub fn read(&self, image: &[f32], left_out: &[(u64, Vec<f32>)]) -> Vec<f64> {
        let mut read = vec![0.0; self.labels];
        for prototype in &self.each {
            let is_own = |(row, _): &&(u64, Vec<f32>)| prototype.images.binary_search(row).is_ok();
            let own: Vec<&[f32]> = left_out.iter().filter(is_own).map(|(_, x)| x.as_slice()).collect();
            read[prototype.label] = match own.is_empty() {
                true => prototype.direction.read(image),
                false => self.read_without(image, prototype, &own),
            };
        }
        read
    }

    /// l_c where some images are taken out of the prototype; 0 where none is left.
    fn read_without(&self, image: &[f32], prototype: &Prototype, left_out: &[&[f32]]) -> f64 {
        let count = prototype.images.len() as f64;
        let rest = count - left_out.len() as f64;
        if rest < 1.0 {
            return 0.0;
        }
        let mut center: Vec<f64> = prototype.center.iter().map(|c| c * count).collect();
        for x in left_out {
            center.iter_mut().zip(*x).zip(&self.mean).for_each(|((c, &x), m)| *c -= f64::from(x) - m);
        }
        center.iter_mut().for_each(|c| *c /= rest);
        Direction::new(&center, &self.mean, &self.covariance).read(image)
    }
}

/// Mean of the rows and their covariance `[dim, dim]`, of which the share dim / (dim + n) is replaced by the mean variance on the diagonal:
/// with few images the covariance itself says little.
fn mean_and_covariance(images: &Images, dim: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let count = images.rows.len();
    if count < 2 {
        return None;
    }
    let mean = mean_row(images.each(), dim);
    // Rows of f32 products over blocks of images, as the embeddings themselves are float16; sums of blocks in f64.
    let centered: Vec<f32> = images
        .each()
        .flat_map(|row| row.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m) as f32))
        .collect();
    let mut covariance = vec![0.0; dim * dim];
    covariance.par_chunks_exact_mut(dim).enumerate().for_each(|(i, sums)| {
        let mut part = vec![0.0f32; dim];
        for block in centered.chunks(dim * BLOCK) {
            part.fill(0.0);
            for row in block.chunks_exact(dim) {
                let value = row[i];
                part[..=i].iter_mut().zip(row).for_each(|(part, &v)| *part += value * v);
            }
            sums.iter_mut().zip(&part).for_each(|(sum, &part)| *sum += f64::from(part));
        }
    });
    let shrinkage = dim as f64 / (dim + count) as f64;
    let variance = (0..dim).map(|i| covariance[i * dim + i]).sum::<f64>() / (dim * count) as f64;
    if variance <= f64::EPSILON {
        return None;
    }
    covariance.iter_mut().for_each(|v| *v *= (1.0 - shrinkage) / count as f64);
    (0..dim).for_each(|i| covariance[i * dim + i] += shrinkage * variance);
    Some((mean, covariance))
}

/// L with S = L Lᵀ, of a symmetric positive definite S, `[dim, dim]`.
struct Cholesky {
    dim: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Of the lower half of S. `None` if S is not positive definite.
    fn new(mut s: Vec<f64>, dim: usize) -> Option<Self> {
        for i in 0..dim {
            let (above, rows) = s.split_at_mut(i * dim);
            let row = &mut rows[..dim];
            for j in 0..i {
                let other = &above[j * dim..][..=j];
                row[j] = (row[j] - dot_wide(&row[..j], &other[..j])) / other[j];
            }
            let square = row[i] - dot_wide(&row[..i], &row[..i]);
            if square.is_nan() || square <= 0.0 {
                return None;
            }
            row[i] = square.sqrt();
            row[i + 1..].fill(0.0);
        }
        Some(Self { dim, lower: s })
    }

    /// S⁻¹ c / √(cᵀ S⁻¹ c), `[dim]`; zeros for c = 0.
    fn direction(&self, center: &[f64]) -> Vec<f32> {
        let dim = self.dim;
        // L y = c, so that cᵀ S⁻¹ c = yᵀ y.
        let mut y = center.to_vec();
        for i in 0..dim {
            let row = &self.lower[i * dim..][..=i];
            y[i] = (y[i] - dot_wide(&row[..i], &y[..i])) / row[i];
        }
        let length = y.iter().map(|v| v * v).sum::<f64>().sqrt();
        if length <= f64::EPSILON {
            return vec![0.0; dim];
        }
        // Lᵀ x = y, from the last row; each row's values are taken from those above it.
        for i in (0..dim).rev() {
            let row = &self.lower[i * dim..][..=i];
            let value = y[i] / row[i];
            y[i] = value;
            y[..i].iter_mut().zip(row).for_each(|(y, l)| *y -= value * l);
        }
        y.into_iter().map(|v| (v / length) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S x = c within rounding, for S = M Mᵀ + I.
        #[test]
        fn directions_solve_the_system(values in proptest::collection::vec(-1.0f64..1.0, 42)) {
            let dim = 6;
            let m = &values[..36];
            let mut s = vec![0.0; 36];
            for i in 0..dim {
                for j in 0..dim {
                    s[i * dim + j] = f64::from(u8::from(i == j)) + (0..dim).map(|k| m[i * dim + k] * m[j * dim + k]).sum::<f64>();
                }
            }
            let center = &values[36..];
            let x = Cholesky::new(s.clone(), dim).unwrap().direction(center);
            let back: Vec<f64> = (0..dim).map(|i| (0..dim).map(|j| s[i * dim + j] * f64::from(x[j])).sum()).collect();
            // x is scaled so that cᵀ x = √(cᵀ S⁻¹ c).
            let length: f64 = center.iter().zip(&x).map(|(c, &x)| c * f64::from(x)).sum();
            for (back, c) in back.iter().zip(center) {
                prop_assert!((back * length - c).abs() < 1e-5, "{back} {length} {c}");
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        assert!(Cholesky::new(vec![1.0, 0.0, 2.0, 1.0], 2).is_none());
        assert!(Cholesky::new(vec![0.0; 4], 2).is_none());
    }
}

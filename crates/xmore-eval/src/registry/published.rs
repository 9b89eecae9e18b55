//! The paper's published figures, for comparison beside measured ones.
//!
//! Top-1 in percent at K = 16, from the authors' notebook; baselines from the papers that share the setting (arXiv 2308.15273,
//! 2209.07511). Only what was published is here.

use super::Suite;

/// A row of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The image tower, as open_clip names the model.
    pub backbone: &'static str,
    /// The row's name in the paper.
    pub row: &'static str,
    /// The method here that computes the same, if there is one.
    pub method: Option<&'static str>,
    /// One figure for each dataset of the suite, in its order.
    pub figures: &'static [f64],
    /// The published average: of Table 1 over all, of Table 2 over the four shifts.
    pub average: f64,
}

const fn row(
    backbone: &'static str,
    row: &'static str,
    method: Option<&'static str>,
    figures: &'static [f64],
    average: f64,
) -> Published {
    Published { backbone, row, method, figures, average }
}

const RN50: &str = "RN50";
const B16: &str = "ViT-B-16";

/// Flowers, DTD, Pets, Cars, UCF, Caltech, Food, SUN, Aircraft, EuroSAT.
const TABLE_1: [Published; 10] = [
    row(
        RN50,
        "CLIP",
        Some("zero-shot"),
        &[61.75, 40.37, 83.57, 55.70, 58.84, 85.88, 73.97, 58.80, 15.66, 23.69],
        55.82,
    ),
    row(
        RN50,
        "CoOp",
        Some("coop"),
        &[61.55, 37.29, 87.00, 55.32, 59.05, 86.53, 75.59, 58.15, 15.12, 26.20],
        56.18,
    ),
    row(RN50, "TPT", None, &[62.69, 40.84, 84.49, 58.46, 60.82, 87.02, 74.88, 61.46, 17.58, 28.33], 57.66),
    row(
        RN50,
        "captions only",
        Some("captions"),
        &[59.36, 35.40, 62.74, 43.82, 51.44, 81.83, 70.00, 49.44, 19.50, 29.65],
        50.32,
    ),
    row(
        RN50,
        "X-MoRe",
        Some("xmore-stream"),
        &[69.78, 45.17, 84.96, 60.66, 63.57, 90.10, 79.52, 62.61, 21.14, 32.94],
        61.05,
    ),
    row(
        B16,
        "CLIP",
        Some("zero-shot"),
        &[67.44, 44.27, 88.25, 65.48, 65.13, 93.35, 83.65, 62.59, 23.67, 42.01],
        63.58,
    ),
    row(
        B16,
        "80 templates",
        Some("templates"),
        &[66.99, 45.04, 86.92, 66.11, 65.16, 93.55, 82.86, 65.63, 23.22, 50.42],
        64.59,
    ),
    row(B16, "TPT", None, &[68.98, 47.75, 87.79, 66.87, 68.04, 94.16, 84.67, 65.50, 24.78, 42.44], 65.10),
    row(
        B16,
        "captions only",
        Some("captions"),
        &[61.39, 36.05, 60.59, 44.84, 51.69, 85.40, 71.64, 49.61, 20.25, 33.32],
        51.48,
    ),
    row(
        B16,
        "X-MoRe",
        Some("xmore-stream"),
        &[71.65, 47.36, 87.61, 67.35, 66.45, 93.91, 84.54, 65.32, 25.74, 45.81],
        65.58,
    ),
];

/// ImageNet, -A, -V2, -R, -Sketch.
const TABLE_2: [Published; 4] = [
    row(RN50, "CLIP", Some("zero-shot"), &[58.16, 21.83, 51.41, 56.15, 33.37], 40.69),
    row(RN50, "X-MoRe", Some("xmore-stream"), &[62.71, 26.49, 55.25, 62.21, 40.41], 46.09),
    row(B16, "CLIP", Some("zero-shot"), &[66.73, 47.87, 60.86, 73.98, 46.09], 57.20),
    row(B16, "X-MoRe", Some("xmore-stream"), &[67.01, 46.56, 59.87, 73.60, 46.61], 56.66),
];

/// X-MoRe over K = 2, 4, 8, 16, 32, 64: averages over the ten datasets, ImageNet, and the four shifts.
const K_SWEEP: [(&str, [[f64; 6]; 3]); 2] = [
    (
        RN50,
        [
            [58.77, 60.33, 60.96, 61.05, 60.50, 59.49],
            [60.22, 61.81, 62.68, 62.71, 62.19, 61.12],
            [46.04, 46.99, 47.00, 46.09, 45.30, 44.14],
        ],
    ),
    (
        B16,
        [
            [62.92, 64.52, 65.28, 65.58, 65.37, 64.77],
            [63.72, 65.89, 66.65, 67.01, 67.01, 66.77],
            [54.67, 56.10, 56.74, 56.66, 56.47, 56.15],
        ],
    ),
];

/// The rows of a suite for a model (open_clip's name, with or without its weights); none for a backbone that the paper does not have.
pub fn rows(suite: Suite, model: &str) -> Vec<Published> {
    let table: &[Published] = match suite {
        Suite::Table1 => &TABLE_1,
        Suite::Table2 => &TABLE_2,
        Suite::K => &[],
    };
    table.iter().filter(|row| is(row.backbone, model)).copied().collect()
}

/// The sweep over K for a model: averages over the ten datasets, ImageNet, and the four shifts.
pub fn k_sweep(model: &str) -> Option<[[f64; 6]; 3]> {
    K_SWEEP.iter().find(|(backbone, _)| is(backbone, model)).map(|(_, figures)| *figures)
}

/// The paper's weights are OpenAI's.
fn is(backbone: &str, model: &str) -> bool {
    let (architecture, weights) = model.split_once(',').unwrap_or((model, "openai"));
    architecture.trim_end_matches("-quickgelu") == backbone && weights == "openai"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_those_of_the_figures() {
        for row in TABLE_1 {
            let mean = row.figures.iter().sum::<f64>() / 10.0;
            // The notebook averaged unrounded figures.
            assert!((mean - row.average).abs() < 0.011, "{} {}: {mean}", row.backbone, row.row);
        }
        for row in TABLE_2 {
            let mean = row.figures[1..].iter().sum::<f64>() / 4.0;
            assert!((mean - row.average).abs() < 0.011, "{} {}: {mean}", row.backbone, row.row);
        }
        // K = 16 is the tables' X-MoRe.
        assert_eq!(k_sweep("RN50,openai").unwrap().map(|row| row[3]), [61.05, 62.71, 46.09]);
        assert_eq!(k_sweep("ViT-B-16,openai").unwrap().map(|row| row[3]), [65.58, 67.01, 56.66]);
    }

    #[test]
    fn other_weights_are_another_model() {
        assert_eq!(rows(Suite::Table1, "ViT-B-16,openai").len(), 5);
        assert_eq!(rows(Suite::Table2, "RN50-quickgelu,openai").len(), 2);
        assert!(
            rows(Suite::Table1, "ViT-B-16,laion2b_s34b_b88k").is_empty()
                && rows(Suite::Table1, "lite").is_empty()
        );
    }
}

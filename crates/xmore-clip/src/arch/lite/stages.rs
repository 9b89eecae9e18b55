//! The published EfficientNet-Lites: one base network and, for each, how much wider and deeper it is.
//!
//! Reference: PyPI `efficientnet-lite-pytorch`, `utils.py` (`efficientnet_params`, `round_filters`, `round_repeats`), with
//! `fix_head_stem`: the first and the last layer keep their channels, the first and the last stage their repeats.

use super::config::StageConfig;

/// One published network.
struct Variant {
    /// timm's name.
    name: &'static str,
    /// Factor of the stages' channels.
    width: f64,
    /// Factor of the stages' repeats.
    depth: f64,
}

const VARIANTS: [Variant; 5] = [
    Variant { name: "efficientnet_lite0", width: 1.0, depth: 1.0 },
    Variant { name: "efficientnet_lite1", width: 1.0, depth: 1.1 },
    Variant { name: "efficientnet_lite2", width: 1.1, depth: 1.2 },
    Variant { name: "efficientnet_lite3", width: 1.2, depth: 1.4 },
    Variant { name: "efficientnet_lite4", width: 1.4, depth: 1.8 },
];

/// Stages of the base network, as `blocks_args` in the reference.
const BASE: [StageConfig; 7] = [
    StageConfig { repeats: 1, kernel: 3, stride: 1, expand: 1, channels: 16 },
    StageConfig { repeats: 2, kernel: 3, stride: 2, expand: 6, channels: 24 },
    StageConfig { repeats: 2, kernel: 5, stride: 2, expand: 6, channels: 40 },
    StageConfig { repeats: 3, kernel: 3, stride: 2, expand: 6, channels: 80 },
    StageConfig { repeats: 3, kernel: 5, stride: 1, expand: 6, channels: 112 },
    StageConfig { repeats: 4, kernel: 5, stride: 2, expand: 6, channels: 192 },
    StageConfig { repeats: 1, kernel: 3, stride: 1, expand: 6, channels: 320 },
];

/// Channels of the first layer and of the features, the same in all variants.
pub(super) const STEM_AND_FEATURES: [usize; 2] = [32, 1280];

/// The names that [`stages`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    VARIANTS.iter().map(|variant| variant.name)
}

/// Stages of the network with timm's name `name`; `None` for a network of another kind.
pub(super) fn stages(name: &str) -> Option<Vec<StageConfig>> {
    let variant = VARIANTS.iter().find(|variant| variant.name == name)?;
    let last = BASE.len() - 1;
    let scaled = BASE.iter().enumerate().map(|(n, stage)| StageConfig {
        repeats: if n == 0 || n == last { stage.repeats } else { repeats(stage.repeats, variant.depth) },
        channels: channels(stage.channels, variant.width),
        ..*stage
    });
    Some(scaled.collect())
}

/// The multiple of 8 that is nearest to `base` channels times `factor`, or the next one where that is more than 10 % less.
fn channels(base: usize, factor: f64) -> usize {
    let wanted = base as f64 * factor;
    let rounded = ((wanted + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * wanted { rounded + 8 } else { rounded }
}

fn repeats(base: usize, factor: f64) -> usize {
    (base as f64 * factor).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `EfficientNet.from_name(name)` of the reference builds: channels and repeats of its stages.
    #[test]
    fn stages_are_scaled_as_in_the_reference() {
        let expected = [
            ("efficientnet_lite0", [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1]),
            ("efficientnet_lite1", [16, 24, 40, 80, 112, 192, 320], [1, 3, 3, 4, 4, 5, 1]),
            ("efficientnet_lite2", [16, 24, 48, 88, 120, 208, 352], [1, 3, 3, 4, 4, 5, 1]),
            ("efficientnet_lite3", [24, 32, 48, 96, 136, 232, 384], [1, 3, 3, 5, 5, 6, 1]),
            ("efficientnet_lite4", [24, 32, 56, 112, 160, 272, 448], [1, 4, 4, 6, 6, 8, 1]),
        ];
        assert!(names().eq(expected.map(|(name, ..)| name)));
        for (name, channels, repeats) in expected {
            let stages = stages(name).unwrap();
            assert_eq!(stages.iter().map(|stage| stage.channels).collect::<Vec<_>>(), channels, "{name}");
            assert_eq!(stages.iter().map(|stage| stage.repeats).collect::<Vec<_>>(), repeats, "{name}");
        }
        assert!(stages("efficientnet_b0").is_none());
    }
}

//! The sizes of a checkpoint that comes without a configuration, from its tensors' shapes.
//!
//! Reference: OpenAI's `build_model` (open_clip's `build_model_from_openai_state_dict`), which fixes heads at width / 64. Shapes do not give the
//! activation: OpenAI's own archives need QuickGELU.

use crate::arch::clip::weights::ClipNames;
use crate::arch::shared::block::BlockForm;
use crate::arch::shared::limits::check_text;
use crate::arch::shared::names::Blocks;
use crate::arch::shared::open_clip::LAYER_NORM_EPSILON;
use crate::arch::shared::text::{TextArch, TextPool};
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::vit::{Pool, VitArch};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::nn::precision::Precision;
use crate::preprocess::PreprocessConfig;

use super::{ClipArch, ResNetArch, VisionArch};

/// Width of a head in OpenAI's models; ViT-H, g and G differ, see [`head_width`].
const HEAD_WIDTH: usize = 64;

/// The sizes of the two towers, of open_clip's names; `quick_gelu` is the activation.
pub(crate) fn infer(checkpoint: &Checkpoint, names: &ClipNames, quick_gelu: bool) -> Result<ClipArch> {
    let path = checkpoint.path();
    let activation = if quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
    let shape = |name: &str, dims: usize| -> Result<&[usize]> {
        match checkpoint.shape(name) {
            Some(shape) if shape.len() == dims => Ok(shape),
            Some(shape) => {
                let message = format!("tensor `{name}` has shape {shape:?}, expected {dims} dimensions");
                Err(ClipError::checkpoint(path, message))
            }
            None => {
                let sample: Vec<_> = checkpoint.names().take(3).map(|n| format!("`{n}`")).collect();
                let message = format!(
                    "no tensor `{name}`, so it is no CLIP model; it holds {} tensors, such as {}",
                    checkpoint.names().count(),
                    sample.join(", ")
                );
                Err(ClipError::checkpoint(path, message))
            }
        }
    };
    let of_text = |name: &str| format!("{}{name}", names.text_prefix);
    let blocks = |prefix, of| Blocks::new(checkpoint, prefix, of, Precision::F32);
    let positions = shape(&of_text(names.text.positions), 2)?;
    let (context_length, text_width) = (positions[0], positions[1]);
    let vocabulary = shape(&of_text(names.text.tokens), 2)?[0];
    let dim = shape(names.text_projection, 2)?[1];
    let text_blocks = blocks(names.text_prefix, names.text.blocks);
    let text = TextArch {
        context_length,
        vocabulary,
        sizes: TransformerSizes {
            width: text_width,
            heads: text_width / HEAD_WIDTH,
            layers: text_blocks.count(),
            mlp_width: text_blocks.mlp_width(0).unwrap_or(0),
        },
        activation,
        epsilon: LAYER_NORM_EPSILON,
        causal: true,
        class_padding: None,
        pool: TextPool::Largest,
    };
    let vision = if checkpoint.shape("visual.proj").is_some() {
        let kernel = shape("visual.conv1.weight", 4)?;
        let (width, patch) = (kernel[0], kernel[3]);
        let blocks = blocks(names.vision_prefix, names.vision.blocks);
        let side = grid(shape("visual.positional_embedding", 2)?[0]);
        VisionArch::Vit(VitArch {
            image_size: side.saturating_mul(patch),
            patch,
            sizes: TransformerSizes {
                width,
                heads: width / head_width(width),
                layers: blocks.count(),
                mlp_width: blocks.mlp_width(0).unwrap_or(0),
            },
            activation,
            epsilon: LAYER_NORM_EPSILON,
            class_token: true,
            norm_pre: true,
            blocks: BlockForm::CLIP,
            pool: Pool::Class,
        })
    } else {
        let width = shape("visual.layer1.0.conv1.weight", 4)?[0];
        let side = grid(shape("visual.attnpool.positional_embedding", 2)?[0]);
        let count = |stage: usize| {
            let name = |n: usize| format!("visual.layer{stage}.{n}.conv1.weight");
            (0..).take_while(|&n| checkpoint.shape(&name(n)).is_some()).count()
        };
        VisionArch::ResNet(ResNetArch {
            image_size: side.saturating_mul(32),
            layers: [1, 2, 3, 4].map(count),
            width,
            heads: width.saturating_mul(32) / HEAD_WIDTH,
        })
    };
    let arch = ClipArch { dim, vision, text, preprocess: PreprocessConfig::default() };
    arch.vision.check(path)?;
    check_text(path, &arch.text)?;
    Ok(arch)
}

/// Side of a square of `tokens` − 1 positions, rounded as the reference does.
fn grid(tokens: usize) -> usize {
    (tokens.saturating_sub(1) as f64).sqrt().round() as usize
}

/// Shapes do not give the heads' width. OpenAI's are 64 wide; open_clip's ViT-H (1280) has 80, ViT-g (1408) 88, ViT-bigG (1664) 104.
fn head_width(width: usize) -> usize {
    match width {
        1280 => 80,
        1408 => 88,
        1664 => 104,
        _ => HEAD_WIDTH,
    }
}

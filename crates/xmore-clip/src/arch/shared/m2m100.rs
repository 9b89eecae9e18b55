//! The encoder of M2M100 and NLLB, a translator's, as an encoder of texts.
//!
//! Reference: transformers' `M2M100Encoder`. Positions are sines and cosines; those of a text's tokens are counted without padding, which no token
//! sees, so that texts follow one another without it. The first token, which names the language, is the feature.

use std::sync::Arc;

use crate::arch::TextPart;
use crate::arch::shared::block::BlockForm;
use crate::arch::shared::hf_head::HfHead;
use crate::arch::shared::hf_text::{HfText, PREFIX};
use crate::arch::shared::limits::check_range;
use crate::arch::shared::m2m100_config::{infer_m2m100, is_m2m100, read_m2m100};
use crate::arch::shared::names::{BlockNames, Blocks, QkvNames};
use crate::arch::shared::open_clip::LAYER_NORM_EPSILON;
use crate::arch::shared::padding::{picked, seen};
use crate::arch::shared::transformer::{Transformer, TransformerForm, TransformerSizes};
use crate::checkpoint::Checkpoint;
use crate::device::{BuildText, Device, Mask, Operation, TextNetwork, TextTower, TokenEmbedding, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::precision::Precision;

/// Sizes and form of such an encoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct M2m100Arch {
    pub(crate) vocabulary: usize,
    pub(crate) sizes: TransformerSizes,
    /// Whether embeddings of tokens are multiplied by the square root of their width.
    pub(crate) scaled: bool,
    /// The token that others do not see; positions are counted from the number behind it. A text's first token is always seen.
    pub(crate) padding: u32,
}

/// The activation of all published models.
const ACTIVATION: Activation = Activation::Relu;

impl M2m100Arch {
    /// The operations that it needs beside those of every device.
    fn operations(&self) -> Vec<Operation> {
        let scaled = self.scaled.then_some(Operation::ScaledTokens);
        Operation::of_activation(ACTIVATION).into_iter().chain(scaled).collect()
    }

    /// What the embeddings of tokens are multiplied by.
    fn scale(&self) -> Option<f32> {
        self.scaled.then(|| (self.sizes.width as f64).sqrt() as f32)
    }
}

/// Names of the tensors, each after the tower's prefix.
pub(crate) const TOKENS: &str = "embed_tokens.weight";
const NORM: &str = "layer_norm.";
pub(crate) static M2M100_BLOCKS: BlockNames = BlockNames {
    list: "layers",
    norms: ["self_attn_layer_norm", "final_layer_norm"],
    attention_out: "self_attn.out_proj",
    perceptron: ["fc1", "fc2"],
    qkv: QkvNames::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    inner: None,
};

/// Whether a text tower is of this kind.
pub(crate) fn detect(text: &HfText<'_>) -> bool {
    let model_type = text.config.as_ref().map(|(_, model_type)| model_type.as_deref());
    is_m2m100(model_type, &text.name)
}

/// Reads the tower.
pub(crate) fn read(text: &HfText<'_>) -> Result<TextPart> {
    let folder = text.folder;
    text.pool(&[("cls_pooler", ()), ("cls_last_hidden_state_pooler", ())])?;
    let arch = match &text.config {
        Some((path, _)) => read_m2m100(path)?,
        None => infer_m2m100(text.checkpoint, PREFIX)?,
    };
    check_range(&folder.path, "the context length", text.context_length, 1 << 16)?;
    let TransformerSizes { width, layers, .. } = arch.sizes;
    let (tokenizer, cleaning, beside) = text.tokenizer()?;
    Ok(TextPart {
        description: format!("M2M100, {layers} layers of {width}, {}", ACTIVATION.name()),
        context_length: text.context_length,
        operations: arch.operations(),
        tokenizer,
        cleaning: Some(cleaning),
        beside,
        loader: Box::new(M2m100Text {
            checkpoint: Arc::clone(text.checkpoint),
            head: text.head(width)?,
            arch,
            context_length: text.context_length,
            dim: folder.dim,
            precision: folder.options.precision,
        }),
    })
}

/// The tower in a checkpoint.
struct M2m100Text {
    checkpoint: Arc<Checkpoint>,
    /// Checked sizes.
    arch: M2m100Arch,
    context_length: usize,
    head: HfHead,
    dim: usize,
    precision: Precision,
}

impl BuildText for M2m100Text {
    fn build<D: Device>(&self, device: &D) -> Result<TextTower<D>> {
        let head = self.head.load(device, &self.checkpoint, self.arch.sizes.width, self.dim)?;
        Ok(TextTower { network: Box::new(M2m100::load(device, self)?), head })
    }
}

/// The network.
struct M2m100<D: Device> {
    embedding: TokenEmbedding<D>,
    vocabulary: usize,
    padding: u32,
    transformer: Transformer<D>,
    norm: D::Norm,
}

impl<D: Device> M2m100<D> {
    fn load(device: &D, tower: &M2m100Text) -> Result<Self> {
        let M2m100Text { checkpoint, arch, context_length, precision, .. } = tower;
        device.require(arch.operations())?;
        let TransformerSizes { width, .. } = arch.sizes;
        let (norm_weight, norm_bias) = checkpoint.weight_and_bias(&format!("{PREFIX}{NORM}"), &[width])?;
        let table = format!("{PREFIX}{TOKENS}");
        // Before the positions, which are computed: no tensor's shape confirms how many they are, and blocks of that width take more memory.
        let transformer = Transformer::load(
            device,
            &Blocks::new(checkpoint, PREFIX, &M2M100_BLOCKS, *precision),
            TransformerForm {
                sizes: arch.sizes,
                activation: ACTIVATION,
                epsilon: LAYER_NORM_EPSILON,
                mask: Mask::None,
                wanted: Some(Wanted::First),
                blocks: BlockForm::CLIP,
            },
        )?;
        Ok(Self {
            embedding: TokenEmbedding {
                table: device.token_table(checkpoint, &table, [arch.vocabulary, width])?,
                width,
                positions: device.values(&sinusoids(arch.padding as usize + 1, *context_length, width))?,
                kind: None,
                scale: arch.scale(),
                class: None,
            },
            vocabulary: arch.vocabulary,
            padding: arch.padding,
            transformer,
            norm: device.norm(&norm_weight, &norm_bias, LAYER_NORM_EPSILON)?,
        })
    }
}

impl<D: Device> TextNetwork<D> for M2m100<D> {
    fn width(&self) -> usize {
        self.embedding.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> D::Rows {
        let texts: Vec<_> = texts.iter().map(|text| picked(text, &seen(text, Some(self.padding)))).collect();
        let texts: Vec<&[u32]> = texts.iter().map(|text| &**text).collect();
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let x = D::embed_tokens(run, &self.embedding, &texts, context);
        let mut pooled = self.transformer.forward(run, x, &lengths);
        D::norm_in_place(run, &self.norm, &mut pooled);
        pooled
    }
}

/// `count` positions from `first` on, `[count, width]`: sines of all frequencies, then cosines. The width is even and at least 4.
///
/// Source: transformers' `M2M100SinusoidalPositionalEmbedding`, which computes in 32 bits.
fn sinusoids(first: usize, count: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = (10000f64.ln() / (half - 1) as f64) as f32;
    let frequencies: Vec<f32> = (0..half).map(|n| f64::from(n as f32 * -step).exp() as f32).collect();
    let row = |position: usize| {
        let angles = frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency));
        angles.clone().map(|angle| angle.sin() as f32).chain(angles.map(|angle| angle.cos() as f32))
    };
    (first..first + count).flat_map(row).collect()
}

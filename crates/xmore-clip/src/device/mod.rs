//! Where towers compute: the trait [`Device`], by which every architecture is written once, and its implementations, a row of [`DeviceChoice`] each.

mod choice;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod encoders;
mod operation;

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::activation::Activation;
pub(crate) use crate::nn::attention::{AttentionShape, Mask};
use crate::nn::conv::{Size, Window};
use crate::nn::linear::Part;
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;
use crate::nn::rotary::RotaryTable;

pub(crate) use choice::Place;
pub use choice::{Decoding, DeviceChoice};
pub(crate) use cuda::DecodedImages;
pub use encoders::DecodedFile;
pub(crate) use encoders::{
    BuildImage, BuildText, FileEncoder, ImageEncoder, ImageLoader, ImageNetwork, ImageTower, TOKENS_PER_PASS,
    TextEncoder, TextLoader, TextNetwork, TextTower,
};
pub(crate) use operation::Operation;

/// Some sequences of a batch.
pub(crate) struct Portion<D: Device> {
    /// All their tokens, `[tokens, width]`.
    pub(crate) rows: D::Rows,
    /// Which of the batch's sequences they are.
    pub(crate) sequences: Range<usize>,
}

/// Memory and arithmetic of one kind of processor.
///
/// Layers are made from a checkpoint's values and stay on the device. Computing takes a `Run`, what one pass has to itself; results are
/// `Rows`, `[rows, width]`, and `Maps`, channels-last images. An operation that fails leaves its error in the run, and those after it do nothing:
/// the caller that began the run asks for the error at its end.
pub(crate) trait Device: Clone + Send + Sync + Sized + 'static {
    /// What one pass has to itself.
    type Run<'r>;
    /// Activations, `[rows, width]`.
    type Rows;
    /// Images with channels innermost, `[n, height, width, channels]`.
    type Maps;
    /// A fully connected layer.
    type Linear: Send + Sync;
    /// A layer norm.
    type Norm: Send + Sync;
    /// 32-bit floats that are added or copied: positions, a class token.
    type Values: Send + Sync;
    /// Embeddings of tokens, `[vocabulary, width]`.
    type TokenTable: Send + Sync;
    /// A dense convolution with folded batch normalization.
    type Conv: Send + Sync;
    /// A depthwise convolution with folded batch normalization.
    type Depthwise: Send + Sync;
    /// Prepared images, `[n, side, side, 3]`.
    type Images<'i>: Copy;
    /// Lengths of the sequences that stand one behind another in rows of tokens.
    type Sequences;
    /// A query that is the same for every sequence, `[width]`.
    type LearnedQuery: Send + Sync;
    /// Rotations of queries and keys.
    type Rotary: Send + Sync;
    /// From patches of pictures of any aspect to tokens.
    type GridEmbedding: Send + Sync;

    /// Whether the device has these operations.
    ///
    /// # Errors
    /// [`ClipError::NotOnGpu`](crate::ClipError::NotOnGpu) for one that it lacks.
    fn require(&self, operations: impl IntoIterator<Item = Operation>) -> Result<()>;

    /// A layer from weights over the same inputs, whose outputs stand side by side.
    fn linear(&self, parts: &[Part<'_>], inputs: usize, precision: Precision) -> Result<Self::Linear>;
    /// A layer norm from weight and bias, `[width]`.
    fn norm(&self, weight: &[f32], bias: &[f32], epsilon: f32) -> Result<Self::Norm>;
    /// Values as they are.
    fn values(&self, values: &[f32]) -> Result<Self::Values>;
    /// A query that is the same for every sequence, scaled by 1 / √head_width already.
    fn learned_query(&self, values: &[f32]) -> Result<Self::LearnedQuery>;
    /// Rotations of the last tokens of each sequence.
    fn rotary(&self, table: RotaryTable) -> Result<Self::Rotary>;
    /// From patches to tokens; `positions`, `[side * side, width]`, are those of a square, and resampled for other grids.
    fn grid_embedding(
        &self,
        linear: Self::Linear,
        positions: &[f32],
        side: usize,
    ) -> Result<Self::GridEmbedding>;
    /// The tensor `name`, `[vocabulary, width]`, of a checkpoint.
    fn token_table(
        &self,
        checkpoint: &Arc<Checkpoint>,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Self::TokenTable>;
    /// From PyTorch's `[outputs, inputs, kernel, kernel]`. A GPU computes it in its own precision.
    fn conv(
        &self,
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
        precision: Precision,
    ) -> Result<Self::Conv>;
    /// From PyTorch's `[outputs, 1, kernel, kernel]`, of as many outputs as inputs or a multiple; several outputs of an input come in the order of
    /// [`depthwise_order`](crate::nn::conv::depthwise_order).
    fn depthwise(
        &self,
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Result<Self::Depthwise>;

    /// Cuts the rows of tokens of all sequences into those that go through each layer, in this precision, together.
    fn portions(
        run: &mut Self::Run<'_>,
        precision: Precision,
        x: Self::Rows,
        lengths: &[usize],
    ) -> Vec<Portion<Self>>;
    /// All portions' rows, one behind another.
    fn joined(run: &mut Self::Run<'_>, portions: Vec<Self::Rows>) -> Self::Rows;
    /// Rows of unknown content.
    fn rows(run: &mut Self::Run<'_>, rows: usize, width: usize) -> Self::Rows;
    /// What `lengths` say.
    fn sequences(run: &mut Self::Run<'_>, lengths: &[usize]) -> Self::Sequences;
    /// How many images there are.
    fn count(images: Self::Images<'_>) -> usize;

    /// Each image's class token, if there is one, and patches with their positions: `[n * tokens, width]`.
    fn embed_patches(
        run: &mut Self::Run<'_>,
        layer: &PatchEmbedding<Self>,
        images: Self::Images<'_>,
    ) -> Self::Rows;
    /// Each image's patches with their positions, `[tokens, width]`, and the images' numbers of tokens.
    fn embed_grids(
        run: &mut Self::Run<'_>,
        layer: &Self::GridEmbedding,
        images: Self::Images<'_>,
    ) -> (Self::Rows, Vec<usize>);
    /// Each token's embedding with its type's and its position's: `[tokens, width]`. `context`, `[n, width]`, replaces the tokens after each text's
    /// first; it may be empty.
    fn embed_tokens(
        run: &mut Self::Run<'_>,
        layer: &TokenEmbedding<Self>,
        texts: &[&[u32]],
        context: &[f32],
    ) -> Self::Rows;
    /// x = norm(x).
    fn norm_in_place(run: &mut Self::Run<'_>, norm: &Self::Norm, x: &mut Self::Rows);
    /// out = norm(x) Wᵀ + b, as many rows as x has; `normed`, at least as large as x, is overwritten with anything.
    fn norm_linear(
        run: &mut Self::Run<'_>,
        norm: &Self::Norm,
        linear: &Self::Linear,
        x: &Self::Rows,
        normed: &mut Self::Rows,
        out: &mut Self::Rows,
    );
    /// out = activation(x Wᵀ + b), as many rows as x has.
    fn linear_into(
        run: &mut Self::Run<'_>,
        linear: &Self::Linear,
        x: &Self::Rows,
        out: &mut Self::Rows,
        activation: Option<Activation>,
    );
    /// out += x Wᵀ + b.
    fn linear_add(run: &mut Self::Run<'_>, linear: &Self::Linear, x: &Self::Rows, out: &mut Self::Rows);
    /// out += norm(x Wᵀ + b).
    fn linear_norm_add(
        run: &mut Self::Run<'_>,
        linear: &Self::Linear,
        norm: &Self::Norm,
        x: &Self::Rows,
        out: &mut Self::Rows,
    );
    /// out = silu(gate) · value; `x` is `[rows, 2 * width]`, gate and value side by side, `out` `[rows, width]`.
    fn gate(run: &mut Self::Run<'_>, width: usize, x: &Self::Rows, out: &mut Self::Rows);
    /// x += fc2(activation(fc1(norm(x)))); the buffers are overwritten with anything.
    fn perceptron(
        run: &mut Self::Run<'_>,
        layer: PerceptronLayers<'_, Self>,
        x: &mut Self::Rows,
        normed: &mut Self::Rows,
        hidden: &mut Self::Rows,
    );
    /// x += out(attention(qkv(norm(x)))) of each sequence to itself; the buffers are overwritten with anything.
    fn attention(
        run: &mut Self::Run<'_>,
        layers: AttentionLayers<'_, Self>,
        x: &mut Self::Rows,
        sequences: &Self::Sequences,
        normed: &mut Self::Rows,
        qkv: &mut Self::Rows,
    ) {
        if Self::fused_attention(run, &layers, x, sequences) {
            return;
        }
        let AttentionLayers { norm, qkv: to_qkv, out, shape } = layers;
        Self::norm_linear(run, norm, to_qkv, x, normed, qkv);
        Self::self_attention(run, shape, qkv, sequences, normed);
        Self::linear_add(run, out, normed, x);
    }
    /// The same without buffers between the layers, where the device has a way for these; tells whether it has.
    fn fused_attention(
        _: &mut Self::Run<'_>,
        _: &AttentionLayers<'_, Self>,
        _: &mut Self::Rows,
        _: &Self::Sequences,
    ) -> bool {
        false
    }
    /// Rotates the first `heads` heads of each row by its token's place in its sequence. The rotations are of the last tokens of a sequence; those
    /// before them stay as they are.
    fn rotate(
        run: &mut Self::Run<'_>,
        rotary: &Self::Rotary,
        heads: usize,
        x: &mut Self::Rows,
        sequences: &Self::Sequences,
    );
    /// Attention of each sequence to itself; `qkv` is `[tokens, 3 * width]`, query, key and value side by side. `out` is `[tokens, width]`.
    fn self_attention(
        run: &mut Self::Run<'_>,
        shape: AttentionShape,
        qkv: &Self::Rows,
        sequences: &Self::Sequences,
        out: &mut Self::Rows,
    );
    /// Attention of one query to each sequence, without its last token where the mask hides that: `query` is `[sequences, width]`, `key_value` `[tokens, 2 * width]`; returns `[sequences, width]`.
    fn query_attention(
        run: &mut Self::Run<'_>,
        shape: AttentionShape,
        query: &Self::Rows,
        key_value: &Self::Rows,
        sequences: &Self::Sequences,
    ) -> Self::Rows;
    /// One row of each sequence; `places` are those of [`Wanted::Anywhere`], counted from each sequence's first.
    fn pick(
        run: &mut Self::Run<'_>,
        x: &Self::Rows,
        sequences: &Self::Sequences,
        wanted: Wanted,
        places: &[usize],
    ) -> Self::Rows;
    /// The query, `count` times: `[count, width]`.
    fn repeat(run: &mut Self::Run<'_>, query: &Self::LearnedQuery, count: usize) -> Self::Rows;
    /// The mean of each sequence's rows but the first `skipped`.
    fn means(
        run: &mut Self::Run<'_>,
        x: &Self::Rows,
        sequences: &Self::Sequences,
        skipped: usize,
    ) -> Self::Rows;
    /// The mean of each sequence's rows, to unit length.
    fn unit_means(run: &mut Self::Run<'_>, x: &Self::Rows, sequences: &Self::Sequences) -> Self::Rows;

    /// Runs a trunk of convolutions on images, one by one or all at once, with three buffers. What the first buffer then holds is returned, as rows of
    /// its channels.
    fn trunk(run: &mut Self::Run<'_>, images: Self::Images<'_>, trunk: &Trunk<'_, Self>) -> Self::Rows;
    /// The same for a trunk whose last layers, convolutions and pools, run on all images at once: these have small maps and large weights.
    fn trunk_with_end(
        run: &mut Self::Run<'_>,
        images: Self::Images<'_>,
        trunk: &Trunk<'_, Self>,
        end: &TrunkEnd<'_, Self>,
    ) -> Self::Rows;
    /// out = conv(images), of `size`.
    fn conv_images(
        run: &mut Self::Run<'_>,
        conv: &Self::Conv,
        images: Self::Images<'_>,
        size: Size,
        out: &mut Self::Maps,
    );
    /// out = conv(x).
    fn conv_into(run: &mut Self::Run<'_>, conv: &Self::Conv, x: &Self::Maps, out: &mut Self::Maps);
    /// The same where only convolutions of the same precision read `out`, which a device may keep as they read it.
    fn conv_for_conv(run: &mut Self::Run<'_>, conv: &Self::Conv, x: &Self::Maps, out: &mut Self::Maps) {
        Self::conv_into(run, conv, x, out);
    }
    /// out = activation(out + conv(x)), of a 1×1 kernel.
    fn conv_add(run: &mut Self::Run<'_>, conv: &Self::Conv, x: &Self::Maps, out: &mut Self::Maps);
    /// The same, and `next_out` = next(out), of a 1×1 kernel, too, as [`Device::conv_for_conv`] has it.
    fn conv_add_for_conv(
        run: &mut Self::Run<'_>,
        conv: &Self::Conv,
        x: &Self::Maps,
        out: &mut Self::Maps,
        next: &Self::Conv,
        next_out: &mut Self::Maps,
    ) {
        Self::conv_add(run, conv, x, out);
        Self::conv_for_conv(run, next, out, next_out);
    }
    /// out = activation(depthwise(x)).
    fn depthwise_into(run: &mut Self::Run<'_>, conv: &Self::Depthwise, x: &Self::Maps, out: &mut Self::Maps);
    /// x = project(depthwise(expand(x))), plus x where the block is residual; the other buffers hold anything afterwards.
    fn inverted_residual(
        run: &mut Self::Run<'_>,
        block: InvertedResidual<'_, Self>,
        x: &mut Self::Maps,
        [wide, deep]: [&mut Self::Maps; 2],
    ) {
        let input = match block.expand {
            Some(expand) => {
                Self::conv_into(run, expand, x, wide);
                &*wide
            }
            None => &*x,
        };
        Self::depthwise_into(run, block.depthwise, input, deep);
        if block.residual {
            Self::conv_add(run, block.project, deep, x);
        } else {
            Self::conv_into(run, block.project, deep, x);
        }
    }
    /// out = means over squares of `side` pixels; pixels that fill no square are left out.
    fn average_pool(run: &mut Self::Run<'_>, x: &Self::Maps, side: usize, out: &mut Self::Maps);
    /// out = each image's mean over all positions, `[n, 1, 1, channels]`.
    fn mean_pool(run: &mut Self::Run<'_>, x: &Self::Maps, out: &mut Self::Maps);
    /// The mean of each `positions` rows before them, then `learned`, `[1 + positions, width]`, added: `[n * (1 + positions), width]`.
    fn prepend_means(
        run: &mut Self::Run<'_>,
        x: &Self::Rows,
        positions: usize,
        learned: &Self::Values,
    ) -> Self::Rows;
    /// `class`, `[width]`, before each image's rows, to which `learned`, `[positions, width]`, is added: `[n * (1 + positions), width]`.
    fn prepend_class(
        run: &mut Self::Run<'_>,
        x: &Self::Rows,
        class: &Self::Values,
        learned: &Self::Values,
    ) -> Self::Rows;
    /// out = norm(x) at every position.
    fn norm_map(run: &mut Self::Run<'_>, norm: &Self::Norm, x: &Self::Maps, out: &mut Self::Maps);
    /// out += fc2(activation(fc1(norm(x)))) at every position.
    fn perceptron_map(
        run: &mut Self::Run<'_>,
        layer: MapPerceptronLayers<'_, Self>,
        x: &Self::Maps,
        out: &mut Self::Maps,
    );
    /// x = activation(x · σ(fc2(relu(fc1(mean(x)))))), the mean over each image's positions.
    fn squeeze_excite(
        run: &mut Self::Run<'_>,
        layers: [&Self::Linear; 2],
        x: &mut Self::Maps,
        activation: Activation,
    );
    /// Attention of each image's positions to one another: `qkv` has query, key and value side by side in its channels.
    fn attend_map(run: &mut Self::Run<'_>, shape: AttentionShape, qkv: &Self::Maps, out: &mut Self::Maps);
}

/// The convolutions of an image tower, from an image to the first of three buffers.
pub(crate) type Trunk<'a, D> = dyn for<'r, 'i> Fn(&mut <D as Device>::Run<'r>, <D as Device>::Images<'i>, &mut [<D as Device>::Maps; 3])
    + Sync
    + 'a;

/// The last layers of such a tower, from the first buffer to the same.
pub(crate) type TrunkEnd<'a, D> =
    dyn for<'r> Fn(&mut <D as Device>::Run<'r>, &mut [<D as Device>::Maps; 3]) + Sync + 'a;

/// From an image to tokens.
pub(crate) struct PatchEmbedding<D: Device> {
    /// Side of an image and of a patch, in pixels.
    pub(crate) side: usize,
    pub(crate) patch: usize,
    pub(crate) width: usize,
    /// From a patch's pixels, `[patch * patch * 3]` with channels innermost.
    pub(crate) linear: D::Linear,
    /// `[width]`, before the patches where there is one.
    pub(crate) class: Option<D::Values>,
    /// `[tokens, width]`.
    pub(crate) positions: D::Values,
}

impl<D: Device> PatchEmbedding<D> {
    /// Patches of an image.
    pub(crate) fn patches(&self) -> usize {
        (self.side / self.patch).pow(2)
    }

    /// Tokens of an image.
    pub(crate) fn tokens(&self) -> usize {
        self.patches() + usize::from(self.class.is_some())
    }
}

/// From token ids to tokens.
pub(crate) struct TokenEmbedding<D: Device> {
    pub(crate) table: D::TokenTable,
    pub(crate) width: usize,
    /// `[context, width]`.
    pub(crate) positions: D::Values,
    /// `[width]`, added to every token where there is one.
    pub(crate) kind: Option<D::Values>,
    /// What the table's rows are multiplied by, where it is not 1.
    pub(crate) scale: Option<f32>,
    pub(crate) class: Option<ClassRow<D>>,
}

/// A learned token beside those of the table.
pub(crate) struct ClassRow<D: Device> {
    /// An id that the table does not have.
    pub(crate) id: u32,
    /// `[width]`, with its position.
    pub(crate) row: D::Values,
}

/// The layers of an attention on a residual branch.
pub(crate) struct AttentionLayers<'a, D: Device> {
    pub(crate) norm: &'a D::Norm,
    /// Query, key and value side by side.
    pub(crate) qkv: &'a D::Linear,
    pub(crate) out: &'a D::Linear,
    pub(crate) shape: AttentionShape,
}

/// The layers of a perceptron on a residual branch.
pub(crate) struct PerceptronLayers<'a, D: Device> {
    pub(crate) norm: &'a D::Norm,
    pub(crate) fc1: &'a D::Linear,
    pub(crate) fc2: &'a D::Linear,
    pub(crate) activation: Activation,
}

/// The layers of a perceptron at every position of a map.
pub(crate) struct MapPerceptronLayers<'a, D: Device> {
    /// Where there is one.
    pub(crate) norm: Option<&'a D::Norm>,
    pub(crate) fc1: &'a D::Linear,
    pub(crate) fc2: &'a D::Linear,
    pub(crate) activation: Activation,
}

/// The layers of an inverted residual block of MobileNet's kind: widen, convolve per channel, narrow.
pub(crate) struct InvertedResidual<'a, D: Device> {
    /// A 1×1 convolution, where the block widens.
    pub(crate) expand: Option<&'a D::Conv>,
    pub(crate) depthwise: &'a D::Depthwise,
    /// A 1×1 convolution.
    pub(crate) project: &'a D::Conv,
    /// Whether the block's input is added to its output, of the same shape.
    pub(crate) residual: bool,
}

/// Which row of a sequence is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    First,
    Last,
    /// At a place that the caller says.
    Anywhere,
}

/// Where rows of sequences begin and end: `[0, lengths[0], lengths[0] + lengths[1], …]`.
pub(crate) fn bounds(lengths: &[usize]) -> Vec<usize> {
    let mut end = 0;
    std::iter::once(0).chain(lengths.iter().map(|length| (end += length, end).1)).collect()
}

//! NVIDIA GPUs: the operations of [`Device`] by cuBLASLt and the kernels of `xmore-cuda`.

mod encoders;
mod files;
mod layers;
mod maps;
mod run;

use std::convert::Infallible;
use std::sync::Arc;

use xmore_cuda::{Arg, Buffer, Element, Launch, Source};

use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::nn::conv::{Size, Window};
use crate::nn::linear::Part;
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;
use crate::nn::rotary::RotaryTable;

use super::{
    AttentionShape, Device, MapPerceptronLayers, Operation, PatchEmbedding, PerceptronLayers, Portion,
    TokenEmbedding, Trunk, TrunkEnd, Wanted,
};
pub(crate) use files::DecodedImages;
use layers::{CudaConv, CudaDepthwise, CudaLinear, CudaNorm};
use maps::CudaMap;
use run::{CudaRun, Rows, Scratch, Sequences};

/// Least compute capability of 8-bit floats.
const FP8_CAPABILITY: (u32, u32) = (8, 9);

/// A GPU and the numbers it computes with.
#[derive(Clone, Copy)]
pub(crate) struct Cuda {
    device: xmore_cuda::Device,
    /// Elements of activations, and of weights that are not quantized.
    element: Element,
}

/// Prepared images on the card, `[count, side, side, 3]`: f32, or bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Images {
    pointer: u64,
    count: usize,
    /// What each byte becomes in each channel, f32 `[3][256]`; 0 where the images are f32.
    table: u64,
}

impl Images {
    fn are_bytes(self) -> bool {
        self.table != 0
    }
}

impl Cuda {
    /// # Errors
    /// [`ClipError::Precision`] if the GPU does not compute in that precision.
    pub(crate) fn new(device: xmore_cuda::Device, precision: Precision) -> Result<Self> {
        let info = device.info();
        let refuse = |reason: &str| {
            let (device, reason) = (info.name.clone(), reason.to_owned());
            Err(ClipError::Precision { precision: precision.name(), device, reason })
        };
        let element = match precision {
            Precision::F32 => Element::F32,
            Precision::F16 | Precision::Fp8 => Element::F16,
            Precision::Bf16 => Element::Bf16,
            Precision::Int8 => {
                return refuse("it computes in float32, float16, bfloat16 and fp8");
            }
        };
        if precision == Precision::Fp8 && info.capability < FP8_CAPABILITY {
            return refuse("8-bit floats need a GPU of compute capability 8.9 (Ada) or later");
        }
        if precision == Precision::Bf16 && info.capability < (8, 0) {
            return refuse("bfloat16 needs a GPU of compute capability 8.0 (Ampere) or later");
        }
        Ok(Self { device, element })
    }

    /// The GPU's name.
    pub(crate) fn name(&self) -> String {
        self.device.info().name.clone()
    }
}

/// The number by which the kernels know an activation.
fn code(activation: Option<Activation>) -> i32 {
    match activation {
        None => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Relu6) => 2,
        Some(Activation::Gelu) => 3,
        Some(Activation::QuickGelu) => 4,
        Some(Activation::GeluTanh) => unreachable!("`require` refuses it before a model is loaded"),
    }
}

impl Device for Cuda {
    type Run<'r> = CudaRun<'r>;
    type Rows = Rows;
    type Maps = CudaMap;
    type Linear = CudaLinear;
    type Norm = CudaNorm;
    type Values = Buffer;
    type TokenTable = Buffer;
    type Conv = CudaConv;
    type Depthwise = CudaDepthwise;
    type Images<'i> = Images;
    type Sequences = Sequences;
    type LearnedQuery = Infallible;
    type Rotary = Infallible;
    type GridEmbedding = Infallible;

    fn require(&self, operations: impl IntoIterator<Item = Operation>) -> Result<()> {
        match operations.into_iter().next() {
            Some(operation) => Err(ClipError::NotOnGpu { operation: operation.name() }),
            None => Ok(()),
        }
    }

    fn learned_query(&self, _: &[f32]) -> Result<Infallible> {
        Err(ClipError::NotOnGpu { operation: Operation::LearnedQuery.name() })
    }

    fn rotary(&self, _: RotaryTable) -> Result<Infallible> {
        Err(ClipError::NotOnGpu { operation: Operation::RotaryPositions.name() })
    }

    fn linear(&self, parts: &[Part<'_>], inputs: usize, precision: Precision) -> Result<CudaLinear> {
        CudaLinear::new(self, parts, inputs, precision == Precision::Fp8)
    }

    fn norm(&self, weight: &[f32], bias: &[f32], epsilon: f32) -> Result<CudaNorm> {
        CudaNorm::new(self, weight, bias, epsilon)
    }

    fn values(&self, values: &[f32]) -> Result<Buffer> {
        Ok(Buffer::of(&self.device, values)?)
    }

    fn grid_embedding(&self, _: CudaLinear, _: &[f32], _: usize) -> Result<Infallible> {
        Err(ClipError::NotOnGpu { operation: Operation::AnyAspect.name() })
    }

    fn token_table(&self, checkpoint: &Arc<Checkpoint>, name: &str, shape: [usize; 2]) -> Result<Buffer> {
        let values = checkpoint.tensor(name, &shape)?;
        Ok(Buffer::of(&self.device, &self.element.encode(&values))?)
    }

    fn conv(
        &self,
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
        _: Precision,
    ) -> Result<CudaConv> {
        CudaConv::new(self, weight, inputs, window, &bn, activation)
    }

    fn depthwise(
        &self,
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Result<CudaDepthwise> {
        if activation != Some(Activation::Relu6) || inputs != bn.scale.len() {
            self.require([Operation::DepthwiseForm])?;
        }
        CudaDepthwise::new(self, weight, window, &bn)
    }

    fn portions(_: &mut CudaRun<'_>, _: Precision, x: Rows, lengths: &[usize]) -> Vec<Portion<Self>> {
        vec![Portion { rows: x, sequences: 0..lengths.len() }]
    }

    fn joined(_: &mut CudaRun<'_>, mut portions: Vec<Rows>) -> Rows {
        portions.pop().expect("`portions` makes one")
    }

    fn rows(run: &mut CudaRun<'_>, rows: usize, width: usize) -> Rows {
        run.rows(rows, width)
    }

    fn sequences(run: &mut CudaRun<'_>, lengths: &[usize]) -> Sequences {
        run.sequences(lengths)
    }

    fn count(images: Images) -> usize {
        images.count
    }

    fn embed_patches(run: &mut CudaRun<'_>, layer: &PatchEmbedding<Self>, images: Images) -> Rows {
        let (tokens, width) = (layer.tokens(), layer.width);
        let class = layer.class.as_ref().expect("`require` refuses patches alone before a model is loaded");
        let patches = images.count * layer.patches();
        let columns = layer.linear.padded_inputs();
        let pixels = run.scratch_rows(Scratch::Columns, patches, columns);
        let args = [
            Arg::Pointer(images.pointer),
            Arg::Pointer(images.table),
            Arg::Pointer(pixels.pointer),
            layer.side.into(),
            layer.patch.into(),
            columns.into(),
            Arg::I32(i32::from(images.are_bytes())),
        ];
        run.launch(Source::Embed, "patches", Launch::blocks([patches, 1, 1], 128, 0), &args);
        let embedded = run.scratch_rows(Scratch::Embedded, patches, width);
        run.multiply(&layer.linear, pixels, embedded, false);
        let x = run.rows(images.count * tokens, width);
        let args = [
            Arg::Pointer(embedded.pointer),
            Arg::Pointer(class.pointer()),
            Arg::Pointer(layer.positions.pointer()),
            Arg::Pointer(x.pointer),
            images.count.into(),
            tokens.into(),
            width.into(),
        ];
        run.launch(Source::Embed, "assemble", Launch::threads(images.count * tokens * width / 8, 256), &args);
        x
    }

    fn embed_grids(_: &mut CudaRun<'_>, layer: &Infallible, _: Images) -> (Rows, Vec<usize>) {
        match *layer {}
    }

    fn embed_tokens(
        run: &mut CudaRun<'_>,
        layer: &TokenEmbedding<Self>,
        texts: &[&[u32]],
        context: &[f32],
    ) -> Rows {
        if layer.scale.is_some() || layer.class.is_some() {
            unreachable!("`require` refuses it before a model is loaded");
        }
        let width = layer.width;
        let replaced = 1..1 + context.len() / width;
        let (mut ids, mut places) = (Vec::<i32>::new(), Vec::<i32>::new());
        for text in texts {
            ids.extend(text.iter().enumerate().map(|(place, &id)| match replaced.contains(&place) {
                // The context's rows are counted from -1 down.
                true => -(place as i32),
                false => id as i32,
            }));
            places.extend(0..text.len() as i32);
        }
        let [ids_at, places_at] = [run.upload(&ids), run.upload(&places)];
        let context_at = run.upload(context);
        let x = run.rows(ids.len(), width);
        let args = [
            Arg::Pointer(ids_at),
            Arg::Pointer(places_at),
            Arg::Pointer(layer.table.pointer()),
            Arg::Pointer(layer.positions.pointer()),
            Arg::Pointer(layer.kind.as_ref().map_or(0, Buffer::pointer)),
            Arg::Pointer(context_at),
            Arg::Pointer(x.pointer),
            width.into(),
        ];
        run.launch(Source::Embed, "embed_tokens", Launch::blocks([ids.len(), 1, 1], 128, 0), &args);
        x
    }

    fn norm_in_place(run: &mut CudaRun<'_>, norm: &CudaNorm, x: &mut Rows) {
        run.normalize(norm, *x, *x);
    }

    fn norm_linear(
        run: &mut CudaRun<'_>,
        norm: &CudaNorm,
        linear: &CudaLinear,
        x: &Rows,
        normed: &mut Rows,
        out: &mut Rows,
    ) {
        let input = run.normalize_for(linear, norm, *x, *normed);
        run.multiply(linear, input, *out, false);
    }

    fn linear_into(
        run: &mut CudaRun<'_>,
        linear: &CudaLinear,
        x: &Rows,
        out: &mut Rows,
        activation: Option<Activation>,
    ) {
        let input = run.quantize_for(linear, *x, None);
        run.multiply(linear, input, *out, false);
        run.activate(*out, activation);
    }

    fn linear_add(run: &mut CudaRun<'_>, linear: &CudaLinear, x: &Rows, out: &mut Rows) {
        let input = run.quantize_for(linear, *x, None);
        run.multiply(linear, input, *out, true);
    }

    fn linear_norm_add(_: &mut CudaRun<'_>, _: &CudaLinear, _: &CudaNorm, _: &Rows, _: &mut Rows) {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn gate(_: &mut CudaRun<'_>, _: usize, _: &Rows, _: &mut Rows) {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn perceptron(
        run: &mut CudaRun<'_>,
        layer: PerceptronLayers<'_, Self>,
        x: &mut Rows,
        normed: &mut Rows,
        hidden: &mut Rows,
    ) {
        let PerceptronLayers { norm, fc1, fc2, activation } = layer;
        let hidden = Rows { rows: x.rows, ..*hidden };
        let input = run.normalize_for(fc1, norm, *x, *normed);
        run.multiply(fc1, input, hidden, false);
        let input = run.quantize_for(fc2, hidden, Some(activation));
        run.multiply(fc2, input, *x, true);
    }

    fn rotate(_: &mut CudaRun<'_>, rotary: &Infallible, _: usize, _: &mut Rows, _: &Sequences) {
        match *rotary {}
    }

    fn self_attention(
        run: &mut CudaRun<'_>,
        shape: AttentionShape,
        qkv: &Rows,
        sequences: &Sequences,
        out: &mut Rows,
    ) {
        let width = shape.width();
        let part = |n: usize| Rows { pointer: qkv.pointer + (n * width * run.bytes()) as u64, ..*qkv };
        let [q, k, v] = [part(0), part(1), part(2)];
        run.attention(shape, q, [k, v], sequences, None, *out);
    }

    fn query_attention(
        run: &mut CudaRun<'_>,
        shape: AttentionShape,
        query: &Rows,
        key_value: &Rows,
        sequences: &Sequences,
    ) -> Rows {
        let out = run.rows(query.rows, query.width);
        let value = Rows { pointer: key_value.pointer + (shape.width() * run.bytes()) as u64, ..*key_value };
        run.attention(shape, *query, [*key_value, value], sequences, Some(1), out);
        out
    }

    fn pick(run: &mut CudaRun<'_>, x: &Rows, sequences: &Sequences, wanted: Wanted, _: &[usize]) -> Rows {
        let out = run.rows(sequences.count, x.width);
        let (list, step) = sequences.rows(run, wanted);
        let args = [Arg::Pointer(list), Arg::I32(step), Arg::Pointer(out.pointer), x.width.into()];
        // Of uniform sequences the last row is the first of a table that begins so much later.
        let from = match (sequences.uniform, wanted) {
            (Some(length), Wanted::Last) => x.pointer + ((length - 1) * x.width * run.bytes()) as u64,
            _ => x.pointer,
        };
        let args = [&[Arg::Pointer(from)], &args[..]].concat();
        run.launch(Source::Rows, "pick_rows", Launch::blocks([sequences.count, 1, 1], 128, 0), &args);
        out
    }

    fn unit_means(run: &mut CudaRun<'_>, x: &Rows, sequences: &Sequences) -> Rows {
        let out = run.rows(sequences.count, x.width);
        run.mean_rows(*x, sequences, out, true);
        out
    }

    fn repeat(_: &mut CudaRun<'_>, query: &Infallible, _: usize) -> Rows {
        match *query {}
    }

    fn means(_: &mut CudaRun<'_>, _: &Rows, _: &Sequences, _: usize) -> Rows {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn trunk(run: &mut CudaRun<'_>, images: Images, trunk: &Trunk<'_, Self>) -> Rows {
        Self::trunk_with_end(run, images, trunk, &|_, _| ())
    }

    fn trunk_with_end(
        run: &mut CudaRun<'_>,
        images: Images,
        trunk: &Trunk<'_, Self>,
        end: &TrunkEnd<'_, Self>,
    ) -> Rows {
        let mut maps = [0, 1, 2].map(CudaMap::empty);
        trunk(run, images, &mut maps);
        end(run, &mut maps);
        let [first, ..] = &maps;
        Rows {
            pointer: run.map_pointer(first),
            rows: first.count * first.size.area(),
            width: first.channels,
            scales: 0,
        }
    }

    fn conv_images(run: &mut CudaRun<'_>, conv: &CudaConv, images: Images, size: Size, out: &mut CudaMap) {
        run.conv_images(conv, images, size, out);
    }

    fn conv_into(run: &mut CudaRun<'_>, conv: &CudaConv, x: &CudaMap, out: &mut CudaMap) {
        run.conv_into(conv, x, out);
    }

    fn conv_add(run: &mut CudaRun<'_>, conv: &CudaConv, x: &CudaMap, out: &mut CudaMap) {
        run.conv_add(conv, x, out);
    }

    fn depthwise_into(run: &mut CudaRun<'_>, conv: &CudaDepthwise, x: &CudaMap, out: &mut CudaMap) {
        run.depthwise_into(conv, x, out);
    }

    fn average_pool(run: &mut CudaRun<'_>, x: &CudaMap, side: usize, out: &mut CudaMap) {
        run.average_pool(x, side, out);
    }

    fn mean_pool(run: &mut CudaRun<'_>, x: &CudaMap, out: &mut CudaMap) {
        run.mean_pool(x, out);
    }

    fn prepend_means(run: &mut CudaRun<'_>, x: &Rows, positions: usize, learned: &Buffer) -> Rows {
        let images = x.rows / positions;
        let out = run.rows(images * (positions + 1), x.width);
        let args = [
            Arg::Pointer(x.pointer),
            Arg::Pointer(learned.pointer()),
            Arg::Pointer(out.pointer),
            positions.into(),
            x.width.into(),
        ];
        run.launch(Source::Convolution, "prepend_mean", Launch::blocks([images, 1, 1], 256, 0), &args);
        out
    }
    fn prepend_class(_: &mut CudaRun<'_>, _: &Rows, _: &Buffer, _: &Buffer) -> Rows {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn norm_map(_: &mut CudaRun<'_>, _: &CudaNorm, _: &CudaMap, _: &mut CudaMap) {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn perceptron_map(_: &mut CudaRun<'_>, _: MapPerceptronLayers<'_, Self>, _: &CudaMap, _: &mut CudaMap) {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn squeeze_excite(_: &mut CudaRun<'_>, _: [&CudaLinear; 2], _: &mut CudaMap, _: Activation) {
        unreachable!("`require` refuses it before a model is loaded")
    }

    fn attend_map(_: &mut CudaRun<'_>, _: AttentionShape, _: &CudaMap, _: &mut CudaMap) {
        unreachable!("`require` refuses it before a model is loaded")
    }
}

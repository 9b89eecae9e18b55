//! A transformer of images or texts, as CLIP and its successors have them.
//!
//! Where only one token of each sequence is wanted of the last block (the class token, or the end of
//! the text), only its query, its output and its perceptron are computed; on the processor the numbers are the same to the bit.

use rayon::prelude::*;

use crate::arch::shared::block::{BlockForm, BlockWeights, Branches, Hidden};
use crate::arch::shared::rotary::RotaryPositions;
use crate::device::{AttentionShape, Device, Mask, Operation, Portion, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::qkv_parts;
use crate::nn::precision::Precision;

/// Sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransformerSizes {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    /// Width inside the perceptrons.
    pub(crate) mlp_width: usize,
}

/// What a transformer computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TransformerForm {
    pub(crate) sizes: TransformerSizes,
    pub(crate) activation: Activation,
    /// Of all norms.
    pub(crate) epsilon: f32,
    pub(crate) mask: Mask,
    /// The token of each sequence that is wanted of the last block; none where all are. Where positions are rotary it is one that they do not rotate.
    pub(crate) wanted: Option<Wanted>,
    pub(crate) blocks: BlockForm,
}

/// The blocks.
pub(crate) struct Transformer<D: Device> {
    form: TransformerForm,
    precision: Precision,
    rotary: Option<D::Rotary>,
    blocks: Vec<Block<D>>,
    /// The last block, where one token of it is wanted.
    last: Option<(LastBlock<D>, Wanted)>,
}

struct Block<D: Device> {
    qkv: D::Linear,
    branches: Branches<D>,
}

/// What blocks write between their layers, as large as the largest portion needs.
struct Buffers<D: Device> {
    normed: D::Rows,
    qkv: D::Rows,
    hidden: Hidden<D>,
}

/// The block of which one token is wanted.
struct LastBlock<D: Device> {
    query: D::Linear,
    key_value: D::Linear,
    branches: Branches<D>,
}

impl<D: Device> Transformer<D> {
    /// Takes the blocks' tensors; `form` must have been checked.
    pub(crate) fn load(device: &D, weights: &impl BlockWeights, form: TransformerForm) -> Result<Self> {
        device.require(Operation::of_activation(form.activation))?;
        device.require(form.blocks.operations())?;
        let TransformerSizes { width, heads, layers, .. } = form.sizes;
        let precision = weights.precision();
        // Blocks are packed in parallel: packing is most of the time to the first embedding.
        let block = |n: usize| -> Result<Block<D>> {
            let qkv = weights.qkv(n, width)?;
            let block = Block {
                qkv: device.linear(&qkv_parts(&qkv, width / heads), width, precision)?,
                branches: Branches::load(device, weights, n, &form)?,
            };
            // Else the file's pages would stay in memory beside the packed weights.
            weights.release();
            Ok(block)
        };
        let whole = layers - usize::from(form.wanted.is_some());
        let blocks = (0..whole).into_par_iter().map(block).collect::<Result<Vec<_>>>()?;
        let last = |wanted: Wanted| -> Result<_> {
            let qkv = weights.qkv(layers - 1, width)?;
            let [query, key, value] = qkv_parts(&qkv, width / heads);
            let last = LastBlock {
                query: device.linear(&[query], width, precision)?,
                key_value: device.linear(&[key, value], width, precision)?,
                branches: Branches::load(device, weights, layers - 1, &form)?,
            };
            Ok((last, wanted))
        };
        let last = form.wanted.map(last).transpose()?;
        let rotary = |positions: &RotaryPositions| device.rotary(positions.table(width / heads));
        let rotary = form.blocks.rotary.as_ref().map(rotary).transpose()?;
        Ok(Self { form, precision, rotary, blocks, last })
    }

    fn shape(&self) -> AttentionShape {
        let TransformerSizes { width, heads, .. } = self.form.sizes;
        AttentionShape { heads, head_width: width / heads, mask: self.form.mask, precision: self.precision }
    }

    /// Runs all blocks over `x`, `[tokens, width]`. Returns the wanted row of each sequence, `[sequences, width]`, or all rows where all are wanted.
    pub(crate) fn forward(&self, run: &mut D::Run<'_>, x: D::Rows, lengths: &[usize]) -> D::Rows {
        self.forward_wanted(run, x, lengths, &[])
    }

    /// The same with the wanted token's place in each sequence, for [`Wanted::Anywhere`].
    ///
    /// Of a causal transformer that must be the last one.
    pub(crate) fn forward_wanted(
        &self,
        run: &mut D::Run<'_>,
        x: D::Rows,
        lengths: &[usize],
        places: &[usize],
    ) -> D::Rows {
        let TransformerSizes { width, mlp_width, .. } = self.form.sizes;
        let tokens = |portion: &Portion<D>| lengths[portion.sequences.clone()].iter().sum();
        let mut portions = D::portions(run, self.precision, x, lengths);
        let sequences: Vec<_> =
            portions.iter().map(|portion| D::sequences(run, &lengths[portion.sequences.clone()])).collect();
        let most = portions.iter().map(tokens).max().unwrap_or(0);
        let mut buffers = Buffers {
            normed: D::rows(run, most, width),
            qkv: D::rows(run, most, 3 * width),
            hidden: Hidden::new(run, most, mlp_width, self.form.blocks.perceptron),
        };
        for block in &self.blocks {
            for (portion, sequences) in portions.iter_mut().zip(&sequences) {
                self.block(run, block, &mut portion.rows, sequences, &mut buffers);
            }
        }
        let mut results = Vec::with_capacity(portions.len());
        for (portion, sequences) in portions.into_iter().zip(&sequences) {
            results.push(match &self.last {
                None => portion.rows,
                Some((last, wanted)) => {
                    let places = places.get(portion.sequences.clone()).unwrap_or_default();
                    let counts = [portion.sequences.len(), tokens(&portion)];
                    let x = D::pick(run, &portion.rows, sequences, *wanted, places);
                    self.last_block(run, last, [portion.rows, x], counts, sequences, &mut buffers)
                }
            });
        }
        D::joined(run, results)
    }

    fn block(
        &self,
        run: &mut D::Run<'_>,
        Block { qkv: linear, branches }: &Block<D>,
        x: &mut D::Rows,
        sequences: &D::Sequences,
        Buffers { normed, qkv, hidden }: &mut Buffers<D>,
    ) {
        let plain = branches.plain_attention(linear, self.shape());
        if let (Some(layers), None) = (plain, &self.rotary) {
            D::attention(run, layers, x, sequences, normed, qkv);
        } else {
            branches.attention_in(run, linear, x, normed, qkv);
            if let Some(rotary) = &self.rotary {
                D::rotate(run, rotary, 2 * self.form.sizes.heads, qkv, sequences);
            }
            D::self_attention(run, self.shape(), qkv, sequences, normed);
            branches.attention_out(run, normed, x);
        }
        branches.perceptron(run, x, normed, hidden);
    }

    /// The last block for one row of each sequence: `x` is all rows, and those picked of them; `counts` are their numbers, sequences and tokens.
    fn last_block(
        &self,
        run: &mut D::Run<'_>,
        LastBlock { query: to_query, key_value: to_key_value, branches }: &LastBlock<D>,
        [all, mut x]: [D::Rows; 2],
        [count, tokens]: [usize; 2],
        sequences: &D::Sequences,
        Buffers { normed, hidden, .. }: &mut Buffers<D>,
    ) -> D::Rows {
        let TransformerSizes { width, heads, .. } = self.form.sizes;
        let mut key_value = D::rows(run, tokens, 2 * width);
        branches.attention_in(run, to_key_value, &all, normed, &mut key_value);
        if let Some(rotary) = &self.rotary {
            D::rotate(run, rotary, heads, &mut key_value, sequences);
        }
        let shape = AttentionShape { mask: self.form.mask.of_last(), ..self.shape() };
        let (mut picked, mut query) = (D::rows(run, count, width), D::rows(run, count, width));
        branches.attention_in(run, to_query, &x, &mut picked, &mut query);
        let mut attended = D::query_attention(run, shape, &query, &key_value, sequences);
        branches.attention_out(run, &mut attended, &mut x);
        branches.perceptron(run, &mut x, &mut attended, hidden);
        x
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::ops::Range;

    use super::*;
    use crate::arch::shared::names::{Blocks, OPEN_CLIP_BLOCKS};
    use crate::checkpoint::Checkpoint;
    use crate::device::cpu::Cpu;
    use crate::nn::gemm::Threads;

    /// The bits of the wanted tokens, whether or not the rest of the last block, and what follows a text's end, is computed.
    #[test]
    fn what_is_left_out_changes_no_bit() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/clip/vit_gelu/open_clip/open_clip_model.safetensors");
        let checkpoint = Checkpoint::open(path).unwrap();
        let blocks = |prefix| Blocks::new(&checkpoint, prefix, &OPEN_CLIP_BLOCKS, Precision::F32);
        let cpu = Cpu::new(Precision::F32).unwrap();
        for (blocks, causal) in [(blocks("visual."), false), (blocks(""), true)] {
            let width =
                checkpoint.shape(if causal { "ln_final.bias" } else { "visual.ln_post.bias" }).unwrap()[0];
            let mlp_width = blocks.mlp_width(0).unwrap();
            let heads = if width.is_multiple_of(80) { width / 80 } else { 1 };
            let sizes = TransformerSizes { width, heads, layers: blocks.count(), mlp_width };
            let wanted = if causal { Wanted::Last } else { Wanted::First };
            let load = |wanted| {
                let form = TransformerForm {
                    sizes,
                    activation: Activation::Gelu,
                    epsilon: 1e-5,
                    mask: if causal { Mask::Causal } else { Mask::None },
                    wanted,
                    blocks: BlockForm::CLIP,
                };
                Transformer::load(&cpu, &blocks, form)
            };
            let (tower, whole_tower) = (load(Some(wanted)).unwrap(), load(None).unwrap());
            let lengths = [1usize, 12, 77, 40];
            let mut start = 0;
            let whole: Vec<_> = lengths.iter().map(|&n| (start..start + n, start += n).0).collect();
            let x: Vec<f32> = (0..start * width).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
            let whole_lengths: Vec<_> = whole.iter().map(Range::len).collect();
            let all = whole_tower.forward(&mut { Threads::One }, x.clone(), &whole_lengths);
            // A causal sequence may end anywhere; what follows is left out. Else the first token is wanted.
            let kept: Vec<_> = whole
                .iter()
                .map(|r| if causal { r.start..r.start + r.len().div_ceil(2) } else { r.clone() })
                .collect();
            let cut: Vec<f32> =
                kept.iter().flat_map(|r| x[r.start * width..r.end * width].to_vec()).collect();
            let lengths: Vec<_> = kept.iter().map(Range::len).collect();
            let found = tower.forward(&mut { Threads::Pool }, cut, &lengths);
            for (n, row) in found.chunks_exact(width).enumerate() {
                let token = if causal { kept[n].end - 1 } else { kept[n].start };
                assert_eq!(row, &all[token * width..(token + 1) * width], "sequence {n}");
            }
        }
    }
}

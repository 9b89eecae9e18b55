//! One pass on a card: its memory, kept from one pass to the next, and the operations on rows.

use bytemuck::Pod;
use xmore_cuda::{Add, Arg, Buffer, CudaError, Element, Launch, Operand, Product, Scales, Source, Stream};

use crate::device::{AttentionShape, Wanted, bounds};
use crate::nn::activation::Activation;
use crate::profile;

use super::layers::{CudaLinear, CudaNorm, format, vectors};
use super::{Cuda, code};

/// Rows are allocated in multiples of this, and products of texts computed in them, so that few shapes occur.
pub(super) const ROWS: usize = 64;
/// Keys that the attention kernel holds at a time, twice.
const ATTENTION_KEYS: usize = 64;
/// Widest head of the attention kernel for 16-bit elements.
const MAX_HEAD: usize = 128;

/// Width of a head and queries of a warpgroup of the attention kernel for Hopper, and the shared memory of a block.
const HOPPER_HEAD: usize = 64;
const HOPPER_QUERIES: usize = 64;
const HOPPER_SHARED: usize = 2 * 3 * 64 * 64 * 2 + 1024;

/// Activations on the card, `[rows, width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(super) pointer: u64,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Of quantized rows, `[rows]`; 0 where the rows are elements.
    pub(super) scales: u64,
}

/// Memory with one use in many places of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scratch {
    /// What a convolution or the patch embedding multiplies.
    Columns,
    /// Patches before they are put together with class tokens.
    Embedded,
    /// Rows in 8 bits.
    Quantized,
    /// Their scales.
    Scales,
    /// The first of three buffers of feature maps.
    Maps,
}

/// How many places `Scratch` has: `Maps` are three.
const SCRATCH: usize = Scratch::Maps as usize + 3;

/// A card's memory for passes. Every pass takes its rows in the same order, so a place in that order is a buffer, which grows where it must.
#[derive(Default)]
pub(super) struct Arena {
    places: Vec<Buffer>,
    taken: usize,
    scratch: [Option<Buffer>; SCRATCH],
    /// Counts buffers that were made: recorded work is valid as long as it stays.
    pub(super) generation: u64,
}

impl Arena {
    /// Begins a pass.
    pub(super) fn begin(&mut self) {
        self.taken = 0;
    }

    /// Waits for the stream and copies values that a pass left at `pointer`.
    pub(super) fn read<T: Pod>(&self, stream: &Stream, pointer: u64, out: &mut [T]) -> Result<(), CudaError> {
        let buffer = self.places.iter().find(|buffer| buffer.pointer() == pointer);
        buffer.expect("results of a pass are in its arena").read(stream, 0, out)
    }

    fn take(&mut self, cuda: &Cuda, bytes: usize) -> Result<u64, CudaError> {
        let place = self.taken;
        self.taken += 1;
        if self.places.get(place).is_some_and(|buffer| buffer.bytes() >= bytes) {
            return Ok(self.places[place].pointer());
        }
        self.generation += 1;
        if place < self.places.len() {
            // What it held goes first: both may not fit.
            self.places[place] = Buffer::new(&cuda.device, 0)?;
            self.places[place] = Buffer::new(&cuda.device, grown(bytes))?;
        } else {
            self.places.push(Buffer::new(&cuda.device, bytes)?);
        }
        Ok(self.places[place].pointer())
    }

    fn scratch(&mut self, cuda: &Cuda, place: usize, bytes: usize) -> Result<u64, CudaError> {
        let slot = &mut self.scratch[place];
        if let Some(buffer) = slot.as_ref().filter(|buffer| buffer.bytes() >= bytes) {
            return Ok(buffer.pointer());
        }
        self.generation += 1;
        *slot = None;
        Ok(slot.insert(Buffer::new(&cuda.device, bytes)?).pointer())
    }
}

/// A little more than is needed now, so that slightly larger passes need no other memory.
fn grown(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// Lengths of sequences, on the card where they differ.
pub(crate) struct Sequences {
    pub(super) count: usize,
    longest: usize,
    /// The length of all of them.
    pub(super) uniform: Option<usize>,
    /// `[count + 1]`, 0 where they are uniform.
    bounds: u64,
    lengths: Vec<usize>,
}

impl Sequences {
    /// Where the wanted rows are: a list on the card, or the step from one to the next.
    pub(super) fn rows(&self, run: &mut CudaRun<'_>, wanted: Wanted) -> (u64, i32) {
        if let Some(length) = self.uniform {
            return (0, length as i32);
        }
        let bounds = bounds(&self.lengths);
        let list: Vec<i32> = match wanted {
            Wanted::First => bounds[..self.count].iter().map(|&at| at as i32).collect(),
            Wanted::Last => bounds[1..].iter().map(|&at| at as i32 - 1).collect(),
            Wanted::Anywhere => unreachable!("`require` refuses it before a model is loaded"),
        };
        (run.upload(&list), 0)
    }
}

/// One pass. The first error stays, and nothing is done after it.
pub(crate) struct CudaRun<'r> {
    pub(super) cuda: &'r Cuda,
    stream: &'r Stream,
    pub(super) arena: &'r mut Arena,
    /// Whether shapes come again and again, so that the fastest algorithms are worth finding.
    tune: bool,
    failed: Option<CudaError>,
}

impl<'r> CudaRun<'r> {
    pub(super) fn new(cuda: &'r Cuda, stream: &'r Stream, arena: &'r mut Arena, tune: bool) -> Self {
        arena.begin();
        Self { cuda, stream, arena, tune, failed: None }
    }

    /// The error that ended it.
    pub(super) fn finish(self) -> Result<(), CudaError> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Bytes of an element.
    pub(super) fn bytes(&self) -> usize {
        self.cuda.element.bytes()
    }

    /// A result, or the error is kept and a value stands for the result.
    pub(super) fn kept<T>(&mut self, result: Result<T, CudaError>, otherwise: T) -> T {
        result.unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            otherwise
        })
    }

    fn take(&mut self, bytes: usize) -> u64 {
        if self.failed.is_some() {
            return 0;
        }
        let taken = self.arena.take(self.cuda, bytes);
        self.kept(taken, 0)
    }

    pub(super) fn scratch(&mut self, place: usize, bytes: usize) -> u64 {
        if self.failed.is_some() {
            return 0;
        }
        let taken = self.arena.scratch(self.cuda, place, bytes);
        self.kept(taken, 0)
    }

    pub(super) fn rows(&mut self, rows: usize, width: usize) -> Rows {
        let bytes = rows.next_multiple_of(ROWS) * width * self.bytes();
        Rows { pointer: self.take(bytes), rows, width, scales: 0 }
    }

    pub(super) fn scratch_rows(&mut self, place: Scratch, rows: usize, width: usize) -> Rows {
        let bytes = rows.next_multiple_of(ROWS) * width * self.bytes();
        Rows { pointer: self.scratch(place as usize, bytes), rows, width, scales: 0 }
    }

    /// 32-bit floats, `[count]`, for results.
    pub(super) fn floats(&mut self, count: usize) -> u64 {
        self.take(count * 4)
    }

    /// Values of this machine on the card; 0 for none.
    pub(super) fn upload<T: Pod>(&mut self, values: &[T]) -> u64 {
        if values.is_empty() || self.failed.is_some() {
            return 0;
        }
        let bytes = size_of_val(values);
        let pointer = self.take(bytes);
        if pointer == 0 {
            return 0;
        }
        let written = self.arena.places[self.arena.taken - 1].write(self.stream, 0, values);
        self.kept(written, ());
        pointer
    }

    pub(super) fn sequences(&mut self, lengths: &[usize]) -> Sequences {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let uniform = lengths.iter().all(|&length| length == longest).then_some(longest);
        let bounds = match uniform {
            Some(_) => 0,
            None => {
                let bounds: Vec<i32> = bounds(lengths).into_iter().map(|at| at as i32).collect();
                self.upload(&bounds)
            }
        };
        Sequences { count: lengths.len(), longest, uniform, bounds, lengths: lengths.to_vec() }
    }

    /// Queues a kernel for the run's elements.
    pub(super) fn launch(&mut self, source: Source, name: &'static str, launch: Launch, args: &[Arg]) {
        let element = self.cuda.element.code();
        self.launch_with(source, name, &[("ELEMENT", element)], launch, args);
    }

    /// The same with other macros.
    pub(super) fn launch_with(
        &mut self,
        source: Source,
        name: &'static str,
        defines: &[(&'static str, i64)],
        launch: Launch,
        args: &[Arg],
    ) {
        if self.failed.is_some() {
            return;
        }
        let kernel = self.cuda.device.kernel(source, name, defines, launch.shared as usize);
        let launched = kernel.and_then(|kernel| {
            self.timed(name, 0, || {
                // SAFETY: pointers come from the run's buffers, which are as large as the rows say and live until the arena is dropped, after the
                // stream was waited for; sizes are those of the rows.
                #[allow(unsafe_code)]
                unsafe {
                    self.stream.launch(&kernel, launch, args)
                }
            })
        });
        self.kept(launched, ());
    }

    /// Queues work; where times are taken, waits for it.
    fn timed(
        &self,
        name: &'static str,
        flops: usize,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        profile::time(name, flops, || {
            work()?;
            if profile::enabled() { self.stream.synchronize() } else { Ok(()) }
        })
    }

    /// out = x Wᵀ + b, or out += that.
    pub(super) fn multiply(&mut self, linear: &CudaLinear, x: Rows, out: Rows, add: bool) {
        if self.failed.is_some() || x.rows == 0 {
            return;
        }
        let m = if self.tune { x.rows } else { x.rows.next_multiple_of(ROWS) };
        let element = self.cuda.element;
        let product = Product {
            m,
            n: linear.outputs,
            k: linear.padded_inputs(),
            input: linear.format(element),
            output: format(element),
            x: Operand { pointer: x.pointer, stride: x.width },
            weight: Operand { pointer: linear.weight.pointer(), stride: linear.padded_inputs() },
            scales: linear.scales.as_ref().map(|scales| Scales { x: x.scales, weight: scales.pointer() }),
            bias: linear.bias.as_ref().map_or(0, Buffer::pointer),
            out: Operand { pointer: out.pointer, stride: out.width },
            add: if add { Add::Yes } else { Add::No },
            tune: self.tune,
        };
        debug_assert_eq!((x.width, out.width), (product.k, product.n));
        let name = if add { "product, added" } else { "product" };
        let queued = self.timed(name, 2 * m * product.n * product.k, || {
            // SAFETY: rows are allocated in multiples of `ROWS`, so that `m` of them are there; strides are the rows' widths.
            #[allow(unsafe_code)]
            unsafe {
                self.stream.multiply(&product)
            }
        });
        self.kept(queued, ());
    }

    /// out = norm(x); both may be the same.
    pub(super) fn normalize(&mut self, norm: &CudaNorm, x: Rows, out: Rows) {
        self.layer_norm(norm, x, out, false);
    }

    /// The norm of x as the layer takes it, in the memory of `normed`.
    pub(super) fn normalize_for(
        &mut self,
        linear: &CudaLinear,
        norm: &CudaNorm,
        x: Rows,
        normed: Rows,
    ) -> Rows {
        let out = Rows { rows: x.rows, ..normed };
        if linear.scales.is_none() {
            self.layer_norm(norm, x, out, false);
            return out;
        }
        let scales = self.scratch(Scratch::Scales as usize, x.rows.next_multiple_of(ROWS) * 4);
        let out = Rows { scales, ..out };
        self.layer_norm(norm, x, out, true);
        out
    }

    fn layer_norm(&mut self, norm: &CudaNorm, x: Rows, out: Rows, quantize: bool) {
        let width = norm.width;
        let mut args = vec![
            Arg::Pointer(x.pointer),
            Arg::Pointer(norm.weight.pointer()),
            Arg::Pointer(norm.bias.pointer()),
            Arg::Pointer(out.pointer),
        ];
        let rest = [Arg::from(x.rows), width.into(), norm.epsilon.into()];
        if !width.is_multiple_of(8) || width > 256 * 16 {
            args.extend(rest);
            return self.launch(
                Source::Rows,
                "layer_norm_any",
                Launch::blocks([x.rows, 1, 1], 256, 0),
                &args,
            );
        }
        args.push(Arg::Pointer(out.scales));
        args.extend(rest);
        let defines = [
            ("ELEMENT", self.cuda.element.code()),
            ("MAX_VECTORS", vectors(width, 32)),
            ("QUANTIZE", i64::from(quantize)),
        ];
        let launch = Launch::blocks([x.rows.div_ceil(4), 1, 1], 128, 0);
        self.launch_with(Source::Rows, "layer_norm", &defines, launch, &args);
    }

    /// activation(x) as the layer takes it: in place, or in 8 bits beside.
    pub(super) fn quantize_for(
        &mut self,
        linear: &CudaLinear,
        x: Rows,
        activation: Option<Activation>,
    ) -> Rows {
        if linear.scales.is_none() {
            self.activate(x, activation);
            return x;
        }
        let rows = x.rows.next_multiple_of(ROWS);
        let pointer = self.scratch(Scratch::Quantized as usize, rows * x.width);
        let scales = self.scratch(Scratch::Scales as usize, rows * 4);
        let args = [
            Arg::Pointer(x.pointer),
            Arg::Pointer(pointer),
            Arg::Pointer(scales),
            x.width.into(),
            Arg::I32(code(activation)),
        ];
        let defines = [
            ("ELEMENT", self.cuda.element.code()),
            ("MAX_VECTORS", vectors(x.width, 128)),
            ("ACTIVATION", i64::from(code(activation))),
        ];
        self.launch_with(Source::Rows, "quantize", &defines, Launch::blocks([x.rows, 1, 1], 128, 0), &args);
        Rows { pointer, scales, ..x }
    }

    /// x = activation(x).
    pub(super) fn activate(&mut self, x: Rows, activation: Option<Activation>) {
        if activation.is_none() {
            return;
        }
        let count = x.rows * x.width;
        let kind = code(activation);
        let args = [Arg::Pointer(x.pointer), Arg::I64(count as i64), Arg::I32(kind)];
        let defines = [("ELEMENT", self.cuda.element.code()), ("ACTIVATION", i64::from(kind))];
        let launch = Launch::threads(count.div_ceil(32), 256);
        self.launch_with(Source::Rows, "activation", &defines, launch, &args);
    }

    /// softmax(q kᵀ) v. `queries` is how many of them each sequence has; as many as keys with `None`.
    pub(super) fn attention(
        &mut self,
        shape: AttentionShape,
        q: Rows,
        [k, v]: [Rows; 2],
        sequences: &Sequences,
        queries: Option<usize>,
        out: Rows,
    ) {
        let AttentionShape { heads, head_width, mask, .. } = shape;
        let causal = mask.causal();
        let longest = queries.unwrap_or(sequences.longest);
        let uniform = sequences.uniform.unwrap_or(0);
        let args = [
            Arg::Pointer(q.pointer),
            Arg::Pointer(k.pointer),
            Arg::Pointer(v.pointer),
            Arg::Pointer(out.pointer),
            Arg::Pointer(if queries.is_some() { 0 } else { sequences.bounds }),
            Arg::Pointer(sequences.bounds),
            queries.unwrap_or(uniform).into(),
            uniform.into(),
            q.width.into(),
            k.width.into(),
            out.width.into(),
            Arg::I32(i32::from(causal)),
        ];
        let count = sequences.count;
        let element = ("ELEMENT", self.cuda.element.code());
        let by_tensor_cores = self.cuda.element != Element::F32
            && self.cuda.device.info().capability >= (8, 0)
            && head_width.is_multiple_of(16)
            && head_width <= MAX_HEAD;
        if by_tensor_cores
            && self.cuda.device.info().is_hopper()
            && head_width == HOPPER_HEAD
            && !causal
            && longest > HOPPER_QUERIES / 2
        {
            let launch = Launch::blocks([longest.div_ceil(HOPPER_QUERIES), heads, count], 128, HOPPER_SHARED);
            return self.launch_with(Source::AttentionHopper, "attention_hopper", &[element], launch, &args);
        }
        if by_tensor_cores {
            let processors = self.cuda.device.info().processors;
            let warps = attention_warps(longest.div_ceil(16), heads * count, processors);
            let shared = 4 * ATTENTION_KEYS * (head_width + 8) * 2;
            let tiles = longest.div_ceil(16 * warps);
            let launch = Launch::blocks([tiles, heads, count], 32 * warps as u32, shared);
            // Registers for two blocks suffice up to this width without spilling.
            let blocks = if head_width <= 64 { 2 } else { 1 };
            let defines = [element, ("HEAD", head_width as i64), ("BLOCKS", blocks)];
            return self.launch_with(Source::Attention, "attention", &defines, launch, &args);
        }
        let warps = 4;
        let shared = warps * (head_width + sequences.longest) * 4;
        let launch = Launch::blocks([longest.div_ceil(warps), heads, count], 32 * warps as u32, shared);
        let args = [&args[..], &[Arg::from(head_width), sequences.longest.into()]].concat();
        self.launch_with(Source::AttentionF32, "attention_any", &[element], launch, &args);
    }

    /// Means of the sequences' rows, of unit length where wanted.
    pub(super) fn mean_rows(&mut self, x: Rows, sequences: &Sequences, out: Rows, unit: bool) {
        let args = [
            Arg::Pointer(x.pointer),
            Arg::Pointer(sequences.bounds),
            Arg::I32(sequences.uniform.unwrap_or(0) as i32),
            Arg::Pointer(out.pointer),
            x.width.into(),
            Arg::I32(i32::from(unit)),
        ];
        let launch = Launch::blocks([sequences.count, 1, 1], 256, x.width * 4);
        self.launch(Source::Rows, "mean_rows", launch, &args);
    }

    /// x in f32, of unit length where wanted: `[rows, width]`.
    pub(super) fn results(&mut self, x: Rows, unit: bool) -> u64 {
        let out = self.floats(x.rows * x.width);
        if unit {
            let args = [Arg::Pointer(x.pointer), Arg::Pointer(out), x.rows.into(), x.width.into()];
            self.launch(Source::Rows, "unit_rows", Launch::blocks([x.rows.div_ceil(4), 1, 1], 128, 0), &args);
        } else {
            let count = x.rows * x.width;
            let args = [Arg::Pointer(x.pointer), Arg::Pointer(out), Arg::I64(count as i64)];
            self.launch(Source::Rows, "to_f32_rows", Launch::threads(count, 256), &args);
        }
        out
    }
}

/// Warps of a block for so many groups of 16 queries of each of `heads`: two where more would leave multiprocessors without a block.
fn attention_warps(groups: usize, heads: usize, processors: usize) -> usize {
    let full = if groups.is_multiple_of(5) { 5 } else { 4 };
    let warps = if groups.div_ceil(full) * heads < processors { 2 } else { full };
    warps.min(groups).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_attention_fill_the_card() {
        // 256 images of ViT-B/16 and one; texts of up to 16 tokens.
        assert_eq!(attention_warps(13, 256 * 12, 132), 4);
        assert_eq!(attention_warps(13, 12, 132), 2);
        assert_eq!(attention_warps(1, 1024 * 8, 132), 1);
    }
}

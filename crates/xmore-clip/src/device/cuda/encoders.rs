//! Batches through towers on a card: copies, recorded passes, and smaller batches where memory does not suffice.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rayon::prelude::*;
use xmore_cuda::{Buffer, Event, Graph, PinnedBuffer, Stream};

use crate::arch::Head;
use crate::device::{
    FileEncoder, ImageEncoder, ImageNetwork, ImageTower, TextEncoder, TextNetwork, TextTower,
};
use crate::error::{ClipError, Result};
use crate::preprocess::Pixels;
use crate::preprocess::Preprocess;
use crate::profile;

use super::files::{DecodedImages, FileDecoder, Planned, pass_size};
use super::run::{Arena, CudaRun, Rows};
use super::{Cuda, Images};

/// Images of a pass.
const IMAGES: usize = 256;
/// Tokens of texts of a pass.
const TOKENS: usize = 64 << 10;
/// Texts of a pass: attention has a grid dimension for them.
const TEXTS: usize = 16 << 10;
/// Passes that are being copied or computed at a time.
const SLOTS: usize = 2;
/// Batch sizes whose passes are kept recorded.
const MAX_GRAPHS: usize = 64;

/// What is wanted of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Output {
    /// Features before the head, `[rows, width]`.
    Features,
    /// Unit rows, `[rows, dim]`.
    Embeddings(usize),
}

/// An image tower on a card.
pub(crate) struct CudaImages {
    cuda: Cuda,
    network: Box<dyn ImageNetwork<Cuda>>,
    head: Option<Head<Cuda>>,
    state: Mutex<ImageState>,
    /// Made when files are first decoded.
    files: Mutex<Option<FileDecoder>>,
}

/// What is encoded.
#[derive(Clone, Copy)]
enum Batch<'a> {
    /// Values of this machine.
    Pixels(&'a [&'a Pixels]),
    /// Bytes on the card.
    Decoded(&'a DecodedImages),
}

impl Batch<'_> {
    fn len(self) -> usize {
        match self {
            Self::Pixels(images) => images.len(),
            Self::Decoded(images) => images.files().len(),
        }
    }
}

struct ImageState {
    arena: Arena,
    compute: Stream,
    copy: Stream,
    /// Images of a pass; halved where memory did not suffice.
    batch: usize,
    slots: Vec<Slot>,
    graphs: HashMap<(Images, Output), Recorded>,
}

/// A pass: what it reads and where its results go.
struct Slot {
    pinned: PinnedBuffer,
    input: Buffer,
    results: PinnedBuffer,
    copied: Event,
    done: Event,
    /// Images of the pass that is under way.
    pending: usize,
}

/// A pass that was made before.
enum Recorded {
    /// Once, without recording.
    Once,
    /// At this generation of the arena.
    Graph(u64, Graph, u64),
}

impl Cuda {
    pub(crate) fn image_encoder(&self, tower: ImageTower<Self>) -> Result<CudaImages> {
        let [compute, copy] = [Stream::new(&self.device)?, Stream::new(&self.device)?];
        let (arena, graphs) = (Arena::default(), HashMap::new());
        let state = ImageState { arena, compute, copy, batch: IMAGES, slots: Vec::new(), graphs };
        let (state, files) = (Mutex::new(state), Mutex::new(None));
        Ok(CudaImages { cuda: *self, network: tower.network, head: tower.head, state, files })
    }

    pub(crate) fn text_encoder(&self, tower: TextTower<Self>) -> Result<CudaTexts> {
        let state = TextState { arena: Arena::default(), stream: Stream::new(&self.device)?, tokens: TOKENS };
        Ok(CudaTexts { cuda: *self, network: tower.network, head: tower.head, state: Mutex::new(state) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From features to what is wanted, in f32.
fn output(run: &mut CudaRun<'_>, head: Option<&Head<Cuda>>, features: Rows, output: Output) -> u64 {
    match output {
        Output::Features => run.results(features, false),
        Output::Embeddings(dim) => {
            let rows = match head {
                Some(head) => head.forward(run, features.rows, &features, dim),
                None => features,
            };
            run.results(rows, true)
        }
    }
}

impl CudaImages {
    /// Numbers of a result row.
    fn length(&self, output: Output) -> usize {
        match output {
            Output::Features => self.network.width(),
            Output::Embeddings(dim) => dim,
        }
    }

    /// `[images, length]`. A batch that does not fit is halved, and the run goes on.
    fn encode(&self, images: Batch<'_>, output: Output) -> Result<Vec<f32>> {
        let mut state = lock(&self.state);
        let mut results = Vec::with_capacity(images.len() * self.length(output));
        let mut next = 0;
        let mut slot = 0;
        let outcome = loop {
            if next == images.len() {
                break Ok(());
            }
            let count = state.batch.min(images.len() - next);
            // The slot's earlier pass is the oldest one, so results come in order.
            let begun = state
                .collect(slot, self.length(output), &mut results)
                .and_then(|()| self.begin(&mut state, slot, images, next..next + count, output));
            match begun {
                Ok(()) => {
                    next += count;
                    slot = (slot + 1) % SLOTS;
                }
                Err(ClipError::Device(error)) if error.is_out_of_memory() && count > 1 => {
                    let halved = count / 2;
                    if let Err(error) = state.collect_all(slot, self.length(output), &mut results) {
                        break Err(error);
                    }
                    slot = 0;
                    state.forget(halved);
                }
                Err(error) => break Err(error),
            }
        };
        let collected = match &outcome {
            Ok(()) => state.collect_all(slot, self.length(output), &mut results),
            Err(_) => Ok(()),
        };
        if outcome.is_err() || collected.is_err() {
            let batch = state.batch;
            state.forget(batch);
        }
        outcome.and(collected).map(|()| results)
    }

    /// Starts the pass of some images.
    fn begin(
        &self,
        state: &mut ImageState,
        slot: usize,
        images: Batch<'_>,
        range: Range<usize>,
        output: Output,
    ) -> Result<()> {
        let count = range.len();
        let input = match images {
            Batch::Pixels(images) => self.copy(state, slot, &images[range], output)?,
            Batch::Decoded(images) => {
                state.slot(&self.cuda, slot, count, [0, self.length(output)])?;
                images.images(range, pass_size(count))
            }
        };
        let results = self.pass(state, input, output)?;
        let place = &mut state.slots[slot];
        // SAFETY: the slot's buffers are kept, and not touched before its pass is done, which `collect` waits for; the results are as long as the pass
        // says.
        #[allow(unsafe_code)]
        unsafe {
            place.results.copy_from(&state.compute, results, count * self.length(output) * 4)?;
        }
        place.done.record(&state.compute)?;
        place.pending = count;
        Ok(())
    }

    /// Copies images to the card; the pass waits for that.
    fn copy(
        &self,
        state: &mut ImageState,
        slot: usize,
        images: &[&Pixels],
        output: Output,
    ) -> Result<Images> {
        let values = images[0].as_slice().len();
        state.slot(&self.cuda, slot, images.len(), [values, self.length(output)])?;
        let place = &mut state.slots[slot];
        let bytes = images.len() * values * 4;
        let pinned = &mut place.pinned.as_mut_slice()[..bytes];
        let copy =
            |(to, image): (&mut [u8], &&Pixels)| to.copy_from_slice(bytemuck::cast_slice(image.as_slice()));
        // A thread of the pool that waits for others may be given other work, which may want the lock that this one holds.
        if rayon::current_thread_index().is_some() {
            pinned.chunks_exact_mut(values * 4).zip(images).for_each(copy);
        } else {
            pinned.par_chunks_exact_mut(values * 4).zip(images).for_each(copy);
        }
        // SAFETY: the slot's buffers are kept, and not touched before its pass is done, which `collect` waits for.
        #[allow(unsafe_code)]
        unsafe {
            place.pinned.copy_to(&state.copy, &place.input, bytes)?;
        }
        place.copied.record(&state.copy)?;
        state.compute.wait(&place.copied)?;
        Ok(Images { pointer: place.input.pointer(), count: images.len(), table: 0 })
    }

    /// Queues a pass: kernel by kernel the first time, recorded the second time, as a whole from then on. Returns where its results are.
    fn pass(&self, state: &mut ImageState, images: Images, output: Output) -> Result<u64> {
        let key = (images, output);
        let recorded = match state.graphs.get(&key) {
            Some(Recorded::Graph(generation, graph, results)) if *generation == state.arena.generation => {
                graph.launch(&state.compute)?;
                return Ok(*results);
            }
            Some(Recorded::Once) => true,
            _ => false,
        };
        let ImageState { arena, compute, graphs, .. } = state;
        if !recorded || graphs.len() > MAX_GRAPHS || profile::enabled() {
            let results = self.queue(arena, compute, images, output)?;
            graphs.insert(key, Recorded::Once);
            return Ok(results);
        }
        let before = arena.generation;
        let mut results = 0;
        let graph = Graph::record(compute, || {
            results = self.queue(arena, compute, images, output)?;
            Ok::<(), ClipError>(())
        })?;
        debug_assert_eq!(before, arena.generation, "memory of a pass that was run before");
        graph.launch(compute)?;
        graphs.insert(key, Recorded::Graph(arena.generation, graph, results));
        Ok(results)
    }

    fn queue(&self, arena: &mut Arena, stream: &Stream, images: Images, wanted: Output) -> Result<u64> {
        let mut run = CudaRun::new(&self.cuda, stream, arena, true);
        let features = self.network.forward(&mut run, images);
        let results = output(&mut run, self.head.as_ref(), features, wanted);
        run.finish()?;
        Ok(results)
    }
}

impl ImageState {
    /// Makes the slot's buffers for passes of so many images, whose values and results have these lengths.
    fn slot(&mut self, cuda: &Cuda, slot: usize, images: usize, [values, length]: [usize; 2]) -> Result<()> {
        let [input, results] = [values, length].map(|length| images * length * 4);
        let fits = |place: &Slot| place.input.bytes() >= input && place.results.as_slice().len() >= results;
        if self.slots.get(slot).is_some_and(fits) {
            return Ok(());
        }
        // As large as the next batches may be, so that few of them need others.
        let [input, results] = [values, length].map(|length| images.next_power_of_two() * length * 4);
        // And no smaller than they were: batches of pixels and of decoded files may come by turns.
        let old = self.slots.get(slot);
        let input = old.map_or(input, |place| input.max(place.input.bytes()));
        let results = old.map_or(results, |place| results.max(place.results.as_slice().len()));
        let device = &cuda.device;
        let place = Slot {
            pinned: PinnedBuffer::new(device, input)?,
            input: Buffer::new(device, input)?,
            results: PinnedBuffer::new(device, results)?,
            copied: Event::new(device)?,
            done: Event::new(device)?,
            pending: 0,
        };
        self.graphs.clear();
        if slot < self.slots.len() {
            self.slots[slot] = place;
        } else {
            self.slots.push(place);
        }
        Ok(())
    }

    /// Waits for the slot's pass, if there is one, and appends its results.
    fn collect(&mut self, slot: usize, length: usize, results: &mut Vec<f32>) -> Result<()> {
        let Some(place) = self.slots.get_mut(slot).filter(|place| place.pending > 0) else { return Ok(()) };
        place.done.synchronize()?;
        results
            .extend_from_slice(bytemuck::cast_slice(&place.results.as_slice()[..place.pending * length * 4]));
        place.pending = 0;
        Ok(())
    }

    /// Waits for all passes, the oldest first: that of `slot`, which would be used next.
    fn collect_all(&mut self, slot: usize, length: usize, results: &mut Vec<f32>) -> Result<()> {
        (0..SLOTS).try_for_each(|n| self.collect((slot + n) % SLOTS, length, results))
    }

    /// Gives all memory back and takes so many images at a time from now on.
    fn forget(&mut self, batch: usize) {
        // An error of the passes was, or will be, told by the next call that waits.
        let _ = self.compute.synchronize();
        let _ = self.copy.synchronize();
        self.graphs.clear();
        self.slots.clear();
        self.arena = Arena::default();
        self.batch = batch;
    }
}

impl ImageEncoder for CudaImages {
    fn features(&self, images: &[&Pixels]) -> Result<(Vec<f32>, usize)> {
        Ok((self.encode(Batch::Pixels(images), Output::Features)?, self.network.width()))
    }

    fn embeddings(&self, images: &[&Pixels], dim: usize) -> Result<Vec<f32>> {
        self.encode(Batch::Pixels(images), Output::Embeddings(dim))
    }

    fn files(&self) -> Option<&dyn FileEncoder> {
        Some(self)
    }

    fn time_passes(&self, images: &[&Pixels], dim: usize, repeats: usize) -> Result<Vec<f64>> {
        let mut state = lock(&self.state);
        state.batch = state.batch.max(images.len());
        let wanted = Output::Embeddings(dim);
        self.begin(&mut state, 0, Batch::Pixels(images), 0..images.len(), wanted)?;
        state.collect(0, self.length(wanted), &mut Vec::new())?;
        let input = Images { pointer: state.slots[0].input.pointer(), count: images.len(), table: 0 };
        let timed = (0..repeats + 2).map(|_| {
            let start = Instant::now();
            self.pass(&mut state, input, wanted)?;
            state.compute.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        });
        // The first records the pass; the second is the first of the recorded ones.
        Ok(timed.collect::<Result<Vec<_>>>()?.split_off(2))
    }
}

impl FileEncoder for CudaImages {
    fn decode(&self, files: &[&[u8]], preprocess: &Preprocess) -> Result<DecodedImages> {
        // The thread pool's work comes before the lock: a thread that waits for the pool may be given other work, which may want the lock.
        let planned = Planned::new(files, preprocess);
        let mut decoder = lock(&self.files);
        let decoder = match &mut *decoder {
            Some(decoder) => decoder,
            empty => empty.insert(FileDecoder::new(&self.cuda.device, preprocess)?),
        };
        Ok(decoder.decode(&planned)?)
    }

    fn embeddings(&self, images: &DecodedImages, dim: usize) -> Result<Vec<f32>> {
        self.encode(Batch::Decoded(images), Output::Embeddings(dim))
    }
}

/// A text tower on a card.
pub(crate) struct CudaTexts {
    cuda: Cuda,
    network: Box<dyn TextNetwork<Cuda>>,
    head: Option<Head<Cuda>>,
    state: Mutex<TextState>,
}

struct TextState {
    arena: Arena,
    stream: Stream,
    /// Tokens of a pass; halved where memory did not suffice.
    tokens: usize,
}

impl CudaTexts {
    fn encode(&self, texts: &[&[u32]], context: &[f32], wanted: Output) -> Result<Vec<f32>> {
        let mut state = lock(&self.state);
        let mut results = Vec::new();
        let mut next = 0;
        while next < texts.len() {
            let count = portion(&texts[next..], state.tokens);
            match self.pass(&mut state, &texts[next..next + count], context, wanted) {
                Ok(rows) => {
                    results.extend(rows);
                    next += count;
                }
                Err(ClipError::Device(error)) if error.is_out_of_memory() && count > 1 => {
                    let _ = state.stream.synchronize();
                    state.arena = Arena::default();
                    state.tokens = texts[next..next + count].iter().map(|text| text.len()).sum::<usize>() / 2;
                }
                Err(error) => {
                    let _ = state.stream.synchronize();
                    state.arena = Arena::default();
                    return Err(error);
                }
            }
        }
        Ok(results)
    }

    fn pass(
        &self,
        state: &mut TextState,
        texts: &[&[u32]],
        context: &[f32],
        wanted: Output,
    ) -> Result<Vec<f32>> {
        let mut run = CudaRun::new(&self.cuda, &state.stream, &mut state.arena, false);
        let features = self.network.forward(&mut run, texts, context);
        let length = match wanted {
            Output::Features => self.network.width(),
            Output::Embeddings(dim) => dim,
        };
        let pointer = output(&mut run, self.head.as_ref(), features, wanted);
        run.finish()?;
        let mut rows = vec![0.0; texts.len() * length];
        state.arena.read(&state.stream, pointer, &mut rows)?;
        Ok(rows)
    }
}

/// How many of the texts, at least one, have so many tokens together.
fn portion(texts: &[&[u32]], tokens: usize) -> usize {
    let mut sum = 0;
    let fits = texts.iter().take(TEXTS).take_while(|text| {
        sum += text.len();
        sum <= tokens
    });
    fits.count().max(1)
}

impl TextEncoder for CudaTexts {
    fn width(&self) -> usize {
        self.network.width()
    }

    fn vocabulary(&self) -> usize {
        self.network.vocabulary()
    }

    fn takes_context(&self) -> bool {
        self.network.takes_context()
    }

    fn features(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        self.encode(texts, &[], Output::Features)
    }

    fn embeddings(&self, texts: &[&[u32]], context: &[f32], dim: usize) -> Result<Vec<f32>> {
        self.encode(texts, context, Output::Embeddings(dim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_hold_at_least_one_text() {
        let texts: Vec<Vec<u32>> = [5, 3, 9, 1].map(|n| vec![0; n]).to_vec();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        assert_eq!(portion(&texts, 8), 2);
        assert_eq!(portion(&texts, 100), 4);
        assert_eq!(portion(&texts, 2), 1);
    }
}

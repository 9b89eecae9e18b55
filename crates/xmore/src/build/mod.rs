//! Building a memory: pairs from sources through the encoders onto disk.
//!
//! A build goes on where an earlier run of the same command stopped, and a command that has been completed already does nothing:
//! `sources` knows all that is to come and its digest, the memory's writer how far it has come.

mod column;
mod sources;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use xmore_clip::{Embeddings, TextEmbeddings};
use xmore_files::LeftOut;
use xmore_files::image::Orientation;
use xmore_memory::Memory;
use xmore_memory::ingest::{EmbeddingsFolder, ImageRef, InputFormat, Note, Pair, SourceOptions};
use xmore_memory::store::{BUILDING_DIR, Cursor, Manifest, MemoryWriter, Mode, finish_interrupted};

use crate::encode::{Batch, Sink, encode_images, encode_texts};
use crate::error::{Result, XmoreError};
use crate::math::dot;
use crate::models::NamedModel;
pub use column::{ColumnProgress, ColumnReport, embed_column};
use sources::{Digest, Sources};

/// Rows of an embeddings folder that are taken together.
const EMBEDDED_BATCH: usize = 1024;
/// Captions of an embeddings folder that are encoded to see whether they are the model's.
const CHECKED_CAPTIONS: usize = 16;
/// Mean cosine that they must reach. Embeddings in other precisions reach 0.99, those of another model hardly anything.
const CLAIM_COSINE: f32 = 0.95;

/// How a memory is built.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// What to do with a memory that is there.
    pub mode: Mode,
    /// What the sources are taken as.
    pub format: InputFormat,
    /// See [`SourceOptions`].
    pub source: SourceOptions,
    /// Work that a crash may cost; see [`MemoryWriter::with_checkpoint_every`].
    pub checkpoint_every: Duration,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Create,
            format: InputFormat::Auto,
            source: SourceOptions::default(),
            checkpoint_every: Duration::from_secs(5),
        }
    }
}

/// What a build did, for the user to see.
#[derive(Debug)]
pub struct BuildReport {
    /// The finished memory's manifest.
    pub manifest: Manifest,
    /// Pairs that the sources gave.
    pub pairs: u64,
    /// What gave no pair in this run, and why: things of the sources, and images that would not decode.
    pub skipped: Vec<Skipped>,
    /// How many gave none, those of interrupted runs included.
    pub skipped_in_all: u64,
    /// What is worth knowing of how the sources were read.
    pub notes: Vec<Note>,
    /// Files of folders that were not looked at, and folders that could not be listed.
    pub left_out: LeftOut,
    /// Distinct captions longer than the model's context, which were cut.
    pub truncated: u64,
    /// Things of the sources that earlier, interrupted runs had dealt with.
    pub resumed: u64,
    /// Whether the memory had all this already, so that nothing was done.
    pub was_complete: bool,
    /// Embeddings of an embeddings folder that were no unit vectors and were made ones.
    pub renormalised: u64,
    /// Images of this run that have further frames or pages, which are left out.
    pub first_of_several: u64,
}

/// Something of the source that is not in the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file, or what the source calls it.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// How far a build has come.
#[derive(Clone, Copy, Debug)]
pub struct BuildProgress {
    /// Images done (or rows of embeddings), skipped ones and those of earlier runs included.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// Things skipped so far.
    pub skipped: u64,
}

/// Encodes all pairs of the sources and writes them to `dir`.
///
/// `sources` are expanded as [`xmore_memory::ingest::expand`] says. `progress` is called after each batch and says whether to go on; if
/// not, the build ends with [`XmoreError::Interrupted`], and the same call goes on from there.
///
/// # Errors
/// Sources that cannot be read, or have changed since an interrupted run ([`XmoreError::SourcesChanged`]); a folder that cannot be
/// written or holds something else; [`XmoreError::NotThisModel`] for embeddings that are not the model's.
pub fn build_memory(
    model: &NamedModel,
    sources: &[String],
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildProgress) -> bool,
) -> Result<BuildReport> {
    let sources = Sources::open(sources, options.format, &options.source)?;
    for folder in &sources.embedded {
        check_claim(model, folder)?;
    }
    // A memory that has all this is what a command finds that was killed when it was done but for putting its parts in place, or
    // but for its exit.
    let finished = finish_interrupted(dir)?;
    if (options.mode != Mode::Overwrite || finished)
        && let Some(report) = already_complete(model, dir, options.mode, &sources)?
    {
        return Ok(report);
    }
    // Embeddings that are there already come from programs that decode pixels as they are stored.
    let orientation =
        if sources.pairs.is_empty() { Orientation::Stored } else { model.preprocess().orientation() };
    match options.mode {
        Mode::Append => model.check_files()?,
        Mode::Create | Mode::Overwrite => model.record_files()?,
    }
    let mut writer = MemoryWriter::open(dir, model.identity(), options.mode)?
        .with_orientation(orientation)?
        .with_checkpoint_every(options.checkpoint_every);
    let resumed = writer.cursor().clone();
    if resumed.consumed > 0 && sources.prefix_digest(resumed.consumed)? != Some(resumed.digest.clone()) {
        if options.mode != Mode::Overwrite {
            // Overwriting would take what an append is to be added to.
            let anew = match options.mode {
                Mode::Append => format!("by removing {}", dir.join(BUILDING_DIR).display()),
                _ => "with --overwrite".to_owned(),
            };
            return Err(XmoreError::SourcesChanged { dir: dir.to_owned(), done: resumed.consumed, anew });
        }
        writer.start_anew()?;
    }
    let mut build = Build {
        cursor: writer.cursor().clone(),
        digest: Digest::default(),
        sources: &sources,
        writer,
        skipped: Vec::new(),
        renormalised: 0,
        first_of_several: 0,
        images: &[],
        progress,
        total: sources.total(),
        texts: Vec::new(),
        stopped: false,
    };
    let resumed = build.cursor.consumed;
    build.run(model)?;
    let (pairs, skipped_in_all) = (build.writer.pairs(), build.writer.skipped());
    let truncated = build.cursor.truncated;
    Ok(BuildReport {
        manifest: build.writer.finish()?,
        pairs,
        skipped: build.skipped,
        skipped_in_all,
        notes: sources.notes.clone(),
        left_out: sources.left_out.clone(),
        truncated,
        resumed,
        was_complete: false,
        renormalised: build.renormalised,
        first_of_several: build.first_of_several,
    })
}

fn already_complete(
    model: &NamedModel,
    dir: &Path,
    mode: Mode,
    sources: &Sources,
) -> Result<Option<BuildReport>> {
    let Ok(memory) = Memory::open(dir) else { return Ok(None) };
    let manifest = memory.manifest();
    // A new memory has these sources and no others.
    let whole = mode == Mode::Append || manifest.sources.len() == 1;
    if !whole || !model.is(&manifest.model) {
        return Ok(None);
    }
    // The digest reads all embeddings of a folder of them, so it comes last.
    let digest = sources.digest()?;
    let Some(found) = manifest.sources.iter().find(|source| source.digest == digest) else { return Ok(None) };
    Ok(Some(BuildReport {
        pairs: found.pairs,
        skipped: Vec::new(),
        skipped_in_all: found.skipped,
        notes: sources.notes.clone(),
        left_out: sources.left_out.clone(),
        truncated: manifest.truncated,
        resumed: 0,
        was_complete: true,
        renormalised: 0,
        first_of_several: 0,
        manifest: manifest.clone(),
    }))
}

/// Embeddings are what a model made of them: some of their captions are encoded again and compared.
fn check_claim(model: &NamedModel, folder: &EmbeddingsFolder) -> Result<()> {
    if folder.dim() != model.dim() {
        return Err(XmoreError::NotThisModel {
            path: folder.path().to_owned(),
            model: model.name().to_owned(),
            reason: format!("they have {} values each, the model's have {}", folder.dim(), model.dim()),
        });
    }
    let Some(batch) = folder.batches(CHECKED_CAPTIONS).next().transpose()? else { return Ok(()) };
    let Some(texts) = batch.texts.filter(|_| !batch.captions.is_empty()) else { return Ok(()) };
    let ours = model.encode_texts(&batch.captions)?.embeddings;
    let cosines = ours.rows().zip(texts.chunks_exact(folder.dim())).map(|(a, b)| dot(a, b));
    let mean = cosines.sum::<f32>() / batch.captions.len() as f32;
    if mean >= CLAIM_COSINE {
        return Ok(());
    }
    Err(XmoreError::NotThisModel {
        path: folder.path().to_owned(),
        model: model.name().to_owned(),
        reason: format!(
            "its first {} captions, encoded by the model, have a mean cosine of {mean:.3} to their embeddings there, expected above \
             {CLAIM_COSINE}",
            batch.captions.len()
        ),
    })
}

/// A build under way.
struct Build<'a> {
    sources: &'a Sources,
    writer: MemoryWriter,
    /// Digest of what is consumed.
    digest: Digest,
    cursor: Cursor,
    skipped: Vec<Skipped>,
    renormalised: u64,
    first_of_several: u64,
    /// The pairs whose images are being encoded.
    images: &'a [Pair],
    progress: &'a mut dyn FnMut(BuildProgress) -> bool,
    total: u64,
    /// Captions of the batch at hand that no row has yet.
    texts: Vec<String>,
    stopped: bool,
}

impl Build<'_> {
    fn run(&mut self, model: &NamedModel) -> Result<()> {
        let done = self.cursor.consumed;
        self.sources.add_prefix(done, &mut self.digest)?;
        let sources = self.sources;
        let listed = sources.skipped.len() as u64;
        for skip in sources.skipped.iter().skip(done as usize) {
            self.digest.add_skip(skip);
            self.skip(skip.clone())?;
            self.cursor.consumed += 1;
        }
        let before =
            usize::try_from(done.saturating_sub(listed)).unwrap_or(usize::MAX).min(sources.pairs.len());
        self.images = &sources.pairs[before..];
        let images: Vec<ImageRef> = self.images.iter().map(|pair| pair.image.clone()).collect();
        encode_images(model, &images, self)?;
        if self.stopped {
            return Err(XmoreError::Interrupted);
        }
        let mut before = done.saturating_sub(listed + sources.pairs.len() as u64);
        for folder in &sources.embedded {
            let rows = folder.rows();
            self.take_embedded(model, folder, before.min(rows))?;
            before = before.saturating_sub(rows);
        }
        self.cursor.digest = self.digest.value();
        Ok(self.writer.checkpoint_now(self.cursor.clone())?)
    }

    fn skip(&mut self, skipped: Skipped) -> Result<()> {
        self.writer.skip(&skipped.path, &skipped.reason)?;
        self.skipped.push(skipped);
        Ok(())
    }

    /// Says that `things` more are dealt with; returns whether to go on.
    fn advance(&mut self, things: u64) -> Result<bool> {
        self.cursor.consumed += things;
        self.cursor.digest = self.digest.value();
        let listed = self.sources.skipped.len() as u64;
        let at = BuildProgress {
            done: self.cursor.consumed.saturating_sub(listed),
            total: self.total,
            skipped: self.writer.skipped(),
        };
        let go_on = (self.progress)(at);
        if go_on {
            self.writer.checkpoint(self.cursor.clone())?;
        } else {
            self.writer.checkpoint_now(self.cursor.clone())?;
        }
        Ok(go_on)
    }

    /// The captions among these that no row has, once each.
    fn unknown<'b>(&mut self, captions: impl Iterator<Item = &'b str>) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for caption in captions {
            if seen.insert(caption) && self.writer.known_text(caption)?.is_none() {
                unknown.push(caption.to_owned());
            }
        }
        Ok(unknown)
    }

    /// Rows of embeddings that are there already, from row `from` on.
    fn take_embedded(&mut self, model: &NamedModel, folder: &EmbeddingsFolder, from: u64) -> Result<()> {
        let dim = folder.dim();
        let mut at = 0;
        for batch in folder.batches(EMBEDDED_BATCH) {
            let batch = batch?;
            let rows = batch.len() as u64 + batch.skipped.total();
            at += rows;
            // Checkpoints fall between batches.
            if at <= from {
                continue;
            }
            self.digest.add_embedded(&batch);
            self.renormalised += batch.renormalised;
            let (name, skipped) = (folder.path().display().to_string(), &batch.skipped);
            for (count, reason) in [
                (skipped.caption, "no caption"),
                (skipped.not_finite, "an embedding that is not finite"),
                (skipped.zero, "an embedding of length zero"),
            ] {
                for _ in 0..count {
                    self.skip(Skipped {
                        path: name.clone(),
                        reason: format!("a row among rows {} to {}: {reason}", at - rows, at - 1),
                    })?;
                }
            }
            let texts = match batch.texts {
                Some(texts) => texts,
                None => {
                    let new = self.unknown(batch.captions.iter().map(String::as_str))?;
                    let encoded = encode_texts(model, &new, &mut |_| {})?;
                    self.cursor.truncated += encoded.truncated as u64;
                    let new: HashMap<&str, &[f32]> =
                        new.iter().map(String::as_str).zip(encoded.embeddings.rows()).collect();
                    let mut texts = Vec::with_capacity(batch.captions.len() * dim);
                    for caption in &batch.captions {
                        texts.extend(text_of(&mut self.writer, &new, caption)?);
                    }
                    texts
                }
            };
            let rows_of = |values: &[f32], i: usize| values[i * dim..(i + 1) * dim].to_vec();
            for (i, (path, caption)) in batch.image_paths.iter().zip(&batch.captions).enumerate() {
                self.writer.push(path, caption, &rows_of(&batch.images, i), &rows_of(&texts, i))?;
            }
            if !self.advance(rows)? {
                return Err(XmoreError::Interrupted);
            }
        }
        Ok(())
    }
}

/// The embedding of a caption that is new in this batch, or that some row has.
fn text_of(writer: &mut MemoryWriter, new: &HashMap<&str, &[f32]>, caption: &str) -> Result<Vec<f32>> {
    if let Some(row) = new.get(caption) {
        return Ok(row.to_vec());
    }
    let known = writer.known_text(caption)?;
    Ok(known.expect("a caption is either new or known"))
}

impl Sink for Build<'_> {
    fn texts(&mut self, batch: &Batch) -> Result<Vec<String>> {
        let images = self.images;
        let captions = batch.kept.iter().flat_map(|&i| &images[i].captions).map(String::as_str);
        self.texts = self.unknown(captions)?;
        Ok(self.texts.clone())
    }

    fn take(&mut self, batch: Batch, images: Embeddings, texts: TextEmbeddings) -> Result<bool> {
        let new_texts = std::mem::take(&mut self.texts);
        let new: HashMap<&str, &[f32]> =
            new_texts.iter().map(String::as_str).zip(texts.embeddings.rows()).collect();
        self.cursor.truncated += texts.truncated as u64;
        self.first_of_several += batch.first_of_several as u64;
        let pairs = self.images;
        let mut failed = batch.failed.into_iter().peekable();
        let mut rows = batch.kept.into_iter().zip(images.rows()).peekable();
        let mut things = 0;
        // In the order of the source, whichever could be read.
        loop {
            let next_failed = failed.peek().map_or(usize::MAX, |(i, _)| *i);
            let next_row = rows.peek().map_or(usize::MAX, |(i, _)| *i);
            if next_failed == usize::MAX && next_row == usize::MAX {
                break;
            }
            let pair = &pairs[next_failed.min(next_row)];
            self.digest.add_pair(pair);
            things += 1;
            if next_failed < next_row {
                if let Some((_, error)) = failed.next() {
                    self.skip(Skipped { path: pair.image.to_string(), reason: error.to_string() })?;
                }
            } else if let Some((_, image)) = rows.next() {
                let path = pair.image.to_string();
                for caption in &pair.captions {
                    let text = text_of(&mut self.writer, &new, caption)?;
                    self.writer.push(&path, caption, image, &text)?;
                }
            }
        }
        let go_on = self.advance(things)?;
        self.stopped = !go_on;
        Ok(go_on)
    }
}

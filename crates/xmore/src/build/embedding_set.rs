//! A further embedding set for a memory: its images are read again, its captions too.
//!
//! Rows whose image cannot be read are marked as such. The same call tries them again: parts with an image that can be read by then
//! are written again, the others stay as they are.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use xmore_clip::{Embeddings, TextEmbeddings};
use xmore_memory::Memory;
use xmore_memory::ingest::{ImageReader, ImageRef};
use xmore_memory::store::{
    EmbeddingSetInfo, EmbeddingSetWriter, Manifest, ModelIdentity, finish_interrupted,
};

use super::report::{SkipSummary, Skipped};
use super::write::kind_of;
use crate::encode::{Batch, Sink, check_readable, encode_images, encode_texts};
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::partly_seen::PartlySeen;

/// Rows of an embedding set of captions that are encoded together.
const CAPTIONS: usize = 1024;

/// What [`add_embedding_set`] did.
#[derive(Debug)]
pub struct EmbeddingSetReport {
    /// The memory's manifest.
    pub manifest: Manifest,
    /// Rows that were embedded in this run.
    pub embedded: u64,
    /// Rows whose image could not be read before and could be now.
    pub recovered: u64,
    /// Rows whose image cannot be read; they are not found through this embedding set.
    pub unreadable: u64,
    /// Images that could not be read in this run, and why.
    pub skipped: SkipSummary,
    /// Distinct captions that were cut in this run.
    pub truncated: u64,
    /// Images that have further frames or pages, which are left out.
    pub partly_seen: PartlySeen,
    /// Whether nothing was written, since nothing could be added.
    pub was_complete: bool,
}

/// How far an embedding set has come.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingSetProgress {
    /// Rows done.
    pub done: u64,
    /// Rows to be done in all.
    pub total: u64,
}

/// Adds embeddings of all rows by `model` to the memory in `dir`; of the captions only if `images` is false.
///
/// `progress` says whether to go on; if not, the call ends with [`XmoreError::Interrupted`], and the same call goes on from there.
///
/// # Errors
/// Those of [`EmbeddingSetWriter::open`], of the towers, and of writing. An image that cannot be read is no error: its rows are not found
/// through this embedding set, it is reported, and the same call tries it again.
pub fn add_embedding_set(
    model: &dyn Encoder,
    dir: &Path,
    images: bool,
    checkpoint_every: Duration,
    progress: &mut dyn FnMut(EmbeddingSetProgress) -> bool,
) -> Result<EmbeddingSetReport> {
    finish_interrupted(dir)?;
    let there = existing_set(&Memory::open(dir)?, model.identity());
    if let Some(report) = already_complete(dir, there.as_ref(), images)? {
        return Ok(report);
    }
    match there {
        Some(_) => model.check_files()?,
        None => model.record_files()?,
    }
    let mut writer = EmbeddingSetWriter::open(dir, model.identity().clone(), images)?
        .with_checkpoint_every(checkpoint_every);
    let mut skipped = SkipSummary::default();
    let unreadable_before = writer.unreadable()?;
    if writer.is_fresh() {
        let again = parts_to_try(model, &writer, &unreadable_before, &mut skipped)?;
        writer.again(&again)?;
    }
    if writer.total() == 0 {
        let manifest = writer.memory().manifest().clone();
        writer.discard()?;
        return Ok(nothing_to_do(manifest, there.as_ref(), skipped));
    }
    let mut run = Run {
        groups: Vec::new(),
        writer,
        texts: Vec::new(),
        skipped,
        embedded: 0,
        truncated: 0,
        partly_seen: PartlySeen::default(),
        progress,
        stopped: false,
    };
    if images {
        run.groups = groups(&run.writer)?;
        let refs: Vec<ImageRef> = run.groups.iter().map(|group| ImageRef::parse(&group.path)).collect();
        encode_images(model, &refs, &mut run)?;
    } else {
        run.captions(model)?;
    }
    if run.stopped {
        run.writer.save()?;
        return Err(XmoreError::Interrupted);
    }
    run.writer.keep_rows()?;
    let manifest = run.writer.finish()?;
    let ours = manifest.embedding_sets.iter().find(|info| info.model.is_same(model.identity()));
    let unreadable = ours.map_or(0, |info| info.unreadable);
    Ok(EmbeddingSetReport {
        embedded: run.embedded,
        recovered: count_readable(dir, model.identity(), &unreadable_before)?,
        unreadable,
        manifest,
        skipped: run.skipped,
        truncated: run.truncated,
        partly_seen: run.partly_seen,
        was_complete: false,
    })
}

/// The embedding set of a model, if the memory has one.
fn existing_set(memory: &Memory, model: &ModelIdentity) -> Option<EmbeddingSetInfo> {
    memory.manifest().embedding_sets.iter().find(|info| info.model.is_same(model)).cloned()
}

/// What a repeated command finds.
fn already_complete(
    dir: &Path,
    there: Option<&EmbeddingSetInfo>,
    images: bool,
) -> Result<Option<EmbeddingSetReport>> {
    let manifest = Memory::open(dir)?.manifest().clone();
    let is_whole = |set: &EmbeddingSetInfo| {
        let parts = manifest.parts.len();
        if images { set.images && set.is_complete(parts) } else { set.lacking(parts).next().is_none() }
    };
    Ok(there
        .filter(|set| is_whole(set))
        .is_some()
        .then(|| nothing_to_do(manifest.clone(), there, SkipSummary::default())))
}

fn nothing_to_do(
    manifest: Manifest,
    there: Option<&EmbeddingSetInfo>,
    skipped: SkipSummary,
) -> EmbeddingSetReport {
    EmbeddingSetReport {
        manifest,
        embedded: 0,
        recovered: 0,
        unreadable: there.map_or(0, |set| set.unreadable),
        skipped,
        truncated: 0,
        partly_seen: PartlySeen::default(),
        was_complete: true,
    }
}

/// How many of these rows, which had no image embedding, have one now.
fn count_readable(dir: &Path, model: &ModelIdentity, rows: &[(usize, Vec<u64>)]) -> Result<u64> {
    let memory = Memory::open(dir)?;
    let Some(set) = memory.embedding_set(model) else { return Ok(0) };
    let (mut embedding, mut readable) = (vec![0.0; set.dim()], 0);
    for &id in rows.iter().flat_map(|(_, ids)| ids) {
        set.image_embedding(id, &mut embedding)?;
        readable += u64::from(!embedding[0].is_nan());
    }
    Ok(readable)
}

/// Places of the parts with an image that could not be read and can be now. The images of the others are told as skipped.
fn parts_to_try(
    model: &dyn Encoder,
    writer: &EmbeddingSetWriter,
    unreadable: &[(usize, Vec<u64>)],
    skipped: &mut SkipSummary,
) -> Result<Vec<usize>> {
    let (reader, mut places) = (ImageReader::new(), Vec::new());
    for (place, ids) in unreadable {
        let mut failed = Vec::new();
        let mut last = String::new();
        let mut is_readable = false;
        for &id in ids {
            let path = writer.memory().image_path(id)?;
            if path == last {
                continue;
            }
            last = path.to_owned();
            match check_readable(model, &reader, &ImageRef::parse(path)) {
                Ok(()) => {
                    is_readable = true;
                    break;
                }
                Err(error) => failed.push(Skipped {
                    path: last.clone(),
                    kind: kind_of(&error),
                    reason: error.to_string(),
                }),
            }
        }
        if is_readable {
            places.push(*place);
        } else {
            failed.iter().for_each(|skip| skipped.add(skip));
        }
    }
    Ok(places)
}

/// Consecutive rows of one image.
struct Group {
    path: String,
    first: u64,
    rows: u64,
}

/// The rows that are to be written, by image.
fn groups(writer: &EmbeddingSetWriter) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for id in writer.rows_to_push() {
        let path = writer.memory().image_path(id)?;
        match groups.last_mut() {
            Some(group) if group.path == path && group.first + group.rows == id => group.rows += 1,
            _ => groups.push(Group { path: path.to_owned(), first: id, rows: 1 }),
        }
    }
    Ok(groups)
}

struct Run<'a> {
    writer: EmbeddingSetWriter,
    groups: Vec<Group>,
    /// Captions of the batch at hand that are not encoded yet.
    texts: Vec<String>,
    skipped: SkipSummary,
    embedded: u64,
    truncated: u64,
    partly_seen: PartlySeen,
    progress: &'a mut dyn FnMut(EmbeddingSetProgress) -> bool,
    stopped: bool,
}

impl Run<'_> {
    /// Captions of rows that are not encoded yet, once each.
    fn unknown(&mut self, ids: impl Iterator<Item = u64>) -> Result<Vec<String>> {
        let (mut unknown, mut seen) = (Vec::new(), HashSet::new());
        for id in ids {
            let caption = self.writer.memory().caption(id)?.to_owned();
            if self.known(id, &caption)?.is_none() && seen.insert(caption.clone()) {
                unknown.push(caption);
            }
        }
        Ok(unknown)
    }

    /// The embedding of a row's caption, if it was encoded before.
    fn known(&mut self, id: u64, caption: &str) -> Result<Option<Vec<f32>>> {
        match self.writer.text_of_row(id)? {
            Some(text) => Ok(Some(text)),
            None => Ok(self.writer.known_text(caption)?),
        }
    }

    /// Writes a row, and before it those that are kept as they are.
    fn push(&mut self, id: u64, image: Option<&[f32]>, new: &HashMap<&str, &[f32]>) -> Result<()> {
        self.writer.keep_rows()?;
        let caption = self.writer.memory().caption(id)?.to_owned();
        match new.get(caption.as_str()) {
            Some(text) => self.writer.push(image, text)?,
            None => {
                let known = self.known(id, &caption)?;
                self.writer.push(image, &known.expect("a caption is either new or known"))?;
            }
        }
        self.embedded += 1;
        Ok(())
    }

    fn advance(&mut self) -> Result<bool> {
        let at = EmbeddingSetProgress { done: self.writer.done(), total: self.writer.total() };
        let go_on = (self.progress)(at);
        self.stopped = !go_on;
        self.writer.checkpoint()?;
        Ok(go_on)
    }

    fn captions(&mut self, model: &dyn Encoder) -> Result<()> {
        loop {
            let ids: Vec<u64> = self.writer.rows_to_push().take(CAPTIONS).collect();
            if ids.is_empty() {
                return Ok(());
            }
            let new = self.unknown(ids.iter().copied())?;
            let encoded = encode_texts(model, &new, &mut |_| {})?;
            self.truncated += encoded.truncated as u64;
            let new = new.iter().map(String::as_str).zip(encoded.embeddings.rows()).collect();
            for id in ids {
                self.push(id, None, &new)?;
            }
            if !self.advance()? {
                return Ok(());
            }
        }
    }
}

impl Sink for Run<'_> {
    fn texts(&mut self, batch: &Batch) -> Result<Vec<String>> {
        let images = batch.kept.len() + batch.failed.len();
        let groups = &self.groups[batch.end - images..batch.end];
        let ids: Vec<u64> = groups.iter().flat_map(|group| group.first..group.first + group.rows).collect();
        self.texts = self.unknown(ids.into_iter())?;
        Ok(self.texts.clone())
    }

    fn take(&mut self, batch: Batch, images: Embeddings, texts: TextEmbeddings) -> Result<bool> {
        let new_texts = std::mem::take(&mut self.texts);
        let new = new_texts.iter().map(String::as_str).zip(texts.embeddings.rows()).collect();
        self.truncated += texts.truncated as u64;
        self.partly_seen += batch.partly_seen;
        let first = batch.end - batch.kept.len() - batch.failed.len();
        let mut failed: HashMap<usize, XmoreError> = batch.failed.into_iter().collect();
        let mut embeddings = images.rows();
        for i in first..batch.end {
            let Group { first, rows, .. } = self.groups[i];
            let image = match failed.remove(&i) {
                None => embeddings.next(),
                Some(error) => {
                    let path = self.groups[i].path.clone();
                    self.skipped.add(&Skipped { path, kind: kind_of(&error), reason: error.to_string() });
                    None
                }
            };
            for id in first..first + rows {
                self.push(id, image, &new)?;
            }
        }
        self.advance()
    }
}

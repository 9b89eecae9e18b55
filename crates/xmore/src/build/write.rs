//! A build under way: what the plan says, read, encoded and written batch by batch.

use std::collections::{HashMap, HashSet};

use xmore_clip::{Embeddings, TextEmbeddings};
use xmore_files::path_to_text;
use xmore_memory::MemoryError;
use xmore_memory::ingest::{EmbeddingsBatch, EmbeddingsFolder, ImageRef, Pair, SkipKind};
use xmore_memory::store::{Cursor, MemoryWriter};

use super::plan::Plan;
use super::report::{SkipSummary, Skipped};
use super::sources::{Digest, Sources};
use super::{BuildProgress, EMBEDDED_BATCH};
use crate::encode::{Batch, Sink, encode_images, encode_texts};
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::partly_seen::PartlySeen;

/// A build under way.
pub(super) struct Build<'a> {
    sources: &'a Sources,
    pub writer: MemoryWriter,
    pub plan: Plan,
    /// The pairs whose images are being encoded.
    images: Vec<Pair>,
    /// Digest of all that the sources list.
    digest: Digest,
    cursor: Cursor,
    pub skipped: SkipSummary,
    /// Pairs written whose image failed before.
    pub recovered: u64,
    pub renormalized: u64,
    pub partly_seen: PartlySeen,
    progress: &'a mut dyn FnMut(BuildProgress) -> bool,
    total: u64,
    /// Captions of the batch at hand that no row has yet.
    texts: Vec<String>,
    stopped: bool,
}

impl<'a> Build<'a> {
    /// A build that has done nothing yet.
    pub fn new(
        sources: &'a Sources,
        writer: MemoryWriter,
        mut plan: Plan,
        progress: &'a mut dyn FnMut(BuildProgress) -> bool,
    ) -> Self {
        let images = std::mem::take(&mut plan.pairs);
        Self {
            sources,
            plan,
            digest: sources.listed(),
            cursor: Cursor { consumed: 0, ..writer.cursor().clone() },
            writer,
            skipped: SkipSummary::default(),
            recovered: 0,
            renormalized: 0,
            partly_seen: PartlySeen::default(),
            progress,
            total: images.len() as u64 + sources.rows(),
            images,
            texts: Vec::new(),
            stopped: false,
        }
    }

    /// Does all of it, up to what the writer's end does.
    pub fn run(&mut self, model: &dyn Encoder) -> Result<()> {
        let sources = self.sources;
        for skip in &sources.skipped {
            self.skip(skip)?;
        }
        let images: Vec<ImageRef> = self.images.iter().map(|pair| pair.image.clone()).collect();
        encode_images(model, &images, self)?;
        if self.stopped {
            return Err(XmoreError::Interrupted);
        }
        for folder in &sources.embedded {
            self.take_embedded(model, folder)?;
        }
        self.cursor.digest = self.digest.value();
        Ok(self.writer.checkpoint_now(self.cursor.clone())?)
    }

    fn skip(&mut self, skipped: &Skipped) -> Result<()> {
        self.writer.skip(&skipped.path, skipped.kind, &skipped.reason)?;
        self.skipped.add(skipped);
        Ok(())
    }

    /// Says that `things` more are dealt with; returns whether to go on.
    fn advance(&mut self, things: u64) -> Result<bool> {
        self.cursor.consumed += things;
        let at =
            BuildProgress { done: self.cursor.consumed, total: self.total, skipped: self.skipped.total() };
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
        let mut seen = HashSet::new();
        for caption in captions {
            if seen.insert(caption) && self.writer.known_text(caption)?.is_none() {
                unknown.push(caption.to_owned());
            }
        }
        Ok(unknown)
    }

    /// Rows of embeddings that are not there yet.
    fn take_embedded(&mut self, model: &dyn Encoder, folder: &EmbeddingsFolder) -> Result<()> {
        let dim = folder.dim();
        let mut at = 0;
        for batch in folder.batches(EMBEDDED_BATCH) {
            let batch = batch?;
            let rows = batch.len() as u64 + batch.skipped.total();
            at += rows;
            self.digest.add_embedded(&batch);
            self.renormalized += batch.renormalized;
            self.skip_rows(folder, &batch, at - rows..at)?;
            let new: Vec<usize> = self
                .plan
                .new_rows(&batch, dim)
                .into_iter()
                .enumerate()
                .filter_map(|(row, is_new)| is_new.then_some(row))
                .collect();
            let row_of = |values: &[f32], row: usize| values[row * dim..(row + 1) * dim].to_vec();
            let texts: Vec<Vec<f32>> = match &batch.texts {
                Some(texts) => new.iter().map(|&row| row_of(texts, row)).collect(),
                None => self.encode_captions(model, new.iter().map(|&row| &*batch.captions[row]))?,
            };
            for (&row, text) in new.iter().zip(&texts) {
                let (path, caption) = (&batch.image_paths[row], &batch.captions[row]);
                self.writer.push(path, caption, &row_of(&batch.images, row), text)?;
            }
            if !self.advance(rows)? {
                return Err(XmoreError::Interrupted);
            }
        }
        Ok(())
    }

    /// Lists the rows of a batch that are of no use.
    fn skip_rows(
        &mut self,
        folder: &EmbeddingsFolder,
        batch: &EmbeddingsBatch,
        rows: std::ops::Range<u64>,
    ) -> Result<()> {
        let skipped = &batch.skipped;
        for (count, kind, reason) in [
            (skipped.caption, SkipKind::NoCaption, "no caption"),
            (skipped.not_finite, SkipKind::BadEmbedding, "an embedding that is not finite"),
            (skipped.zero, SkipKind::BadEmbedding, "an embedding of length zero"),
        ] {
            for _ in 0..count {
                self.skip(&Skipped {
                    path: path_to_text(folder.path()).into_owned(),
                    kind,
                    reason: format!("a row among rows {} to {}: {reason}", rows.start, rows.end - 1),
                })?;
            }
        }
        Ok(())
    }

    /// Embeddings of captions, each encoded once.
    fn encode_captions<'b>(
        &mut self,
        model: &dyn Encoder,
        captions: impl Iterator<Item = &'b str> + Clone,
    ) -> Result<Vec<Vec<f32>>> {
        let new = self.unknown(captions.clone())?;
        let encoded = encode_texts(model, &new, &mut |_| {})?;
        self.cursor.truncated += encoded.truncated as u64;
        let new = new.iter().map(String::as_str).zip(encoded.embeddings.rows()).collect();
        captions.map(|caption| text_of(&mut self.writer, &new, caption)).collect()
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

/// The kind of an image's failure.
pub(super) fn kind_of(error: &XmoreError) -> SkipKind {
    match error {
        XmoreError::Memory(MemoryError::Image { .. }) => SkipKind::UnreadableImage,
        _ => SkipKind::BrokenImage,
    }
}

impl Sink for Build<'_> {
    fn texts(&mut self, batch: &Batch) -> Result<Vec<String>> {
        let images = std::mem::take(&mut self.images);
        let captions = batch.kept.iter().flat_map(|&i| &images[i].captions).map(String::as_str);
        let unknown = self.unknown(captions);
        self.images = images;
        self.texts = unknown?;
        Ok(self.texts.clone())
    }

    fn take(&mut self, batch: Batch, images: Embeddings, texts: TextEmbeddings) -> Result<bool> {
        let new_texts = std::mem::take(&mut self.texts);
        let new: HashMap<&str, &[f32]> =
            new_texts.iter().map(String::as_str).zip(texts.embeddings.rows()).collect();
        self.cursor.truncated += texts.truncated as u64;
        self.partly_seen += batch.partly_seen;
        let first = batch.end - batch.kept.len() - batch.failed.len();
        let mut failed: HashMap<usize, XmoreError> = batch.failed.into_iter().collect();
        let mut rows = images.rows();
        // In the order of the source, whichever could be read.
        for i in first..batch.end {
            let pair = std::mem::replace(
                &mut self.images[i],
                Pair { image: ImageRef::File(Default::default()), captions: Vec::new() },
            );
            let path = pair.image.to_string();
            if let Some(error) = failed.remove(&i) {
                self.skip(&Skipped { path, kind: kind_of(&error), reason: error.to_string() })?;
            } else if let Some(image) = rows.next() {
                if self.plan.failed_before(&path) {
                    self.recovered += pair.captions.len() as u64;
                }
                for caption in &pair.captions {
                    let text = text_of(&mut self.writer, &new, caption)?;
                    self.writer.push(&path, caption, image, &text)?;
                }
            }
        }
        let go_on = self.advance((batch.end - first) as u64)?;
        self.stopped = !go_on;
        Ok(go_on)
    }
}

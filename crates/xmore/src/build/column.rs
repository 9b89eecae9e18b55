//! A further column of embeddings for a memory: its images are read again, its captions too.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use xmore_clip::{Embeddings, TextEmbeddings};
use xmore_memory::Memory;
use xmore_memory::ingest::ImageRef;
use xmore_memory::store::{ColumnWriter, Manifest, ModelIdentity, finish_interrupted};

use crate::encode::{Batch, Sink, encode_images, encode_texts};
use crate::error::{Result, XmoreError};
use crate::models::NamedModel;

/// Rows of a column of captions that are encoded together.
const CAPTIONS: u64 = 1024;

/// What [`embed_column`] did.
#[derive(Debug)]
pub struct ColumnReport {
    /// The memory's manifest.
    pub manifest: Manifest,
    /// Rows that an earlier run had done.
    pub resumed: u64,
    /// Images that could not be read again, in this run, and why.
    pub unreadable: Vec<(String, String)>,
    /// Distinct captions that were cut in this run.
    pub truncated: u64,
    /// Images that have further frames or pages, which are left out.
    pub first_of_several: u64,
    /// Whether all rows had such embeddings already, so that nothing was done.
    pub was_complete: bool,
}

/// How far a column has come.
#[derive(Clone, Copy, Debug)]
pub struct ColumnProgress {
    /// Rows done.
    pub done: u64,
    /// Rows in all.
    pub total: u64,
}

/// Adds embeddings of all rows by `model` to the memory in `dir`; of the captions only if `images` is false.
///
/// `progress` says whether to go on; if not, the call ends with [`XmoreError::Interrupted`], and the same call goes on from there.
///
/// # Errors
/// Those of [`ColumnWriter::open`], of the towers, and of writing. An image that cannot be read is no error: its rows are not found
/// through this column, and it is reported.
pub fn embed_column(
    model: &NamedModel,
    dir: &Path,
    images: bool,
    checkpoint_every: Duration,
    progress: &mut dyn FnMut(ColumnProgress) -> bool,
) -> Result<ColumnReport> {
    finish_interrupted(dir)?;
    if let Some(report) = already_complete(model, dir, images)? {
        return Ok(report);
    }
    model.record_files()?;
    let writer = ColumnWriter::open(dir, model.identity(), images)?.with_checkpoint_every(checkpoint_every);
    let resumed = writer.next_row();
    let mut column = Column {
        writer,
        groups: Vec::new(),
        texts: Vec::new(),
        unreadable: Vec::new(),
        truncated: 0,
        first_of_several: 0,
        progress,
        stopped: false,
    };
    if images {
        column.groups = groups(&column.writer)?;
        let refs: Vec<ImageRef> = column.groups.iter().map(|group| ImageRef::parse(&group.path)).collect();
        encode_images(model, &refs, &mut column)?;
    } else {
        column.captions(model)?;
    }
    if column.stopped {
        column.writer.save()?;
        return Err(XmoreError::Interrupted);
    }
    Ok(ColumnReport {
        manifest: column.writer.finish()?,
        resumed,
        unreadable: column.unreadable,
        truncated: column.truncated,
        first_of_several: column.first_of_several,
        was_complete: false,
    })
}

/// What a repeated command finds.
fn already_complete(model: &NamedModel, dir: &Path, images: bool) -> Result<Option<ColumnReport>> {
    let (memory, ours) = (Memory::open(dir)?, model.identity());
    let manifest = memory.manifest();
    let same = |theirs: &ModelIdentity| (&theirs.sha256, theirs.dim) == (&ours.sha256, ours.dim);
    let there = manifest.columns.iter().find(|column| same(&column.model));
    let whole = there.is_some_and(|c| c.parts.len() == manifest.parts.len() && (c.images || !images));
    Ok(whole.then(|| ColumnReport {
        manifest: manifest.clone(),
        resumed: memory.len(),
        unreadable: Vec::new(),
        truncated: 0,
        first_of_several: 0,
        was_complete: true,
    }))
}

/// Consecutive rows of one image.
struct Group {
    path: String,
    rows: u64,
}

/// The rows that are to be written, by image.
fn groups(writer: &ColumnWriter) -> Result<Vec<Group>> {
    let memory = writer.memory();
    let mut groups: Vec<Group> = Vec::new();
    for id in writer.next_row()..memory.len() {
        let path = memory.image_path(id)?;
        match groups.last_mut() {
            Some(group) if group.path == path => group.rows += 1,
            _ => groups.push(Group { path: path.to_owned(), rows: 1 }),
        }
    }
    Ok(groups)
}

struct Column<'a> {
    writer: ColumnWriter,
    groups: Vec<Group>,
    /// Captions of the batch at hand that are not encoded yet.
    texts: Vec<String>,
    unreadable: Vec<(String, String)>,
    truncated: u64,
    first_of_several: u64,
    progress: &'a mut dyn FnMut(ColumnProgress) -> bool,
    stopped: bool,
}

impl Column<'_> {
    /// Captions of the next rows that are not encoded yet, once each.
    fn unknown(&mut self, rows: u64) -> Result<Vec<String>> {
        let (mut unknown, mut seen) = (Vec::new(), HashSet::new());
        let first = self.writer.next_row();
        for id in first..first + rows {
            let caption = self.writer.memory().caption(id)?.to_owned();
            if self.writer.known_text(&caption)?.is_none() && seen.insert(caption.clone()) {
                unknown.push(caption);
            }
        }
        Ok(unknown)
    }

    /// Writes the next rows, all of one image.
    fn push(&mut self, rows: u64, image: Option<&[f32]>, new: &HashMap<&str, &[f32]>) -> Result<()> {
        for _ in 0..rows {
            let caption = self.writer.memory().caption(self.writer.next_row())?.to_owned();
            match new.get(caption.as_str()) {
                Some(text) => self.writer.push(image, text)?,
                None => {
                    let known = self.writer.known_text(&caption)?;
                    self.writer.push(image, &known.expect("a caption is either new or known"))?;
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<bool> {
        let at = ColumnProgress { done: self.writer.next_row(), total: self.writer.memory().len() };
        let go_on = (self.progress)(at);
        self.stopped = !go_on;
        self.writer.checkpoint()?;
        Ok(go_on)
    }

    fn captions(&mut self, model: &NamedModel) -> Result<()> {
        while self.writer.next_row() < self.writer.memory().len() {
            let rows = CAPTIONS.min(self.writer.memory().len() - self.writer.next_row());
            let new = self.unknown(rows)?;
            let encoded = encode_texts(model, &new, &mut |_| {})?;
            self.truncated += encoded.truncated as u64;
            let new = new.iter().map(String::as_str).zip(encoded.embeddings.rows()).collect();
            self.push(rows, None, &new)?;
            if !self.advance()? {
                break;
            }
        }
        Ok(())
    }
}

impl Sink for Column<'_> {
    fn texts(&mut self, batch: &Batch) -> Result<Vec<String>> {
        let images = batch.kept.len() + batch.failed.len();
        let groups = &self.groups[batch.end - images..batch.end];
        let rows = groups.iter().map(|group| group.rows).sum();
        self.texts = self.unknown(rows)?;
        Ok(self.texts.clone())
    }

    fn take(&mut self, batch: Batch, images: Embeddings, texts: TextEmbeddings) -> Result<bool> {
        let new_texts = std::mem::take(&mut self.texts);
        let new = new_texts.iter().map(String::as_str).zip(texts.embeddings.rows()).collect();
        self.truncated += texts.truncated as u64;
        self.first_of_several += batch.first_of_several as u64;
        let first = batch.end - batch.kept.len() - batch.failed.len();
        let mut failed: HashMap<usize, XmoreError> = batch.failed.into_iter().collect();
        let mut embeddings = images.rows();
        for i in first..batch.end {
            let rows = self.groups[i].rows;
            match failed.remove(&i) {
                None => self.push(rows, embeddings.next(), &new)?,
                Some(error) => {
                    self.unreadable.push((self.groups[i].path.clone(), error.to_string()));
                    self.push(rows, None, &new)?;
                }
            }
        }
        self.advance()
    }
}

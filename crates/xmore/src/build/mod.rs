//! Building a memory: pairs from sources through the encoders onto disk.
//!
//! One rule for every state in which a memory can be: what the sources list and the memory does not have is read, encoded and added
//! (`plan`). So a build goes on where an earlier run was stopped, takes what has come to the sources since, and tries again what could
//! not be read; where nothing is left to do, nothing is written.
//!
//! A build can be divided: `part` builds one part of it, `merge` makes of all parts what one build would have made.

mod embedding_set;
mod limit;
mod merge;
mod part;
mod part_error;
mod plan;
mod report;
mod sources;
mod write;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use xmore_clip::Embeddings;
use xmore_files::image::Orientation;
use xmore_memory::Memory;
use xmore_memory::ingest::{EmbeddingsFolder, InputFormat, SourceOptions};
use xmore_memory::store::{Manifest, MemoryWriter, Mode, PartialBuild, SourceInfo, finish_interrupted};

use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::math::dot;
pub use embedding_set::{EmbeddingSetProgress, EmbeddingSetReport, add_embedding_set};
pub use limit::SkipLimit;
pub use merge::{MergeProgress, MergeReport, merge_memories};
pub use part::{Part, build_part};
pub use part_error::PartError;
use plan::{Plan, is_covered};
pub use report::{BuildOutcome, BuildReport, SkipSummary, Skipped};
use sources::Sources;
use write::Build;

/// Rows of an embeddings folder that are taken together.
const EMBEDDED_BATCH: usize = 1024;
/// Captions of an embeddings folder that are encoded to see whether they are the model's.
const CHECKED_CAPTIONS: usize = 16;
/// Mean cosine that they must reach. Embeddings in other precisions reach 0.99, those of another model hardly anything.
const CLAIM_COSINE: f32 = 0.95;

/// How a memory is built.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// What to do with a memory that is there. [`Mode::Create`] adds to one of the same sources what it lacks.
    pub mode: Mode,
    /// What the sources are taken as.
    pub format: InputFormat,
    /// See [`SourceOptions`].
    pub source: SourceOptions,
    /// How many images, rows and files may fail; beyond that, a memory is not replaced.
    pub max_skipped: SkipLimit,
    /// Work that a crash may cost; see [`MemoryWriter::with_checkpoint_every`].
    pub checkpoint_every: Duration,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Create,
            format: InputFormat::Auto,
            source: SourceOptions::default(),
            max_skipped: SkipLimit::default(),
            checkpoint_every: Duration::from_secs(5),
        }
    }
}

/// How far a build has come.
#[derive(Clone, Copy, Debug)]
pub struct BuildProgress {
    /// Images done (or rows of embeddings), skipped ones included.
    pub done: u64,
    /// In all, without what the memory has already.
    pub total: u64,
    /// Things skipped so far.
    pub skipped: u64,
}

/// Encodes all pairs of the sources that the memory in `dir` does not have and writes them to it.
///
/// `sources` are expanded as [`xmore_memory::ingest::expand`] says; [`xmore_memory::store::PairKeys`] says when two pairs are the same.
/// What cannot be read is skipped, told, and tried again by the same call. A memory without a pair is never written. `progress` is
/// called after each batch and says whether to go on; if not, the build ends with [`XmoreError::Interrupted`], and the same call goes on.
///
/// # Errors
/// Sources that cannot be read, or do not list any more what an interrupted run has written ([`XmoreError::SourcesChanged`]); a folder
/// that cannot be written or holds something else, such as a part of a divided build ([`PartError::IsAPart`]); [`XmoreError::NotThisModel`] for embeddings that are not the model's.
pub fn build_memory(
    model: &dyn Encoder,
    sources: &[impl AsRef<OsStr>],
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildProgress) -> bool,
) -> Result<BuildReport> {
    if let Some(there) = PartialBuild::read(dir)? {
        return Err(PartError::IsAPart { dir: dir.to_owned(), part: Part::from(&there) }.into());
    }
    let sources = Sources::open(sources, options)?;
    for folder in &sources.embedded {
        check_claim(model, folder)?;
    }
    // What was killed when it was done but for putting its parts in place is done now.
    let finished = finish_interrupted(dir)?;
    let mut former = match options.mode == Mode::Overwrite && !finished {
        true => None,
        false => Former::find(model, dir, &sources)?,
    };
    let mut mode = options.mode;
    if let (Mode::Create, Some(former)) = (mode, &mut former)
        && former.is_of(&sources)?
    {
        mode = Mode::Append;
    }
    if let Some(report) = former.as_ref().and_then(|former| former.done(&sources, mode, finished, options)) {
        return Ok(report);
    }
    match mode {
        Mode::Append => model.check_files()?,
        Mode::Create | Mode::Overwrite => model.record_files()?,
    }
    let entry = former.as_ref().and_then(|former| former.entry).filter(|_| mode == Mode::Append);
    let is_only = entry.is_some() && former.is_some_and(|former| former.manifest().sources.len() == 1);
    // Embeddings that are there already come from programs that decode pixels as they are stored.
    let orientation = if sources.pairs.is_empty() { Orientation::Stored } else { model.orientation() };
    let mut writer = MemoryWriter::open(dir, model.identity().clone(), mode)?
        .with_orientation(orientation)?
        .with_checkpoint_every(options.checkpoint_every);
    let mut plan = Plan::new(&sources, &mut writer)?;
    if plan.stray > 0 {
        if mode != Mode::Overwrite {
            let (dir, done) = (dir.to_owned(), writer.pairs());
            return Err(XmoreError::SourcesChanged { dir, done, missing: plan.stray, mode });
        }
        writer.start_anew()?;
        plan = Plan::new(&sources, &mut writer)?;
    }
    writer.begin_source(&sources.from, entry)?;
    if let Some(entry) = entry {
        plan.learn_failures(dir, entry);
    }
    let resumed = writer.pairs();
    let mut build = Build::new(&sources, writer, plan, progress);
    build.run(model)?;
    let Build { writer, plan, skipped, recovered, renormalized, partly_seen, .. } = build;
    let added = writer.pairs();
    let over_limit = !options.max_skipped.allows(skipped.failed(), sources.things());
    let truncated = writer.cursor().truncated;
    let outcome = if added == 0 {
        writer.discard()?;
        if plan.present > 0 { BuildOutcome::NothingNew } else { BuildOutcome::NothingRead }
    } else if mode == Mode::Overwrite
        && over_limit
        && Memory::open(dir).is_ok_and(|memory| !memory.is_empty())
    {
        BuildOutcome::FormerKept
    } else {
        writer.finish()?;
        BuildOutcome::Written
    };
    Ok(BuildReport {
        added,
        recovered,
        present: plan.present,
        repeated: plan.repeated,
        unlisted: if is_only { plan.unlisted } else { 0 },
        skipped,
        over_limit,
        truncated,
        resumed,
        renormalized,
        partly_seen,
        ..BuildReport::of(&sources, outcome, manifest_of(dir))
    })
}

/// The manifest of the memory that is in a folder, if there is one.
fn manifest_of(dir: &Path) -> Option<Manifest> {
    Memory::open(dir).ok().map(|memory| memory.manifest().clone())
}

/// A memory of the same model that is there before a build.
struct Former {
    memory: Memory,
    /// Its entry of these sources, as they were.
    entry: Option<usize>,
    /// Whether they are as they were.
    unchanged: bool,
}

impl Former {
    fn find(model: &dyn Encoder, dir: &Path, sources: &Sources) -> Result<Option<Former>> {
        let Ok(memory) = Memory::open(dir) else { return Ok(None) };
        if !model.is(&memory.manifest().model) {
            return Ok(None);
        }
        // The digest reads all embeddings of a folder of them, so it comes last.
        let digest = sources.digest()?;
        let entries = &memory.manifest().sources;
        let of = |is: &dyn Fn(&SourceInfo) -> bool| entries.iter().position(is);
        let entry =
            of(&|source| source.from == sources.from).or_else(|| of(&|source| source.digest == digest));
        let unchanged = entry.is_some_and(|entry| entries[entry].digest == digest);
        Ok(Some(Former { memory, entry, unchanged }))
    }

    fn manifest(&self) -> &Manifest {
        self.memory.manifest()
    }

    /// Whether it was built from these sources and no others, as they are or as they were before they grew.
    fn is_of(&mut self, sources: &Sources) -> Result<bool> {
        let only = self.manifest().sources.len() == 1;
        if only && self.entry.is_some() {
            return Ok(true);
        }
        let covered = is_covered(&self.memory, sources)?;
        if covered && only {
            self.entry = Some(0);
        }
        Ok(covered)
    }

    /// The report if there is nothing to do. `finished` is a build that has only now been put in place: what failed a moment ago is not
    /// tried again.
    fn done(
        &self,
        sources: &Sources,
        mode: Mode,
        finished: bool,
        options: &BuildOptions,
    ) -> Option<BuildReport> {
        let source = &self.manifest().sources[self.entry.filter(|_| self.unchanged)?];
        let failed = source.failed();
        if mode == Mode::Create || (failed > 0 && !finished) || self.manifest().pairs_lost() > 0 {
            return None;
        }
        Some(BuildReport {
            present: source.pairs,
            skipped: SkipSummary { counts: source.skipped_by.clone(), examples: Vec::new() },
            over_limit: !options.max_skipped.allows(failed, sources.things()),
            ..BuildReport::of(sources, BuildOutcome::NothingNew, Some(self.manifest().clone()))
        })
    }
}

/// Embeddings are what a model made of them: some of their captions are encoded again and compared.
fn check_claim(model: &dyn Encoder, folder: &EmbeddingsFolder) -> Result<()> {
    if folder.dim() != model.dim() {
        return Err(XmoreError::NotThisModel {
            path: folder.path().to_owned(),
            model: model.identity().to_string(),
            reason: format!("they have {} values each, the model's have {}", folder.dim(), model.dim()),
        });
    }
    let Some(batch) = folder.batches(CHECKED_CAPTIONS).next().transpose()? else { return Ok(()) };
    let Some(texts) = batch.texts.filter(|_| !batch.captions.is_empty()) else { return Ok(()) };
    let captions: Vec<&str> = batch.captions.iter().map(AsRef::as_ref).collect();
    let ours: Embeddings = model.embed_texts(&captions)?.embeddings;
    let cosines = ours.rows().zip(texts.chunks_exact(folder.dim())).map(|(a, b)| dot(a, b));
    let mean = cosines.sum::<f32>() / batch.captions.len() as f32;
    if mean >= CLAIM_COSINE {
        return Ok(());
    }
    Err(XmoreError::NotThisModel {
        path: folder.path().to_owned(),
        model: model.identity().to_string(),
        reason: format!(
            "its first {} captions, encoded by the model, have a mean cosine of {mean:.3} to their embeddings there, expected above \
             {CLAIM_COSINE}",
            batch.captions.len()
        ),
    })
}

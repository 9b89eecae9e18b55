//! What a build did, for the user to see.

use xmore_files::LeftOut;
use xmore_memory::ingest::{Note, SkipKind};
use xmore_memory::store::{Manifest, SkipCounts, failures};

use super::sources::Sources;
use crate::partly_seen::PartlySeen;

/// Skipped things that a report names; the memory's list has all.
const EXAMPLES: usize = 20;

/// Something of the source that is not in the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file, or what the source calls it.
    pub path: String,
    /// The kind of reason.
    pub kind: SkipKind,
    /// Why.
    pub reason: String,
}

/// What was skipped: counted by kind, the first few by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkipSummary {
    /// How many of each kind, by [`SkipKind::name`].
    pub counts: SkipCounts,
    /// The first ones.
    pub examples: Vec<Skipped>,
}

impl SkipSummary {
    /// Counts one.
    pub(super) fn add(&mut self, skipped: &Skipped) {
        *self.counts.entry(skipped.kind.name().to_owned()).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(skipped.clone());
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Those that went wrong, and may succeed when they are tried again.
    pub fn failed(&self) -> u64 {
        failures(&self.counts)
    }
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildOutcome {
    /// Pairs were written, and the memory is in place.
    Written,
    /// The memory had every pair already that could be read; nothing was written.
    NothingNew,
    /// The memory has none of the sources' pairs, since none could be read; nothing was written.
    NothingRead,
    /// More failed than is allowed for replacing a memory, where the former one stays, or for finishing a part of a divided build. What
    /// could be read is kept, and the same call goes on with it.
    FormerKept,
}

/// What a build did.
#[derive(Debug)]
pub struct BuildReport {
    /// How it ended.
    pub outcome: BuildOutcome,
    /// The manifest of the memory that is there now; `None` if there is none.
    pub manifest: Option<Manifest>,
    /// Pairs that were written, those of an interrupted run included.
    pub added: u64,
    /// Those among them that had failed when the memory was last built from these sources.
    pub recovered: u64,
    /// Pairs of these sources that the memory had before.
    pub present: u64,
    /// Pairs that the sources list once more; each was taken once.
    pub repeated: u64,
    /// Pairs of the memory that the sources do not list, where they are all that it was built from.
    pub unlisted: u64,
    /// Images and rows of embeddings that the sources list, and files that could not be listed.
    pub things: u64,
    /// What gave no pair in this run, and why.
    pub skipped: SkipSummary,
    /// What is worth knowing of how the sources were read.
    pub notes: Vec<Note>,
    /// Files of folders that were not looked at, and folders that could not be listed.
    pub left_out: LeftOut,
    /// Whether more failed than [`BuildOptions::max_skipped`](super::BuildOptions::max_skipped) allows.
    pub over_limit: bool,
    /// Distinct captions longer than the model's context, which were cut.
    pub truncated: u64,
    /// Pairs that earlier, interrupted runs had written.
    pub resumed: u64,
    /// Embeddings of an embeddings folder that were no unit vectors and were made ones.
    pub renormalized: u64,
    /// Images of this run that have further frames or pages, which are left out.
    pub partly_seen: PartlySeen,
}

impl BuildReport {
    /// What can be said of a build from its sources alone: nothing was done, there was nothing to skip.
    pub(super) fn of(sources: &Sources, outcome: BuildOutcome, manifest: Option<Manifest>) -> Self {
        Self {
            outcome,
            manifest,
            added: 0,
            recovered: 0,
            present: 0,
            repeated: 0,
            unlisted: 0,
            things: sources.things(),
            skipped: SkipSummary::default(),
            notes: sources.notes.clone(),
            left_out: sources.left_out.clone(),
            over_limit: false,
            truncated: 0,
            resumed: 0,
            renormalized: 0,
            partly_seen: PartlySeen::default(),
        }
    }
}

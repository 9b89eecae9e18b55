//! What was skipped: told at the end of a build, and listed in full by `memory info --skipped`.

use std::collections::BTreeMap;
use std::path::Path;

use xmore::SkipSummary;
use xmore_memory::Memory;
use xmore_memory::ingest::SkipKind;
use xmore_memory::store::{SkipCounts, read_skip_list};

use crate::error::Result;
use crate::hints;
use crate::messages::tell;
use crate::output::csv::CsvOutput;

/// Tells the first skipped things by name, then how many there are of each kind. `listed` is the memory whose list has all.
pub(super) fn tell_skipped(skipped: &SkipSummary, listed: Option<&Path>) {
    for skip in &skipped.examples {
        tell!("skipped {}: {}", skip.path, skip.reason);
    }
    let more = skipped.total() - skipped.examples.len() as u64;
    if more > 0 && !skipped.examples.is_empty() {
        tell!("… and {more} more");
    }
    for line in kinds(&skipped.counts) {
        tell!("{line}");
    }
    if let Some(hint) = hints::of_skipped(&skipped.counts) {
        tell!("hint: {hint}");
    }
    if let (Some(dir), 1..) = (listed, skipped.total()) {
        tell!("`xmore memory info {} --skipped` lists them", dir.display());
    }
}

/// A line for each kind of what was skipped; kinds of other versions go by their names.
pub(super) fn kinds(counts: &SkipCounts) -> Vec<String> {
    let known = SkipKind::all().map(|kind| (kind.name(), kind.describe()));
    let others = counts.keys().map(String::as_str).filter(|name| SkipKind::parse(name).is_none());
    let kinds = known.chain(others.map(|name| (name, name)));
    let counted =
        kinds.filter_map(|(name, words)| Some((counts.get(name).filter(|&&count| count > 0)?, words)));
    counted.map(|(count, words)| format!("{count:>9} {words}")).collect()
}

/// Prints all lists of a memory as one csv.
pub(super) fn list(memory: &Memory) -> Result<()> {
    let mut csv = CsvOutput::new();
    csv.row(["source", "path", "reason", "kind"])?;
    for number in 0..memory.manifest().sources.len() {
        let mut result = Ok(());
        read_skip_list(memory.dir(), number, &mut |skip| {
            let kind = skip.kind.map_or("", SkipKind::name);
            result = csv.row([&*number.to_string(), &skip.path, &skip.reason, kind]);
            result.is_ok()
        })?;
        result?;
    }
    csv.flush()
}

/// How much the sources of a memory skip, by kind.
pub(super) fn counts(memory: &Memory) -> SkipCounts {
    let mut counts = BTreeMap::new();
    for (name, count) in memory.manifest().sources.iter().flat_map(|source| &source.skipped_by) {
        *counts.entry(name.clone()).or_default() += count;
    }
    counts
}

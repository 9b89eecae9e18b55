//! What of a memory is sound, and from that what a repair does: nothing is changed here.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::checksum;
use super::super::layout::{
    ALL_SERIES, EMBEDDING_SETS_DIR, IMAGES, LOOKUP, METADATA, Modality, Series, TEXTS, skipped_path,
};
use super::super::lookup::Lookup;
use super::super::manifest::{Checksums, EmbeddingSetInfo, Manifest, PartInfo};
use super::super::metadata::Metadata;
use super::super::npy::NpyMatrix;
use super::super::verify::strays;
use crate::error::Result;
use crate::search::codes::Codes;

/// What a repair does.
#[derive(Debug)]
pub(super) struct Plan {
    /// For each part, in the manifest's order.
    pub parts: Vec<PartPlan>,
    /// For each embedding set.
    pub embedding_sets: Vec<EmbeddingSetPlan>,
    /// Numbers of the lists of skipped things that are damaged or missing.
    pub lists: Vec<usize>,
    /// Files that are named as those of the memory but are not in its manifest.
    pub strays: Vec<PathBuf>,
}

/// What is done with a part of the memory.
#[derive(Debug)]
pub(super) struct PartPlan {
    /// Rows that are kept, from the first.
    pub kept: u64,
    /// Why not all are.
    pub reason: String,
    /// Which of the two files with the strings is sound; `None` if neither is.
    pub strings: Option<Series>,
    /// Files that are made again, if all rows are kept.
    pub rebuilt: Vec<Series>,
}

/// What is done with a further embedding set: for each of its parts, in the memory's places.
#[derive(Debug)]
pub(super) struct EmbeddingSetPlan {
    pub parts: Vec<EmbeddingSetPartPlan>,
}

/// What is done with a part of a further embedding set.
#[derive(Debug, Default)]
pub(super) struct EmbeddingSetPartPlan {
    /// Why it is taken out, if it is.
    pub reason: String,
    /// Its files that are made again.
    pub rebuilt: Vec<Series>,
}

impl Plan {
    /// Reads all of a memory and decides.
    ///
    /// # Errors
    /// [`crate::MemoryError::Io`] if a folder cannot be listed; files that cannot be read are damaged.
    pub fn new(dir: &Path, manifest: &Manifest) -> Result<Plan> {
        let parts: Vec<PartPlan> =
            manifest.parts.iter().map(|part| PartPlan::new(dir, part, manifest.model.dim)).collect();
        let embedding_sets = manifest
            .embedding_sets
            .iter()
            .map(|set| EmbeddingSetPlan::new(dir, manifest, set, &parts))
            .collect();
        let lists = manifest.sources.iter().enumerate().filter_map(|(number, source)| {
            let recorded = source.skipped_sha256.as_ref()?;
            (!is_recorded(&skipped_path(dir, number), Some(recorded))).then_some(number)
        });
        Ok(Plan { parts, embedding_sets, lists: lists.collect(), strays: strays(dir, manifest)? })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let is_whole = |reason: &String, rebuilt: &Vec<Series>| reason.is_empty() && rebuilt.is_empty();
        self.parts.iter().all(|part| is_whole(&part.reason, &part.rebuilt))
            && self.embedding_set_parts().all(|part| is_whole(&part.reason, &part.rebuilt))
            && self.lists.is_empty()
            && self.strays.is_empty()
    }

    /// Whether files are taken out.
    pub fn takes_out(&self) -> bool {
        self.parts.iter().any(|part| !part.reason.is_empty())
            || self.embedding_set_parts().any(|part| !part.reason.is_empty())
            || !self.lists.is_empty()
            || !self.strays.is_empty()
    }

    fn embedding_set_parts(&self) -> impl Iterator<Item = &EmbeddingSetPartPlan> {
        self.embedding_sets.iter().flat_map(|set| &set.parts)
    }

    /// Bytes that are written, about: the sizes of the files of which there will be another one.
    pub fn bytes(&self, dir: &Path, manifest: &Manifest) -> u64 {
        let size = |folder: &Path, series: Series, part: &PartInfo, dim: usize| {
            let found = fs::metadata(series.path(folder, part.number)).map_or(0, |data| data.len());
            let embeddings = part.rows * dim as u64 * 2;
            if series == METADATA || series == LOOKUP {
                found.max(part.rows * 16)
            } else {
                found.max(embeddings / 2)
            }
        };
        let mut bytes = 1 << 16;
        for (part, plan) in manifest.parts.iter().zip(&self.parts) {
            let cut = 0 < plan.kept && !plan.reason.is_empty();
            let written = if cut { &ALL_SERIES[..] } else { &plan.rebuilt };
            bytes += written.iter().map(|&series| size(dir, series, part, manifest.model.dim)).sum::<u64>();
        }
        for (set, plan) in manifest.embedding_sets.iter().zip(&self.embedding_sets) {
            let folder = dir.join(EMBEDDING_SETS_DIR).join(&set.name);
            for ((part, primary), plan) in manifest.parts.iter().zip(&self.parts).zip(&plan.parts) {
                let written = if primary.reason.is_empty() { &plan.rebuilt } else { set.series() };
                bytes +=
                    written.iter().map(|&series| size(&folder, series, part, set.model.dim)).sum::<u64>();
            }
        }
        bytes
    }
}

impl PartPlan {
    fn new(dir: &Path, part: &PartInfo, dim: usize) -> PartPlan {
        let (mut kept, mut reason) = (part.rows, String::new());
        for series in [IMAGES, TEXTS] {
            if let Some((rows, why)) = lost_rows(dir, series, part, &part.sha256, dim)
                && rows <= kept
            {
                (kept, reason) = (rows, why);
            }
        }
        let sound: Vec<Series> =
            [METADATA, LOOKUP].into_iter().filter(|&s| has_strings(dir, s, part)).collect();
        if sound.is_empty() {
            let names = [METADATA, LOOKUP].map(|series| series.file_name(part.number));
            (kept, reason) = (0, format!("{} cannot be read, nor can {}", names[0], names[1]));
        }
        let rebuilt = if reason.is_empty() {
            let is_bad = |series: &Series| match *series {
                METADATA | LOOKUP => !sound.contains(series),
                other => other.is_derived() && !has_codes(dir, other, part, &part.sha256, dim),
            };
            ALL_SERIES.iter().copied().filter(is_bad).collect()
        } else {
            Vec::new()
        };
        PartPlan { kept, reason, strings: sound.first().copied(), rebuilt }
    }
}

impl EmbeddingSetPlan {
    fn new(dir: &Path, manifest: &Manifest, set: &EmbeddingSetInfo, parts: &[PartPlan]) -> EmbeddingSetPlan {
        let (folder, dim) = (dir.join(EMBEDDING_SETS_DIR).join(&set.name), set.model.dim);
        let plan = |(place, (part, sha256)): (usize, (&PartInfo, &Checksums))| {
            let mut plan = EmbeddingSetPartPlan::default();
            // A row that leaves the memory leaves its embedding sets too.
            let kept = parts[place].kept;
            if kept == 0 || sha256.is_empty() {
                return plan;
            }
            let given = set.series().iter().filter(|series| !series.is_derived());
            let mut lost = given.filter_map(|&series| lost_rows(&folder, series, part, sha256, dim));
            if let Some((_, why)) = lost.find(|(rows, _)| *rows < kept) {
                plan.reason = why;
            } else if parts[place].reason.is_empty() {
                let is_bad = |s: &Series| s.is_derived() && !has_codes(&folder, *s, part, sha256, dim);
                plan.rebuilt = set.series().iter().copied().filter(is_bad).collect();
            }
            plan
        };
        EmbeddingSetPlan { parts: manifest.parts.iter().zip(&set.parts).enumerate().map(plan).collect() }
    }
}

/// The whole rows of embeddings that are not as they were recorded, and what is wrong; `None` if they are.
fn lost_rows(
    folder: &Path,
    series: Series,
    part: &PartInfo,
    sha256: &Checksums,
    dim: usize,
) -> Option<(u64, String)> {
    let path = series.path(folder, part.number);
    let name = series.file_name(part.number);
    let there = NpyMatrix::whole_rows(&path, dim);
    if there < part.rows {
        return Some((there, format!("{name} has {there} of {} rows", part.rows)));
    }
    if NpyMatrix::open(&path, part.rows, dim).is_ok() && is_recorded(&path, sha256.get(series.name)) {
        return None;
    }
    Some((0, format!("the content of {name} has changed")))
}

/// Whether a file with strings can be read and is what was recorded.
fn has_strings(dir: &Path, series: Series, part: &PartInfo) -> bool {
    let path = series.path(dir, part.number);
    let read = || match series {
        METADATA => Metadata::read(&path, part.rows).is_ok(),
        _ => Lookup::open(&path, part.rows).and_then(|lookup| lookup.to_metadata()).is_ok(),
    };
    let recorded = part.sha256.get(series.name);
    // Without a checksum the primary file rules.
    (recorded.is_some() || series == METADATA) && is_recorded(&path, recorded) && read()
}

/// Whether codes can be used and are what was recorded.
fn has_codes(folder: &Path, series: Series, part: &PartInfo, sha256: &Checksums, dim: usize) -> bool {
    let path = series.path(folder, part.number);
    let recorded = sha256.get(series.name);
    let opens = Modality::of_codes(series).is_some() && Codes::open(&path, part.rows as usize, dim).is_ok();
    opens && recorded.is_some() && is_recorded(&path, recorded)
}

/// Whether a file is there and has the content that was recorded, if any was.
fn is_recorded(path: &Path, recorded: Option<&String>) -> bool {
    match recorded {
        Some(recorded) => checksum::of_file(path).is_ok_and(|found| found == *recorded),
        None => path.exists(),
    }
}

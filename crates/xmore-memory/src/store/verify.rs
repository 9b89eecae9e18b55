//! Checking a memory against its manifest: every byte by its checksum, rows that belong together, embeddings of unit length.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::checksum;
use super::files::names_in;
use super::layout::{
    ALL_SERIES, BUILDING_DIR, EMBEDDING_SETS_DIR, IMAGES, LOOKUP, MANIFEST_COPY, MANIFEST_FILE, METADATA,
    SET_ASIDE_DIR, Series, skipped_path,
};
use super::lookup::Lookup;
use super::manifest::{Checksums, Manifest, SetAside};
use super::metadata::Metadata;
use super::npy::NpyMatrix;
use super::publish::{is_pending, pending_manifest};
use crate::error::{AtPath, MemoryError, Result};
use crate::search::codes::Codes;
use crate::store::StoreError;

/// Stored unit vectors are this near to length 1: float16 rounds each value by 2⁻¹¹ of it at most.
const NORM_TOLERANCE: f64 = 2e-3;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// The part it belongs to, if it belongs to one.
    pub part: Option<usize>,
    /// The embedding set's name; `None` for the primary one.
    pub embedding_set: Option<String>,
    /// What was expected and what was found.
    pub problem: String,
    /// Whether it can be made again from the rest.
    pub derived: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

/// What [`verify`] found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Number of pairs.
    pub pairs: u64,
    /// Number of files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files without a recorded checksum, as memories of version 1 have none.
    pub unchecked: u64,
    /// Rows whose embedding is not of unit length, in both modalities and all embedding sets.
    pub not_unit: u64,
    /// What is wrong; empty if nothing is.
    pub findings: Vec<Finding>,
    /// An unfinished build is there beside the memory.
    pub unfinished: bool,
    /// Files of a build or a repair are complete but not in place yet: the next writer puts them there.
    pub pending: bool,
    /// What repairs took out of the memory.
    pub set_aside: Vec<SetAside>,
    /// Number of the files that repairs set aside, and their bytes.
    pub set_aside_files: (u64, u64),
}

/// Reads all of a memory and compares it with its manifest. `progress` gets the parts done and their number.
///
/// # Errors
/// [`StoreError::Manifest`], [`StoreError::NotAMemory`] and the like if there is no manifest to compare with. What is wrong
/// with the files is no error but a [`Finding`].
pub fn verify(dir: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<VerifyReport> {
    let manifest_path = dir.join(MANIFEST_FILE);
    if !manifest_path.exists() {
        // Says why.
        super::Memory::open(dir)?;
    }
    let manifest = Manifest::read(&manifest_path)?;
    let mut report = VerifyReport {
        pairs: manifest.pairs,
        unfinished: dir.join(BUILDING_DIR).exists(),
        pending: is_pending(dir),
        set_aside: manifest.set_aside.clone(),
        set_aside_files: files_set_aside(dir),
        ..VerifyReport::default()
    };
    let of_embedding_sets = manifest.embedding_sets.iter().flat_map(|set| &set.parts);
    let total = manifest.parts.len() + of_embedding_sets.filter(|sha256| !sha256.is_empty()).count();
    let mut done = 0;
    for part in &manifest.parts {
        let at =
            Part { dir, embedding_set: None, number: part.number, rows: part.rows, dim: manifest.model.dim };
        at.check(&ALL_SERIES, &part.sha256, &mut report);
        done += 1;
        progress(done, total);
    }
    for set in &manifest.embedding_sets {
        let folder = dir.join(EMBEDDING_SETS_DIR).join(&set.name);
        for (part, sha256) in manifest.parts.iter().zip(&set.parts).filter(|(_, sha256)| !sha256.is_empty()) {
            let (number, rows, dim) = (part.number, part.rows, set.model.dim);
            let at = Part { dir: &folder, embedding_set: Some(&set.name), number, rows, dim };
            at.check(set.series(), sha256, &mut report);
            done += 1;
            progress(done, total);
        }
    }
    for (number, source) in manifest.sources.iter().enumerate() {
        let path = skipped_path(dir, number);
        if source.skipped_sha256.is_none() && !path.exists() {
            continue;
        }
        if let Err(problem) = check_list(&path, source.skipped_sha256.as_deref(), &mut report) {
            report.findings.push(Finding { path, part: None, embedding_set: None, problem, derived: false });
        }
    }
    let copy = dir.join(MANIFEST_COPY);
    if manifest.is_current() && !report.pending && fs::read(&copy).ok() != fs::read(&manifest_path).ok() {
        let problem = "it should be the same as the manifest".to_owned();
        report.findings.push(Finding { path: copy, part: None, embedding_set: None, problem, derived: true });
    }
    if let Some(pending) = pending_manifest(dir) {
        report.findings.retain(|finding| !is_put_in_place(dir, finding, &pending));
    }
    // What is about to be put in place is no stray.
    let strays = if report.pending { Vec::new() } else { strays(dir, &manifest)? };
    report.findings.extend(strays.into_iter().map(|path| Finding {
        path,
        part: None,
        embedding_set: None,
        problem: "it is named as a file of the memory, but the manifest does not have it".to_owned(),
        derived: false,
    }));
    Ok(report)
}

/// Files below what repairs set aside: their number and bytes.
fn files_set_aside(dir: &Path) -> (u64, u64) {
    fn walk(dir: &Path, files: &mut (u64, u64)) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => walk(&entry.path(), files),
                Ok(data) => *files = (files.0 + 1, files.1 + data.len()),
                Err(_) => {}
            }
        }
    }
    let mut files = (0, 0);
    walk(&dir.join(SET_ASIDE_DIR), &mut files);
    files
}

/// Whether what differs from the manifest is what the next manifest has: a file that was put in place before it.
fn is_put_in_place(dir: &Path, finding: &Finding, pending: &Manifest) -> bool {
    let set = pending.embedding_sets.iter().find(|set| Some(&set.name) == finding.embedding_set.as_ref());
    let place = pending.parts.iter().position(|part| Some(part.number) == finding.part);
    let sha256 = set.zip(place).and_then(|(set, place)| set.parts.get(place));
    let series = finding.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let list =
        pending.sources.iter().enumerate().find(|(number, _)| skipped_path(dir, *number) == finding.path);
    let recorded = match list {
        Some((_, source)) => source.skipped_sha256.as_ref(),
        None => sha256.zip(series).and_then(|(sha256, series)| sha256.get(series)),
    };
    recorded.is_some_and(|recorded| checksum::of_file(&finding.path).is_ok_and(|found| *recorded == found))
}

/// Files that are named as those of a memory, in its folders, but are not in its manifest.
pub(super) fn strays(dir: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>> {
    let numbers = |has_part: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let parts = manifest.parts.iter().enumerate().filter(|(place, _)| has_part(*place));
        parts.map(|(_, part)| part.number).collect()
    };
    let mut folders = vec![(dir.to_owned(), numbers(&|_| true), &ALL_SERIES[..])];
    for name in names_in(&dir.join(EMBEDDING_SETS_DIR))? {
        let set = manifest.embedding_sets.iter().find(|set| Path::new(&set.name) == Path::new(&name));
        let (parts, series) = match set {
            Some(set) => (numbers(&|place| set.has_part(place)), set.series()),
            None => (Vec::new(), &[][..]),
        };
        folders.push((dir.join(EMBEDDING_SETS_DIR).join(name), parts, series));
    }
    let mut strays = Vec::new();
    for (folder, parts, all) in folders {
        for series in ALL_SERIES {
            let known: HashSet<PathBuf> = parts
                .iter()
                .filter(|_| all.contains(&series))
                .map(|&number| series.path(&folder, number))
                .collect();
            let within = folder.join(series.name);
            let paths = names_in(&within)?.into_iter().filter(|name| series.is_file_name(name));
            strays.extend(paths.map(|name| within.join(name)).filter(|path| !known.contains(path)));
        }
    }
    Ok(strays)
}

/// Compares a list of skipped things with its recorded checksum.
fn check_list(path: &Path, recorded: Option<&str>, report: &mut VerifyReport) -> Result<(), String> {
    report.bytes += fs::metadata(path).at("open", path).map_err(problem_of)?.len();
    report.files += 1;
    check_content(path, recorded, report)
}

/// Compares a file's content with its recorded checksum, if it has one.
fn check_content(path: &Path, recorded: Option<&str>, report: &mut VerifyReport) -> Result<(), String> {
    let Some(recorded) = recorded else {
        report.unchecked += 1;
        return Ok(());
    };
    let found = checksum::of_file(path).map_err(problem_of)?;
    if recorded == found {
        return Ok(());
    }
    Err(format!("its content has changed: expected SHA-256 {recorded}, found {found}"))
}

/// What is wrong with a file that is part of the finding already.
fn problem_of(error: MemoryError) -> String {
    match error {
        MemoryError::Store(StoreError::Damaged { expected, found, .. }) => {
            format!("expected {expected}, found {found}")
        }
        MemoryError::Io { action, source, .. } => format!("cannot {action} it: {source}"),
        MemoryError::Parquet { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// A part to be checked.
struct Part<'a> {
    dir: &'a Path,
    embedding_set: Option<&'a str>,
    number: usize,
    rows: u64,
    dim: usize,
}

impl Part<'_> {
    fn check(&self, series: &[Series], sha256: &Checksums, report: &mut VerifyReport) {
        let mut sound = Vec::new();
        for &series in series {
            let path = series.path(self.dir, self.number);
            let recorded = sha256.get(series.name);
            if series.is_derived() && recorded.is_none() && !path.exists() {
                // Memories of version 1 have none.
                continue;
            }
            match self.check_file(series, &path, recorded, report) {
                Ok(()) => sound.push(series),
                Err(problem) => {
                    let embedding_set = self.embedding_set.map(str::to_owned);
                    let derived = series.is_derived();
                    report.findings.push(Finding {
                        path,
                        part: Some(self.number),
                        embedding_set,
                        problem,
                        derived,
                    });
                }
            }
        }
        // Where one of them is damaged, the other is not to blame.
        if [METADATA, LOOKUP].iter().all(|series| sound.contains(series))
            && let Err(problem) = self.compare_strings()
        {
            let path = LOOKUP.path(self.dir, self.number);
            report.findings.push(Finding {
                path,
                part: Some(self.number),
                embedding_set: None,
                problem,
                derived: true,
            });
        }
    }

    fn check_file(
        &self,
        series: Series,
        path: &Path,
        recorded: Option<&String>,
        report: &mut VerifyReport,
    ) -> Result<(), String> {
        report.bytes += fs::metadata(path).at("open", path).map_err(problem_of)?.len();
        report.files += 1;
        match series {
            METADATA => drop(Metadata::read(path, self.rows).map_err(problem_of)?),
            LOOKUP => drop(Lookup::open(path, self.rows).map_err(problem_of)?),
            series if series.is_derived() => {
                drop(Codes::open(path, self.rows as usize, self.dim).map_err(problem_of)?)
            }
            series => {
                let matrix = NpyMatrix::open(path, self.rows, self.dim).map_err(problem_of)?;
                report.not_unit +=
                    not_unit(&matrix, self.dim, series == IMAGES && self.embedding_set.is_some());
            }
        }
        check_content(path, recorded.map(String::as_str), report)
    }

    /// Strings must be the same in both files.
    fn compare_strings(&self) -> Result<(), String> {
        let problem_of = |error: MemoryError| error.to_string();
        let metadata =
            Metadata::read(&METADATA.path(self.dir, self.number), self.rows).map_err(problem_of)?;
        let lookup = Lookup::open(&LOOKUP.path(self.dir, self.number), self.rows).map_err(problem_of)?;
        let same = |row: usize| {
            lookup.image_path(row).ok() == metadata.image_paths.get(row)
                && lookup.caption(row).ok() == metadata.captions.get(row)
        };
        match (0..self.rows as usize).find(|&row| !same(row)) {
            None => Ok(()),
            Some(row) => {
                Err(format!("row {row} differs from the one in {}", METADATA.file_name(self.number)))
            }
        }
    }
}

/// Number of rows that are no unit vectors. Where an image could not be read, a further embedding set has NaNs on purpose.
fn not_unit(matrix: &NpyMatrix, dim: usize, nan_is_fine: bool) -> u64 {
    let odd = |row: &&[half::f16]| {
        let norm = row.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>().sqrt();
        let missing = nan_is_fine && row.iter().all(|v| v.is_nan());
        // A NaN is not near 1 either.
        let unit = (norm - 1.0).abs() <= NORM_TOLERANCE;
        !missing && !unit
    };
    matrix.data().chunks_exact(dim).filter(odd).count() as u64
}

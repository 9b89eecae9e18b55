//! Mending a memory: what can be made again is, a torn tail is cut off, and nothing is thrown away: what is taken out of
//! the memory is set aside.

use std::fs;
use std::path::{Path, PathBuf};

use super::lock::Lock;
use super::lookup::{self, Lookup};
use super::manifest::{Manifest, PartInfo};
use super::metadata::Metadata;
use super::npy::NpyMatrix;
use super::open_part::{checksums, write_codes};
use super::publish::roll_forward;
use super::reader::Memory;
use super::texts::DistinctCount;
use super::verify::modality_of;
use super::{
    ALL_SERIES, BUILDING_DIR, COLUMN_SERIES, COLUMNS_DIR, DERIVED, IMAGE_CODES, IMAGES, LOOKUP,
    MANIFEST_FILE, METADATA, PRIMARY, Series, TEXT_CODES, TEXTS, checksum, sync_dir,
};
use crate::error::{AtPath, Result};
use crate::search::codes::Codes;

/// Where files go that are taken out of a memory.
const ASIDE_DIR: &str = ".xmore-set-aside";

/// What [`repair`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// A build that was only to be put in place was.
    pub completed: bool,
    /// Derived files made again.
    pub rebuilt: Vec<PathBuf>,
    /// Pairs that are no longer in the memory.
    pub dropped: u64,
    /// Columns that lost parts.
    pub columns_cut: usize,
    /// What was done, a line each.
    pub notes: Vec<String>,
    /// Where the files are that were taken out, if any were.
    pub set_aside: Option<PathBuf>,
}

impl RepairReport {
    /// Whether anything was done.
    pub fn changed(&self) -> bool {
        self.completed || !self.rebuilt.is_empty() || self.dropped > 0 || self.columns_cut > 0
    }
}

/// Mends the memory in `dir`:
///
/// 1. A build that had only to be put in place is.
/// 2. A part of which a file is torn, missing, or has other content than was recorded is cut to the rows that are whole in
///    all its files. Content that has changed without a change of size cannot be told row by row: then the part is dropped.
///    Later parts move up, so their ids change.
/// 3. Derived files that are missing or damaged are made again.
///
/// Whatever is replaced or dropped is set aside in a folder, not deleted. An unfinished build is left as it is.
///
/// # Errors
/// [`crate::MemoryError::Busy`], [`crate::MemoryError::Manifest`] if there is no readable manifest, [`crate::MemoryError::Io`].
pub fn repair(dir: &Path) -> Result<RepairReport> {
    let manifest_path = dir.join(MANIFEST_FILE);
    if !manifest_path.exists() && !dir.join(BUILDING_DIR).exists() {
        // Says what is wrong.
        Memory::open(dir)?;
    }
    let _lock = Lock::take(dir)?;
    repair_locked(dir)
}

/// Opens a memory, which is locked, to be added to: one whose files have no checksums gets them first.
pub(super) fn open_with_checksums(dir: &Path) -> Result<Memory> {
    let memory = Memory::open(dir)?;
    if !memory.manifest().lacks_checksums() {
        return Ok(memory);
    }
    drop(memory);
    repair_locked(dir)?;
    Memory::open(dir)
}

fn repair_locked(dir: &Path) -> Result<RepairReport> {
    let manifest_path = dir.join(MANIFEST_FILE);
    let mut report = RepairReport::default();
    if roll_forward(dir)? {
        report.completed = true;
        report.notes.push("put finished parts in place, as an interrupted process had begun to".to_owned());
    }
    if !manifest_path.exists() {
        Memory::open(dir)?;
    }
    let manifest = Manifest::read(&manifest_path)?;
    let mut mender = Mender { dir, manifest, report, aside: dir.join(ASIDE_DIR) };
    mender.mend_parts()?;
    mender.mend_columns()?;
    mender.mend_derived()?;
    if mender.report.changed() {
        mender.manifest = mender.manifest.updated(dir)?;
        mender.manifest.write(&manifest_path)?;
        sync_dir(dir)?;
    }
    Ok(mender.report)
}

struct Mender<'a> {
    dir: &'a Path,
    manifest: Manifest,
    report: RepairReport,
    aside: PathBuf,
}

/// What is left of a part.
enum Left {
    Whole,
    /// The first rows, and why not all.
    Rows(u64, String),
}

impl Mender<'_> {
    /// Cuts or drops parts whose own files are damaged.
    fn mend_parts(&mut self) -> Result<()> {
        let mut place = 0;
        while place < self.manifest.parts.len() {
            match self.left(place) {
                Left::Whole => place += 1,
                Left::Rows(0, why) => self.drop_part(place, &why)?,
                Left::Rows(rows, why) => {
                    self.cut_part(place, rows, &why)?;
                    place += 1;
                }
            }
        }
        self.manifest.pairs = self.manifest.parts.iter().map(|p| p.rows).sum();
        if self.report.dropped > 0 {
            self.count_images()?;
        }
        Ok(())
    }

    /// How many rows of a part are whole in all its own files.
    fn left(&self, place: usize) -> Left {
        let (info, dim) = (&self.manifest.parts[place], self.manifest.model.dim);
        let number = info.number;
        let mut rows = info.rows;
        let mut why = String::new();
        let changed = |series: Series, why: &mut String| {
            let path = series.path(self.dir, number);
            let changed = !is_recorded(&path, info.sha256.get(series.name));
            if changed {
                *why = format!("the content of {} has changed", series.file_name(number));
            }
            changed
        };
        for series in [IMAGES, TEXTS] {
            let path = series.path(self.dir, number);
            let there = NpyMatrix::whole_rows(&path, dim);
            if there < info.rows {
                why = format!("{} has {there} of {} rows", series.file_name(number), info.rows);
                rows = rows.min(there);
            } else if changed(series, &mut why) {
                rows = 0;
            }
        }
        if self.strings(place).is_none() {
            why = format!(
                "{} cannot be read, nor can {}",
                METADATA.file_name(number),
                LOOKUP.file_name(number)
            );
            rows = 0;
        }
        if rows == info.rows { Left::Whole } else { Left::Rows(rows, why) }
    }

    /// A part's strings from whichever of the two files is good.
    fn strings(&self, place: usize) -> Option<Metadata> {
        let info = &self.manifest.parts[place];
        let number = info.number;
        let good = |series: Series| {
            let path = series.path(self.dir, number);
            path.exists() && is_recorded(&path, info.sha256.get(series.name))
        };
        let read = || Metadata::read(&METADATA.path(self.dir, number), info.rows).ok();
        let look_up =
            || Lookup::open(&LOOKUP.path(self.dir, number), info.rows).and_then(|l| l.to_metadata()).ok();
        let metadata = if good(METADATA) { read() } else { None };
        metadata.or_else(|| if good(LOOKUP) { look_up() } else { None })
    }

    fn drop_part(&mut self, place: usize, why: &str) -> Result<()> {
        let PartInfo { rows, number, .. } = self.manifest.parts[place];
        self.note(format!("dropped part {number} with {rows} pairs: {why}"));
        self.report.dropped += rows;
        for (folder, series, _, _) in self.folders() {
            for &series in series {
                self.set_aside(&series.path(&folder, number))?;
            }
        }
        self.manifest.parts.remove(place);
        for column in &mut self.manifest.columns {
            if place < column.parts.len() {
                column.parts.remove(place);
            }
        }
        Ok(())
    }

    /// The memory's own folder and those of its columns, with their series, numbers of parts and embedding lengths.
    fn folders(&self) -> Vec<(PathBuf, &'static [Series], usize, usize)> {
        let manifest = &self.manifest;
        let own = (self.dir.to_owned(), &ALL_SERIES[..], manifest.parts.len(), manifest.model.dim);
        let columns = self.manifest.columns.iter().map(|column| {
            let folder = self.dir.join(COLUMNS_DIR).join(&column.name);
            (folder, &COLUMN_SERIES[..], column.parts.len(), column.model.dim)
        });
        std::iter::once(own).chain(columns).collect()
    }

    fn cut_part(&mut self, place: usize, rows: u64, why: &str) -> Result<()> {
        let PartInfo { rows: all, number, .. } = self.manifest.parts[place];
        self.note(format!("cut part {number} from {all} to {rows} pairs: {why}"));
        self.report.dropped += all - rows;
        // `left` has seen that they can be read.
        let strings = self.strings(place).unwrap_or_default();
        for (folder, series, count, dim) in self.folders() {
            if place >= count {
                continue;
            }
            for series in series.iter().filter(|s| [IMAGES, TEXTS].contains(s)) {
                let path = series.path(&folder, number);
                // A column's may be shorter; that is seen to afterwards.
                if NpyMatrix::whole_rows(&path, dim) >= rows {
                    self.cut_matrix(&path, rows, dim)?;
                }
            }
            for series in series.iter().filter(|s| s.is_derived() || **s == METADATA) {
                self.set_aside(&series.path(&folder, number))?;
            }
        }
        strings.first(rows as usize).write(&METADATA.path(self.dir, number))?;
        self.manifest.parts[place].rows = rows;
        let have_checksums = !self.manifest.parts[place].sha256.is_empty();
        if have_checksums {
            let sha256 = checksums(self.dir, number, &PRIMARY)?;
            self.manifest.parts[place].sha256 = sha256;
        }
        for i in 0..self.manifest.columns.len() {
            let column = &self.manifest.columns[i];
            if place < column.parts.len() {
                let folder = self.dir.join(COLUMNS_DIR).join(&column.name);
                let series: &[Series] = if column.images { &[IMAGES, TEXTS] } else { &[TEXTS] };
                // One that cannot be read is damaged, which is seen to afterwards.
                self.manifest.columns[i].parts[place] =
                    checksums(&folder, number, series).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Writes the first rows of a matrix anew and sets the old file aside.
    fn cut_matrix(&mut self, path: &Path, rows: u64, dim: usize) -> Result<()> {
        let cut = path.with_extension("npy.cut");
        NpyMatrix::copy_rows(path, &cut, rows, dim)?;
        self.set_aside(path)?;
        fs::rename(&cut, path).at("rename to", path)
    }

    /// Cuts columns before the first part that is damaged; `memory embed` makes the rest again.
    fn mend_columns(&mut self) -> Result<()> {
        for i in 0..self.manifest.columns.len() {
            let column = self.manifest.columns[i].clone();
            let folder = self.dir.join(COLUMNS_DIR).join(&column.name);
            let own: &[Series] = if column.images { &[IMAGES, TEXTS] } else { &[TEXTS] };
            let damaged = |place: &usize| {
                let PartInfo { rows, number, .. } = self.manifest.parts[*place];
                own.iter().any(|series| {
                    let path = series.path(&folder, number);
                    NpyMatrix::open(&path, rows, column.model.dim).is_err()
                        || !is_recorded(&path, column.parts[*place].get(series.name))
                })
            };
            let Some(first) = (0..column.parts.len()).find(damaged) else { continue };
            for place in first..column.parts.len() {
                let number = self.manifest.parts[place].number;
                for series in COLUMN_SERIES {
                    self.set_aside(&series.path(&folder, number))?;
                }
            }
            self.manifest.columns[i].parts.truncate(first);
            self.report.columns_cut += 1;
            self.note(format!(
                "column {} now ends before part {first}, which is damaged: run `xmore memory embed` with its model",
                column.name
            ));
        }
        Ok(())
    }

    /// Makes derived files again where they are missing or not what was recorded.
    fn mend_derived(&mut self) -> Result<()> {
        for place in 0..self.manifest.parts.len() {
            let PartInfo { rows, number, .. } = self.manifest.parts[place];
            for series in DERIVED {
                let dim = self.manifest.model.dim;
                let recorded = self.manifest.parts[place].sha256.get(series.name).cloned();
                let dir = self.dir.to_owned();
                if !is_good(&dir, series, number, rows, dim, recorded.as_deref()) {
                    let sha = self.make_derived(&dir, series, place, rows, dim)?;
                    self.manifest.parts[place].sha256.insert(series.name.to_owned(), sha);
                }
            }
            // The metadata's other copy may be the good one.
            let path = METADATA.path(self.dir, number);
            let recorded = self.manifest.parts[place].sha256.get(METADATA.name).cloned();
            if let Some(recorded) = recorded
                && !checksum::of_file(&path).is_ok_and(|found| found == recorded)
                && let Some(strings) = self.strings(place)
            {
                self.set_aside(&path)?;
                strings.write(&path)?;
                let sha = checksum::of_file(&path)?;
                self.manifest.parts[place].sha256.insert(METADATA.name.to_owned(), sha);
                self.rebuilt(path);
            }
            if self.manifest.parts[place].sha256.len() < ALL_SERIES.len() {
                self.manifest.parts[place].sha256 = checksums(self.dir, number, &ALL_SERIES)?;
            }
        }
        for i in 0..self.manifest.columns.len() {
            let column = self.manifest.columns[i].clone();
            let folder = self.dir.join(COLUMNS_DIR).join(&column.name);
            for (place, sha256) in column.parts.iter().enumerate() {
                let PartInfo { rows, number, .. } = self.manifest.parts[place];
                for series in [IMAGE_CODES, TEXT_CODES] {
                    let recorded = sha256.get(series.name).map(String::as_str);
                    if (series == TEXT_CODES || column.images)
                        && !is_good(&folder, series, number, rows, column.model.dim, recorded)
                    {
                        let sha = self.make_derived(&folder, series, place, rows, column.model.dim)?;
                        self.manifest.columns[i].parts[place].insert(series.name.to_owned(), sha);
                    }
                }
            }
        }
        Ok(())
    }

    fn make_derived(
        &mut self,
        folder: &Path,
        series: Series,
        place: usize,
        rows: u64,
        dim: usize,
    ) -> Result<String> {
        let number = self.manifest.parts[place].number;
        let path = series.path(folder, number);
        self.set_aside(&path)?;
        let parent = folder.join(series.name);
        fs::create_dir_all(&parent).at("create", &parent)?;
        match modality_of(series) {
            Some(modality) => write_codes(folder, number, modality, rows, dim)?,
            None => lookup::write(&path, &self.strings(place).unwrap_or_default())?,
        }
        self.rebuilt(path.clone());
        checksum::of_file(&path)
    }

    fn rebuilt(&mut self, path: PathBuf) {
        self.note(format!("made {} again", path.display()));
        self.report.rebuilt.push(path);
    }

    fn count_images(&mut self) -> Result<()> {
        let mut count = DistinctCount::default();
        for place in 0..self.manifest.parts.len() {
            let strings = self.strings(place).unwrap_or_default();
            strings.image_paths.iter().for_each(|path| count.add(path));
        }
        self.manifest.images = count.count();
        Ok(())
    }

    /// Moves a file out of the memory, under its path there; does nothing if there is none.
    fn set_aside(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let within = path.strip_prefix(self.dir).unwrap_or(path);
        let numbered = |n: usize| self.aside.join(n.to_string()).join(within);
        // A file that was set aside before stays.
        let target = (0..).map(numbered).find(|p| !p.exists()).unwrap_or_else(|| numbered(0));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        fs::rename(path, &target).at("rename to", &target)?;
        self.report.set_aside = Some(self.aside.clone());
        Ok(())
    }

    fn note(&mut self, note: String) {
        self.report.notes.push(note);
    }
}

/// Whether a file has the content that was recorded, if any was.
fn is_recorded(path: &Path, recorded: Option<&String>) -> bool {
    recorded.is_none_or(|sha| checksum::of_file(path).is_ok_and(|found| found == *sha))
}

/// Whether a derived file can be used and is what was recorded.
fn is_good(
    folder: &Path,
    series: Series,
    number: usize,
    rows: u64,
    dim: usize,
    recorded: Option<&str>,
) -> bool {
    let path = series.path(folder, number);
    let opens = match modality_of(series) {
        Some(_) => Codes::open(&path, rows as usize, dim).is_ok(),
        None => Lookup::open(&path, rows).is_ok(),
    };
    opens && recorded.is_some_and(|sha| checksum::of_file(&path).is_ok_and(|found| found == sha))
}

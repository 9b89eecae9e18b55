//! Writing what a repair makes into a staging folder, and the manifest that goes with it. The memory itself is only read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::checksum;
use super::super::files::sync_dir;
use super::super::layout::{
    ALL_SERIES, EMBEDDING_SETS_DIR, IMAGES, LOOKUP, METADATA, Modality, PRIMARY, REPAIRING_DIR,
    SET_ASIDE_DIR, Series, TEXTS, skipped_path,
};
use super::super::lookup::{self, Lookup};
use super::super::manifest::{Checksums, EmbeddingSetInfo, Manifest, PartInfo, SetAside};
use super::super::metadata::Metadata;
use super::super::npy::NpyMatrix;
use super::super::publish::{Publication, SET_ASIDE_STAGED, commit};
use super::super::staging::Staging;
use super::super::texts::DistinctCount;
use super::RepairReport;
use super::examine::{EmbeddingSetPartPlan, EmbeddingSetPlan, PartPlan, Plan};
use crate::error::{AtPath, Result};
use crate::search::codes;

/// A repair that is being written.
pub(super) struct Stage<'a> {
    dir: &'a Path,
    /// As it was read.
    old: Manifest,
    /// As it will be.
    new: Manifest,
    staging: Staging,
    /// Folders that files were written into.
    folders: BTreeSet<PathBuf>,
    /// Files of the memory that are moved out of it.
    take_out: Vec<PathBuf>,
}

impl<'a> Stage<'a> {
    /// Starts with an empty folder in the memory `dir`, which is locked.
    pub fn begin(dir: &'a Path, manifest: Manifest) -> Result<Stage<'a>> {
        let staging = Staging { root: dir.join(REPAIRING_DIR), series: &[] };
        staging.start()?;
        let new = manifest.clone().updated(dir)?;
        Ok(Stage { dir, old: manifest, new, staging, folders: BTreeSet::new(), take_out: Vec::new() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.staging.root
    }

    /// Writes all that the plan asks for.
    pub fn write(mut self, plan: &Plan, report: &mut RepairReport) -> Result<Stage<'a>> {
        let root = self.staging.root.clone();
        fs::create_dir_all(&root).at("create", &root)?;
        self.new.parts.clear();
        for (place, part) in plan.parts.iter().enumerate() {
            if let Some(info) = self.part(place, part, report)? {
                self.new.parts.push(info);
            }
        }
        for (at, set) in plan.embedding_sets.iter().enumerate() {
            self.embedding_set(at, set, plan, report)?;
        }
        for &number in &plan.lists {
            let path = skipped_path(self.dir, number);
            report.notes.push(format!("set {} aside: its content has changed", path.display()));
            self.take_out_file(&path)?;
            self.new.sources[number].skipped_sha256 = None;
        }
        for path in &plan.strays {
            report.notes.push(format!("set {} aside: the manifest does not have it", path.display()));
            self.take_out_file(path)?;
        }
        self.new.pairs = self.new.parts.iter().map(|part| part.rows).sum();
        if report.dropped > 0 {
            self.new.images = self.count_images(plan)?;
        }
        for folder in &self.folders {
            sync_dir(folder)?;
        }
        Ok(self)
    }

    /// Commits all of it; what finishes interrupted work then puts it in place.
    pub fn commit(self) -> Result<()> {
        if self.root().join(SET_ASIDE_STAGED).is_dir() {
            // Made now, since making it later could fail.
            let all = self.dir.join(SET_ASIDE_DIR);
            fs::create_dir_all(&all).at("create", &all)?;
        }
        let publication = Publication { replace: false, into: PathBuf::new(), take_out: self.take_out };
        commit(&self.staging, &publication, &self.new)
    }

    /// A part as it will be, `None` if no row is kept.
    fn part(&mut self, place: usize, plan: &PartPlan, report: &mut RepairReport) -> Result<Option<PartInfo>> {
        let mut info = self.old.parts[place].clone();
        let (dir, number, dim) = (self.dir, info.number, self.old.model.dim);
        if plan.kept < info.rows {
            let rows = info.rows - plan.kept;
            report.dropped += rows;
            let what = if plan.kept == 0 {
                format!("set part {number} with its {rows} pairs aside")
            } else {
                format!("cut part {number} from {} to {} pairs", info.rows, plan.kept)
            };
            report.notes.push(format!("{what}: {}", plan.reason));
            self.new.set_aside.push(SetAside {
                part: number,
                embedding_set: None,
                rows,
                reason: plan.reason.clone(),
            });
            self.forget_sources(number);
        }
        if plan.kept == 0 {
            for series in ALL_SERIES {
                self.take_out_file(&series.path(dir, number))?;
            }
            return Ok(None);
        }
        if plan.kept < info.rows {
            for series in PRIMARY {
                self.keep_old(&series.path(dir, number))?;
            }
            for series in [IMAGES, TEXTS] {
                let to = self.staged(Path::new(""), series, number)?;
                NpyMatrix::copy_rows(&series.path(dir, number), &to, plan.kept, dim)?;
            }
            let strings = self.strings(place, plan)?.first(plan.kept as usize);
            strings.write(&self.staged(Path::new(""), METADATA, number)?)?;
            lookup::write(&self.staged(Path::new(""), LOOKUP, number)?, &strings)?;
            info.rows = plan.kept;
            let root = self.root().to_owned();
            self.codes(&root, Path::new(""), &ALL_SERIES, &info, dim)?;
            info.sha256 = checksums_of(&ALL_SERIES, |series| series.path(&root, number))?;
            return Ok(Some(info));
        }
        for &series in &plan.rebuilt {
            match series {
                METADATA => {
                    self.strings(place, plan)?.write(&self.staged(Path::new(""), series, number)?)?
                }
                LOOKUP => {
                    let strings = self.strings(place, plan)?;
                    lookup::write(&self.staged(Path::new(""), series, number)?, &strings)?;
                }
                series => self.codes(dir, Path::new(""), &[series], &info, dim)?,
            }
            rebuilt(&series.path(dir, number), report);
        }
        self.complete(&mut info.sha256, Path::new(""), &ALL_SERIES, &plan.rebuilt, number)?;
        Ok(Some(info))
    }

    /// A further embedding set as it will be.
    fn embedding_set(
        &mut self,
        at: usize,
        plan: &EmbeddingSetPlan,
        whole: &Plan,
        report: &mut RepairReport,
    ) -> Result<()> {
        let mut set = self.old.embedding_sets[at].clone();
        let mut parts = Vec::new();
        for (place, part) in plan.parts.iter().enumerate() {
            let kept = whole.parts[place].kept;
            let sha256 = self.embedding_set_part(&set, place, kept, part, report)?;
            // A part that leaves the memory leaves no place in the embedding set.
            if kept > 0 {
                parts.push(sha256);
            }
        }
        while parts.last().is_some_and(Checksums::is_empty) {
            parts.pop();
        }
        set.parts = parts;
        let is_cut = plan.parts.iter().any(|part| !part.reason.is_empty());
        report.embedding_sets_cut += usize::from(is_cut);
        if set.images && (is_cut || whole.parts.iter().any(|part| !part.reason.is_empty())) {
            set.unreadable = self.unreadable(&set)?;
        }
        self.new.embedding_sets[at] = set;
        Ok(())
    }

    /// Checksums of a further embedding set's part as it will be, with the first `kept` rows; none if it is taken out or was before.
    fn embedding_set_part(
        &mut self,
        set: &EmbeddingSetInfo,
        place: usize,
        kept: u64,
        plan: &EmbeddingSetPartPlan,
        report: &mut RepairReport,
    ) -> Result<Checksums> {
        let mut sha256 = set.parts[place].clone();
        if sha256.is_empty() {
            return Ok(sha256);
        }
        let within = Path::new(EMBEDDING_SETS_DIR).join(&set.name);
        let (folder, dim, series) = (self.dir.join(&within), set.model.dim, set.series());
        let mut info = self.old.parts[place].clone();
        let number = info.number;
        if kept == 0 || !plan.reason.is_empty() {
            for series in series {
                self.take_out_file(&series.path(&folder, number))?;
            }
            if kept > 0 {
                report
                    .notes
                    .push(format!("set part {number} of embedding set {} aside: {}", set.name, plan.reason));
                self.new.set_aside.push(SetAside {
                    part: number,
                    embedding_set: Some(set.name.clone()),
                    rows: kept,
                    reason: plan.reason.clone(),
                });
            }
            return Ok(Checksums::new());
        }
        if kept < info.rows {
            let root = self.root().join(&within);
            for &series in series.iter().filter(|series| !series.is_derived()) {
                let path = series.path(&folder, number);
                self.keep_old(&path)?;
                NpyMatrix::copy_rows(&path, &self.staged(&within, series, number)?, kept, dim)?;
            }
            info.rows = kept;
            self.codes(&root, &within, series, &info, dim)?;
            return checksums_of(series, |series| series.path(&root, number));
        }
        self.codes(&folder, &within, &plan.rebuilt, &info, dim)?;
        plan.rebuilt.iter().for_each(|series| rebuilt(&series.path(&folder, number), report));
        self.complete(&mut sha256, &within, series, &plan.rebuilt, number)?;
        Ok(sha256)
    }

    /// Number of rows of a further embedding set, as it will be, whose image could not be read.
    fn unreadable(&self, set: &EmbeddingSetInfo) -> Result<u64> {
        let (within, dim) = (Path::new(EMBEDDING_SETS_DIR).join(&set.name), set.model.dim);
        let mut rows = 0;
        for (part, _) in self.new.parts.iter().zip(&set.parts).filter(|(_, sha256)| !sha256.is_empty()) {
            let path = |folder: &Path| IMAGES.path(&folder.join(&within), part.number);
            let staged = path(self.root());
            let path = if staged.exists() { staged } else { path(self.dir) };
            let images = NpyMatrix::open(&path, part.rows, dim)?;
            rows += images.data().chunks_exact(dim).filter(|row| row[0].is_nan()).count() as u64;
        }
        Ok(rows)
    }

    /// Writes those codes that are among `series`, of embeddings in `from`.
    fn codes(
        &mut self,
        from: &Path,
        within: &Path,
        series: &[Series],
        info: &PartInfo,
        dim: usize,
    ) -> Result<()> {
        for &series in series {
            let Some(modality) = Modality::of_codes(series) else { continue };
            let matrix = NpyMatrix::open(&modality.series().path(from, info.number), info.rows, dim)?;
            codes::write(&self.staged(within, series, info.number)?, matrix.data(), dim)?;
        }
        Ok(())
    }

    /// Records the checksums of files that were made again, and of those that had none.
    fn complete(
        &self,
        sha256: &mut Checksums,
        within: &Path,
        series: &[Series],
        rebuilt: &[Series],
        number: usize,
    ) -> Result<()> {
        for series in series {
            let folder = if rebuilt.contains(series) { self.root() } else { self.dir };
            if rebuilt.contains(series) || !sha256.contains_key(series.name) {
                let found = checksum::of_file(&series.path(&folder.join(within), number))?;
                sha256.insert(series.name.to_owned(), found);
            }
        }
        Ok(())
    }

    /// A part's strings from the file that is sound.
    fn strings(&self, place: usize, plan: &PartPlan) -> Result<Metadata> {
        let PartInfo { number, rows, .. } = self.old.parts[place];
        match plan.strings {
            Some(LOOKUP) => Lookup::open(&LOOKUP.path(self.dir, number), rows)?.to_metadata(),
            _ => Metadata::read(&METADATA.path(self.dir, number), rows),
        }
    }

    fn count_images(&self, plan: &Plan) -> Result<u64> {
        let mut count = DistinctCount::default();
        for (place, part) in plan.parts.iter().enumerate().filter(|(_, part)| part.kept > 0) {
            let strings = self.strings(place, part)?;
            strings.image_paths.iter().take(part.kept as usize).for_each(|path| count.add(path));
        }
        Ok(count.count())
    }

    /// A source of which pairs are gone is not done any more: the same command adds them again.
    fn forget_sources(&mut self, part: usize) {
        let source =
            self.new.sources.iter_mut().rev().find(|source| source.first_part <= part && source.pairs > 0);
        if let Some(source) = source {
            source.digest.clear();
        }
    }

    /// Where a new file goes; its folder is made.
    fn staged(&mut self, within: &Path, series: Series, number: usize) -> Result<PathBuf> {
        self.with_folder(series.path(&self.root().join(within), number))
    }

    fn with_folder(&mut self, path: PathBuf) -> Result<PathBuf> {
        if let Some(folder) = path.parent()
            && !self.folders.contains(folder)
        {
            fs::create_dir_all(folder).at("create", folder)?;
            let root = self.root().to_owned();
            self.folders.extend(folder.ancestors().take_while(|f| f.starts_with(&root)).map(Path::to_owned));
        }
        Ok(path)
    }

    /// Has a file moved out of the memory when the new manifest is in place.
    fn take_out_file(&mut self, path: &Path) -> Result<()> {
        if path.exists() {
            let within = self.within(path);
            self.with_folder(self.root().join(SET_ASIDE_STAGED).join(&within))?;
            self.take_out.push(within);
        }
        Ok(())
    }

    /// Keeps the content of a file that will be replaced.
    fn keep_old(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let kept = self.root().join(SET_ASIDE_STAGED).join(self.within(path));
        let kept = self.with_folder(kept)?;
        if fs::hard_link(path, &kept).is_ok() {
            return Ok(());
        }
        // There are file systems without links.
        fs::copy(path, &kept).at("copy", path)?;
        fs::File::open(&kept).and_then(|file| file.sync_all()).at("write", &kept)
    }

    fn within(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.dir).unwrap_or(path).to_owned()
    }
}

fn checksums_of(series: &[Series], path: impl Fn(Series) -> PathBuf) -> Result<Checksums> {
    series.iter().map(|&series| Ok((series.name.to_owned(), checksum::of_file(&path(series))?))).collect()
}

fn rebuilt(path: &Path, report: &mut RepairReport) {
    report.notes.push(format!("made {} again", path.display()));
    report.rebuilt.push(path.to_owned());
}

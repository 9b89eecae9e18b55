//! Lists of what sources skipped: one csv for each of a memory's sources, written and read as a stream.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::checksum::Running;
use super::files::{remove_file_if_there, sync_dir};
use super::layout::skipped_path;
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::{AtPath, Result};
use crate::ingest::SkipKind;
use crate::store::StoreError;

/// How much was skipped, by kind; keys are [`SkipKind::name`]s.
pub type SkipCounts = BTreeMap<String, u64>;

/// Columns of a list. Memories of before have the first two only.
const HEADER: [&str; 3] = ["path", "reason", "kind"];

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipEntry {
    /// The image, or what the source calls it.
    pub path: String,
    /// Why.
    pub reason: String,
    /// The kind of reason; `None` in lists that do not tell, or tell one of a later version.
    pub kind: Option<SkipKind>,
}

/// The list that a writer makes.
pub(super) struct SkipList {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    checksum: Running,
    counts: SkipCounts,
}

impl SkipList {
    /// List `number` below `root`. Its file is made with its first entry.
    pub fn new(root: &Path, number: usize) -> SkipList {
        let path = skipped_path(root, number);
        SkipList { path, file: None, checksum: Running::default(), counts: SkipCounts::new() }
    }

    /// Removes what an earlier process wrote of the list: it is always made in one go.
    pub fn clear(&mut self) -> Result<()> {
        (self.file, self.counts) = (None, SkipCounts::new());
        remove_file_if_there(&self.path)
    }

    pub fn add(&mut self, path: &str, kind: SkipKind, reason: &str) -> Result<()> {
        self.create()?;
        self.write([path, reason, kind.name()])?;
        *self.counts.entry(kind.name().to_owned()).or_default() += 1;
        Ok(())
    }

    /// Hands what there is to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush).at("write", &self.path)
    }

    pub fn counts(&self) -> &SkipCounts {
        &self.counts
    }

    /// Makes the list durable; returns its checksum, `None` if there is none. `at_least_empty` makes one of no entries too.
    pub fn finish(mut self, at_least_empty: bool) -> Result<Option<String>> {
        if at_least_empty {
            self.create()?;
        }
        self.flush()?;
        let Some(file) = &self.file else { return Ok(None) };
        file.get_ref().sync_all().at("write", &self.path)?;
        if let Some(folder) = self.path.parent() {
            sync_dir(folder)?;
        }
        Ok(Some(self.checksum.value()))
    }

    fn create(&mut self) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        self.file = Some(BufWriter::new(File::create(&self.path).at("create", &self.path)?));
        self.checksum = Running::default();
        self.write(HEADER)
    }

    fn write(&mut self, fields: [&str; 3]) -> Result<()> {
        let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
        line.write_record(fields).map_err(std::io::Error::other).at("write", &self.path)?;
        let line = line.into_inner().map_err(|e| e.into_error()).at("write", &self.path)?;
        self.checksum.update(&line);
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&line)).at("write", &self.path)
    }
}

/// Calls `each` for every entry of the list of a memory's source `number`, until it returns false. Returns whether there is a list.
///
/// # Errors
/// [`MemoryError::Io`], [`StoreError::Damaged`] for a list that is no csv.
pub fn read_skip_list(dir: &Path, number: usize, each: &mut dyn FnMut(SkipEntry) -> bool) -> Result<bool> {
    let path = skipped_path(dir, number);
    let file = match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        file => file.at("open", &path)?,
    };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    for record in reader.records() {
        let record = record.map_err(|e| StoreError::Damaged {
            path: path.clone(),
            expected: "a list of what was skipped".to_owned(),
            found: e.to_string(),
        })?;
        let field = |i: usize| record.get(i).unwrap_or_default().to_owned();
        let entry =
            SkipEntry { path: field(0), reason: field(1), kind: record.get(2).and_then(SkipKind::parse) };
        if !each(entry) {
            break;
        }
    }
    Ok(true)
}

/// How many of these are failures.
pub fn failures(counts: &SkipCounts) -> u64 {
    let is_failure = |name: &str| SkipKind::parse(name).is_none_or(SkipKind::is_failure);
    counts.iter().filter(|(name, _)| is_failure(name)).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::super::layout::SKIPPED_DIR;
    use super::*;

    #[test]
    fn what_is_listed_is_read_back_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = SkipList::new(dir.path(), 3);
        list.add("a, \"b\".jpg", SkipKind::BrokenImage, "two\nlines").unwrap();
        list.add("c.jpg", SkipKind::NoCaption, "none").unwrap();
        assert_eq!((failures(list.counts()), list.counts().values().sum::<u64>()), (1, 2));
        assert!(list.finish(false).unwrap().is_some());
        let mut entries = Vec::new();
        let mut each = |entry| {
            entries.push(entry);
            true
        };
        assert!(read_skip_list(dir.path(), 3, &mut each).unwrap());
        assert_eq!((entries[0].path.as_str(), entries[0].reason.as_str()), ("a, \"b\".jpg", "two\nlines"));
        assert_eq!(entries[1].kind, Some(SkipKind::NoCaption));
        assert!(!read_skip_list(dir.path(), 4, &mut |_| true).unwrap());
        assert_eq!(SkipList::new(dir.path(), 5).finish(false).unwrap(), None);
        assert!(SkipList::new(dir.path(), 5).finish(true).unwrap().is_some());
    }

    #[test]
    fn a_list_of_before_has_no_kinds() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(SKIPPED_DIR)).unwrap();
        fs::write(skipped_path(dir.path(), 0), "path,reason\na.jpg,broken\n").unwrap();
        let mut kinds = Vec::new();
        let mut each = |entry: SkipEntry| {
            kinds.push(entry.kind);
            true
        };
        read_skip_list(dir.path(), 0, &mut each).unwrap();
        assert_eq!(kinds, [None]);
    }
}

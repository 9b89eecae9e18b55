//! Beginning a memory, or taking up what an interrupted process left of one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use half::f16;
use xmore_files::image::Orientation;

use super::super::files::remove_dir_if_there;
use super::super::identity::ModelIdentity;
use super::super::layout::{
    ALL_SERIES, BUILDING_DIR, LOOKUP, MANIFEST_FILE, MAX_DIM, PART_ROWS, SKIPPED_DIR, TEXTS,
};
use super::super::lock::Lock;
use super::super::npy::NpyMatrix;
use super::super::open_part::OpenPart;
use super::super::publish::roll_forward;
use super::super::reader::Memory;
use super::super::repair::open_with_checksums;
use super::super::skip_list::SkipList;
use super::super::staging::{Checkpoint, Mode, Staging, foreign_entry, unfinished_is_damaged};
use super::super::texts::{Remembered, SeenStrings};
use super::super::{checksum, lookup};
use super::MemoryWriter;
use crate::error::{AtPath, MemoryError, Result};
use crate::store::{StoreError, WriteError};

/// Work that a power cut may cost; a killed process loses no more than that either.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

impl MemoryWriter {
    /// Starts a memory in `dir`, which is created if need be. The remains of an interrupted build are replaced.
    ///
    /// # Errors
    /// [`WriteError::AlreadyExists`] over a complete memory, [`WriteError::NotEmpty`] over anything else,
    /// [`WriteError::Busy`] if another process is building here, [`WriteError::Dim`], [`MemoryError::Io`].
    pub fn create(dir: impl AsRef<Path>, model: ModelIdentity) -> Result<MemoryWriter> {
        let mut writer = Self::locked(dir.as_ref(), model, Mode::Create, Remembered::All)?;
        writer.start_anew()?;
        Ok(writer)
    }

    /// As [`create`](Self::create), but replaces a complete memory, which stays readable until
    /// [`finish`](Self::finish). A directory that holds something else is refused all the same.
    ///
    /// # Errors
    /// As [`create`](Self::create), without [`WriteError::AlreadyExists`].
    pub fn create_overwriting(dir: impl AsRef<Path>, model: ModelIdentity) -> Result<MemoryWriter> {
        let mut writer = Self::locked(dir.as_ref(), model, Mode::Overwrite, Remembered::All)?;
        writer.start_anew()?;
        Ok(writer)
    }

    /// Starts a memory, or takes up what an interrupted process with the same model and mode left: [`cursor`](Self::cursor)
    /// says how far that came.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`WriteError::OtherBuild`] if what was left is of another model or mode (with
    /// [`Mode::Overwrite`] it is discarded); with [`Mode::Append`] those of [`Memory::open`] and
    /// [`WriteError::OtherModel`] if the memory is of another model.
    pub fn open(dir: impl AsRef<Path>, model: ModelIdentity, mode: Mode) -> Result<MemoryWriter> {
        Self::open_remembering(dir.as_ref(), model, mode, Remembered::All)
    }

    pub(super) fn open_remembering(
        dir: &Path,
        model: ModelIdentity,
        mode: Mode,
        remembered: Remembered,
    ) -> Result<MemoryWriter> {
        let mut writer = Self::locked(dir, model, mode, remembered)?;
        match writer.staging.checkpoint()? {
            Some(left) if left.base == writer.state.base => {
                let (ours, theirs) = (&writer.state, &left);
                if (ours.mode, &ours.model) == (theirs.mode, &theirs.model) {
                    match writer.resume(left) {
                        Err(MemoryError::Store(StoreError::Damaged { .. }) | MemoryError::Io { .. })
                            if mode == Mode::Overwrite =>
                        {
                            writer.start_anew()?
                        }
                        resumed => {
                            resumed.map_err(|error| unfinished_is_damaged(error, &writer.staging.root))?
                        }
                    }
                } else if mode == Mode::Overwrite {
                    writer.start_anew()?;
                } else {
                    let root = writer.staging.root;
                    return Err(WriteError::OtherBuild { path: root, model: left.model.to_string() }.into());
                }
            }
            // None, or one of a memory that has been completed since.
            _ => writer.start_anew()?,
        }
        Ok(writer)
    }

    fn locked(dir: &Path, model: ModelIdentity, mode: Mode, remembered: Remembered) -> Result<MemoryWriter> {
        if !(1..=MAX_DIM).contains(&model.dim) {
            return Err(WriteError::Dim { model: model.to_string(), found: model.dim, max: MAX_DIM }.into());
        }
        let manifest_path = dir.join(MANIFEST_FILE);
        let staging = Staging { root: dir.join(BUILDING_DIR), series: &ALL_SERIES };
        if mode != Mode::Append {
            fs::create_dir_all(dir).at("create", dir)?;
            if !manifest_path.exists()
                && !staging.root.exists()
                && let Some(found) = foreign_entry(dir)?
            {
                return Err(WriteError::NotEmpty { path: dir.to_owned(), found }.into());
            }
        } else if !dir.exists() {
            // Says what is wrong.
            Memory::open(dir)?;
        }
        let lock = Lock::take(dir)?;
        roll_forward(dir)?;
        if mode == Mode::Create && manifest_path.exists() {
            return Err(WriteError::AlreadyExists { path: dir.to_owned() }.into());
        }
        let (mut base, mut base_checksum) = (None, String::new());
        if mode == Mode::Append {
            let memory = open_with_checksums(dir)?;
            let theirs = &memory.manifest().model;
            if !theirs.is_same(&model) {
                return Err(WriteError::OtherModel {
                    path: dir.to_owned(),
                    memory: theirs.to_string(),
                    given: model.to_string(),
                }
                .into());
            }
            base = Some(memory);
        }
        if manifest_path.exists() {
            base_checksum = checksum::of_file(&manifest_path)?;
        }
        let first_part = base.as_ref().map_or(0, |memory| memory.manifest().next_part());
        let sources = base.as_ref().map_or(0, |memory| memory.manifest().sources.len());
        let skips = SkipList::new(&staging.root, sources);
        let dim = model.dim;
        Ok(MemoryWriter {
            dir: dir.to_owned(),
            staging,
            _lock: lock,
            base,
            state: Checkpoint::start(mode, base_checksum, model, first_part),
            part_rows: PART_ROWS,
            open: None,
            closed_texts: Vec::new(),
            seen: SeenStrings::new(remembered),
            pairs: 0,
            from: Vec::new(),
            entry: None,
            skips,
            checkpoint_every: CHECKPOINT_EVERY,
            last_checkpoint: Instant::now(),
            image_row: vec![f16::ZERO; dim],
            text_row: vec![f16::ZERO; dim],
            failed: false,
        })
    }

    /// Discards all that was staged and begins at the first row.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn start_anew(&mut self) -> Result<()> {
        let state = &self.state;
        let orientation = state.orientation;
        self.state = Checkpoint::start(state.mode, state.base.clone(), state.model.clone(), state.first_part);
        self.state.orientation = orientation;
        (self.open, self.pairs) = (None, 0);
        self.closed_texts.clear();
        self.skips.clear()?;
        self.staging.start()?;
        self.learn_strings()?;
        self.save()
    }

    fn resume(&mut self, left: Checkpoint) -> Result<()> {
        let (root, dim) = (&self.staging.root, left.model.dim);
        let number = left.first_part + left.parts.len();
        let growing = if left.open.rows > 0 { OpenPart::growing_files(root, number) } else { Vec::new() };
        self.staging.clean(&left, &growing)?;
        self.staging.check_closed(&left)?;
        for part in left.parts.iter().filter(|_| self.seen.remembers_captions()) {
            let path = TEXTS.path(root, part.number);
            self.closed_texts.push(NpyMatrix::open(&path, part.rows, dim)?);
        }
        if left.open.rows > 0 {
            self.open = Some(OpenPart::resume(root, number, dim, &left.open)?);
        }
        // The list of what is skipped is made in one go: the caller tries again what failed.
        remove_dir_if_there(&root.join(SKIPPED_DIR))?;
        self.pairs = left.parts.iter().map(|p| p.rows).sum::<u64>() + left.open.rows;
        self.state = left;
        self.learn_strings()
    }

    /// Learns the strings of all rows there are.
    fn learn_strings(&mut self) -> Result<()> {
        let mut seen = SeenStrings::new(self.seen.remembered());
        if matches!(seen.remembered(), Remembered::Nothing { .. }) {
            return Ok(());
        }
        let mut row = 0;
        if let Some(base) = &self.base {
            for id in 0..base.len() {
                seen.add(base.image_path(id)?, base.caption(id)?, id);
            }
            row = base.len();
        }
        for part in &self.state.parts {
            let path = LOOKUP.path(&self.staging.root, part.number);
            let strings = lookup::Lookup::open(&path, part.rows)?;
            for r in 0..part.rows as usize {
                seen.add(strings.image_path(r)?, strings.caption(r)?, row);
                row += 1;
            }
        }
        if let Some(open) = &self.open {
            let metadata = open.metadata();
            for (image_path, caption) in metadata.image_paths.iter().zip(metadata.captions.iter()) {
                seen.add(image_path, caption, row);
                row += 1;
            }
        }
        self.seen = seen;
        Ok(())
    }

    /// Records which way up the images are decoded whose rows follow; without this call, as they are stored. A memory that is added to
    /// keeps what it says.
    ///
    /// # Errors
    /// [`WriteError::OtherOrientation`] if what an interrupted process left has the other orientation (with [`Mode::Overwrite`] it is
    /// discarded).
    pub fn with_orientation(mut self, orientation: Orientation) -> Result<MemoryWriter> {
        if self.state.orientation != orientation && self.state.cursor.consumed > 0 {
            if self.state.mode != Mode::Overwrite {
                return Err(WriteError::OtherOrientation {
                    path: self.staging.root.clone(),
                    theirs: self.state.orientation,
                    ours: orientation,
                }
                .into());
            }
            self.start_anew()?;
        }
        self.state.orientation = orientation;
        Ok(self)
    }
}

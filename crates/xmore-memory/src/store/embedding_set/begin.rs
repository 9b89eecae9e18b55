//! Beginning a further embedding set or going on with it: what it lacks, and what an interrupted process left of that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use half::f16;

use super::super::checksum;
use super::super::identity::ModelIdentity;
use super::super::layout::{EMBEDDING_DIR, IMAGES, MANIFEST_FILE, TEXTS};
use super::super::lock::Lock;
use super::super::manifest::{EmbeddingSetInfo, Manifest, folder_name};
use super::super::npy::NpyMatrix;
use super::super::publish::roll_forward;
use super::super::reader::Memory;
use super::super::repair::open_with_checksums;
use super::super::staging::{Checkpoint, Mode, Staging, unfinished_is_damaged};
use super::super::texts::KnownTexts;
use super::{EmbeddingSetPart, EmbeddingSetWriter, what};
use crate::error::Result;
use crate::store::WriteError;

/// As in building a memory.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

impl EmbeddingSetWriter {
    /// Opens the memory in `dir` for an embedding set by `model`; `images` says whether images are embedded or captions only.
    ///
    /// # Errors
    /// Those of [`Memory::open`]; [`WriteError::Busy`]; [`WriteError::EmbeddingSetExists`] if the embedding set has all rows, or is the
    /// primary one, or has been made with images and is now to be without or the other way round.
    pub fn open(dir: impl AsRef<Path>, model: ModelIdentity, images: bool) -> Result<EmbeddingSetWriter> {
        let dir = dir.as_ref();
        // Refuses what is no memory before a lock file is made in it.
        Memory::open(dir)?;
        let lock = Lock::take(dir)?;
        roll_forward(dir)?;
        let memory = open_with_checksums(dir)?;
        let manifest = memory.manifest();
        let there = manifest.embedding_sets.iter().find(|set| set.model.is_same(&model));
        let part_count = manifest.parts.len();
        if manifest.model.is_same(&model)
            || there.is_some_and(|set| set.is_complete(part_count) || set.images != images)
        {
            return Err(
                WriteError::EmbeddingSetExists { path: dir.to_owned(), model: model.to_string() }.into()
            );
        }
        let info = there.cloned().unwrap_or_else(|| EmbeddingSetInfo {
            name: free_name(manifest, &model.to_string()),
            model: model.clone(),
            images,
            parts: Vec::new(),
            unreadable: 0,
        });
        let staging = Staging { root: dir.join(EMBEDDING_DIR), series: info.series() };
        let base = checksum::of_file(&dir.join(MANIFEST_FILE))?;
        let places = info.lacking(part_count).collect();
        let mut first_ids = vec![0];
        first_ids.extend(manifest.parts.iter().scan(0, |sum, part| {
            *sum += part.rows;
            Some(*sum)
        }));
        let dim = model.dim;
        let mut writer = EmbeddingSetWriter {
            memory,
            staging,
            _lock: lock,
            info,
            places,
            first_ids,
            fresh: true,
            state: Checkpoint::start(Mode::Append, base, model, 0),
            open: None,
            closed_texts: Vec::new(),
            known: KnownTexts::default(),
            done: 0,
            checkpoint_every: CHECKPOINT_EVERY,
            last_checkpoint: Instant::now(),
            image_row: vec![f16::ZERO; dim],
            text_row: vec![f16::ZERO; dim],
            failed: false,
        };
        match writer.staging.checkpoint()? {
            Some(left)
                if left.base == writer.state.base
                    && left.model == writer.state.model
                    && left.cursor.digest == what(images)
                    && left.again.iter().all(|&place| writer.info.has_part(place)) =>
            {
                writer.resume(left).map_err(|error| unfinished_is_damaged(error, &writer.staging.root))?;
            }
            _ => writer.staging.start()?,
        }
        Ok(writer)
    }

    fn resume(&mut self, left: Checkpoint) -> Result<()> {
        let (root, dim, images) = (self.staging.root.clone(), left.model.dim, self.info.images);
        self.places.splice(..0, left.again.iter().copied());
        self.fresh = false;
        let place = self.places.get(left.parts.len());
        let number = place.and_then(|&place| self.memory.manifest().parts.get(place)).map_or(0, |p| p.number);
        let growing: Vec<PathBuf> = [IMAGES, TEXTS]
            .iter()
            .map(|series| series.path(&root, number))
            .flat_map(|path| [path.with_extension("npy.tmp"), path])
            .filter(|_| left.open.rows > 0)
            .collect();
        self.staging.clean(&left, &growing)?;
        self.staging.check_closed(&left)?;
        for part in &left.parts {
            self.closed_texts.push(NpyMatrix::open(&TEXTS.path(&root, part.number), part.rows, dim)?);
        }
        if left.open.rows > 0 {
            self.open = Some(EmbeddingSetPart::resume(&root, number, dim, images, &left.open)?);
        }
        self.done = left.parts.iter().map(|p| p.rows).sum::<u64>() + left.open.rows;
        self.state = left;
        for row in 0..self.done {
            if let Some(id) = self.id_of(row) {
                self.known.add(self.memory.caption(id)?, row);
            }
        }
        Ok(())
    }
}

/// A name for the embedding set of a model that no other embedding set has.
fn free_name(manifest: &Manifest, model: &str) -> String {
    let name = folder_name(model);
    let taken = |name: &str| manifest.embedding_sets.iter().any(|c| c.name == name);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(name)
}

//! Rows of other memories copied as they are stored, in memory that does not grow with them.

use std::ops::Range;
use std::path::Path;

use super::super::checksum;
use super::super::identity::ModelIdentity;
use super::super::layout::{IMAGES, LOOKUP, METADATA, Series, TEXTS};
use super::super::manifest::PartInfo;
use super::super::reader::Memory;
use super::super::staging::Mode;
use super::super::texts::Remembered;
use super::MemoryWriter;
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::Result;
#[cfg(doc)]
use crate::store::StoreError;
use crate::store::WriteError;

impl MemoryWriter {
    /// As [`open`](Self::open), for a new memory of rows that are [copied](Self::copy) and never pushed. `images` is the number of
    /// distinct image paths of all of them; if it is not known, they are counted, which takes some 16 bytes of memory for each.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for_copies(
        dir: impl AsRef<Path>,
        model: ModelIdentity,
        images: Option<u64>,
    ) -> Result<MemoryWriter> {
        let remembered = images.map_or(Remembered::ImagePaths, |images| Remembered::Nothing { images });
        Self::open_remembering(dir.as_ref(), model, Mode::Create, remembered)
    }

    /// Appends rows of the part in place `place` of another memory of the same model, as they are stored there.
    ///
    /// # Errors
    /// [`WriteError::OtherModel`], [`StoreError::Damaged`] for strings that cannot be read, [`MemoryError::Io`].
    pub fn copy(&mut self, from: &Memory, place: usize, rows: Range<u64>) -> Result<()> {
        self.check_usable()?;
        if !from.manifest().model.is_same(&self.state.model) {
            let (memory, given) = (self.state.model.to_string(), from.manifest().model.to_string());
            return Err(WriteError::OtherModel { path: self.dir.clone(), memory, given }.into());
        }
        let part = from.stored_part(place);
        self.failed = true;
        let dim = self.state.model.dim;
        for row in rows {
            let at = row as usize * dim..(row as usize + 1) * dim;
            self.image_row.copy_from_slice(&part.images[at.clone()]);
            self.text_row.copy_from_slice(&part.texts[at]);
            let id = part.first_id + row;
            self.write_row(from.image_path(id)?, from.caption(id)?)?;
        }
        self.failed = false;
        Ok(())
    }
}

/// Compares the files from which [`MemoryWriter::copy`] reads the part in place `place` of a memory with their checksums.
///
/// # Errors
/// [`StoreError::Damaged`], [`MemoryError::Io`].
pub fn check_part(memory: &Memory, place: usize) -> Result<()> {
    let PartInfo { number, sha256, .. } = &memory.manifest().parts[place];
    let check = |series: Series| checksum::check(series.path(memory.dir(), *number), sha256.get(series.name));
    let has_lookup = LOOKUP.path(memory.dir(), *number).exists();
    let strings = || check(if has_lookup { LOOKUP } else { METADATA });
    let (strings, (images, texts)) = rayon::join(strings, || rayon::join(|| check(IMAGES), || check(TEXTS)));
    strings.and(images).and(texts)
}

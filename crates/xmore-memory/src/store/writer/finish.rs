//! Ending a writer: its rows are put in place with the new manifest, or given up.

use std::fs;

use super::super::files::{remove_dir_if_there, remove_file_if_there};
use super::super::layout::{MANIFEST_FILE, SKIPPED_DIR, skipped_path};
use super::super::lock::LOCK_FILE;
use super::super::manifest::{Manifest, SourceInfo};
use super::super::publish::{Publication, publish};
use super::super::skip_list::{SkipCounts, SkipList};
use super::super::staging::Mode;
use super::MemoryWriter;
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::{AtPath, Result};
use crate::store::WriteError;

impl MemoryWriter {
    /// Completes the memory: closes the last part, puts the parts in place, writes the manifest last.
    ///
    /// # Errors
    /// [`WriteError::NoPairs`] if there would be none; [`MemoryError::Io`], [`MemoryError::Parquet`], or
    /// [`WriteError::WriterFailed`] after a failed `push`.
    pub fn finish(mut self) -> Result<Manifest> {
        self.check_usable()?;
        if self.base_len() + self.pairs == 0 {
            return Err(WriteError::NoPairs { path: self.dir }.into());
        }
        self.close_part()?;
        // The journals go with this checkpoint.
        self.save()?;
        let replace = self.state.mode != Mode::Append;
        if replace {
            let folder = self.staging.root.join(SKIPPED_DIR);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        // A list that is replaced by nothing is replaced by an empty one.
        let replaced = self.entry.is_some_and(|entry| skipped_path(&self.dir, entry).exists());
        let skipped_by = self.skips.counts().clone();
        let skips = std::mem::replace(&mut self.skips, SkipList::new(&self.staging.root, 0));
        let skipped_sha256 = skips.finish(replaced)?;
        let manifest = self.manifest(skipped_by, skipped_sha256)?;
        let publication = Publication { replace, ..Publication::default() };
        publish(&self.dir, &self.staging, &publication, &manifest)?;
        Ok(manifest)
    }

    /// Gives up what was written: the memory is as it was, and where there was none nothing is left.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn discard(self) -> Result<()> {
        remove_dir_if_there(&self.staging.root)?;
        if self.dir.join(MANIFEST_FILE).exists() {
            return Ok(());
        }
        drop(self._lock);
        remove_file_if_there(&self.dir.join(LOCK_FILE))?;
        // Fails, as it should, if there is something in it.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// What is there together with what was written.
    fn manifest(&self, skipped_by: SkipCounts, skipped_sha256: Option<String>) -> Result<Manifest> {
        let (state, cursor) = (&self.state, &self.state.cursor);
        let base =
            self.base.as_ref().map(|memory| memory.manifest().clone().updated(&self.dir)).transpose()?;
        let mut manifest = base.unwrap_or_else(|| Manifest {
            orientation: state.orientation,
            ..Manifest::empty(state.model.clone())
        });
        let lost = manifest.pairs_lost();
        manifest.pairs += self.pairs;
        manifest.images = self.seen.images();
        manifest.parts.extend(state.parts.iter().cloned());
        manifest.truncated += cursor.truncated;
        let mut source = SourceInfo {
            from: self.from.clone(),
            digest: cursor.digest.clone(),
            first_part: state.first_part,
            pairs: self.pairs,
            skipped: skipped_by.values().sum(),
            skipped_by,
            skipped_sha256,
        };
        manifest.skipped += source.skipped;
        match self.entry.and_then(|entry| manifest.sources.get_mut(entry)) {
            Some(before) => {
                manifest.skipped = manifest.skipped.saturating_sub(before.skipped);
                source.first_part = before.first_part;
                // What a repair took out is not there any more, and may be what was added now.
                source.pairs += before.pairs.saturating_sub(lost);
                *before = source;
            }
            None => manifest.sources.push(source),
        }
        Ok(manifest)
    }
}

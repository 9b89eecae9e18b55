//! Rows by what their captions say.

use rayon::prelude::*;
use regex::Regex;

use crate::error::Result;
use crate::search::RowSet;
use crate::store::Memory;

/// Rows looked at by one task.
const CHUNK: u64 = 4096;

impl Memory {
    /// The rows whose caption matches a regular expression. Reads every caption, in parallel.
    ///
    /// # Errors
    /// What reading captions gives.
    pub fn rows_with_caption(&self, pattern: &Regex) -> Result<RowSet> {
        let chunks: Vec<u64> = (0..self.len().div_ceil(CHUNK)).collect();
        let found: Vec<Vec<u64>> = chunks
            .into_par_iter()
            .map(|chunk| {
                let mut ids = Vec::new();
                for id in chunk * CHUNK..((chunk + 1) * CHUNK).min(self.len()) {
                    if pattern.is_match(self.caption(id)?) {
                        ids.push(id);
                    }
                }
                Ok(ids)
            })
            .collect::<Result<_>>()?;
        let mut rows = RowSet::new(self.len());
        for id in found.into_iter().flatten() {
            rows.insert(id);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryWriter, ModelIdentity};

    #[test]
    fn rows_are_those_whose_caption_matches() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelIdentity::new("m", String::new(), 1);
        let mut writer = MemoryWriter::create(dir.path(), model).unwrap();
        for i in 0..5000 {
            writer.push("a.jpg", &format!("Dog number {i}"), &[1.0], &[1.0]).unwrap();
        }
        writer.finish().unwrap();
        let memory = Memory::open(dir.path()).unwrap();
        let rows = memory.rows_with_caption(&Regex::new(r"(?i)dog .*\b(7|4097|4999)$").unwrap()).unwrap();
        let found: Vec<u64> = (0..5000).filter(|&id| rows.contains(id)).collect();
        assert_eq!((found, rows.len()), (vec![7, 4097, 4999], 3));
    }
}

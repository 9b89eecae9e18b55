//! The rows that everyone searches: a file of float16 rows, and codes of its parts beside it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use half::f16;
use memmap2::Mmap;
use rayon::prelude::*;
use xmore_memory::Memory;
use xmore_memory::search::SearchPart;
use xmore_memory::search::codes::{self, Codes};

use crate::Result;

/// Rows of a part, as a memory's.
const PART_ROWS: usize = 65_536;
/// Clusters of synthetic rows.
const CLUSTERS: u64 = 1000;
/// Rows that are made at a time, each lot from its own seed.
const LOT_ROWS: usize = 4096;

/// A file of rows, `[rows, dim]` float16 without a header. Fewer rows are a prefix of more.
pub struct RowFile {
    pub path: PathBuf,
    pub rows: usize,
    pub dim: usize,
}

/// A vector like a unit one: of each component's sixteen-bit quarters of a random number the sum, which is nearly normal.
fn direction(rng: &mut Rng, dim: usize) -> Vec<f32> {
    let one = |bits: u64| (0..4).map(|i| (bits >> (16 * i) & 0xffff) as f32).sum::<f32>() / 65_536.0 - 2.0;
    let mut values: Vec<f32> = (0..dim).map(|_| one(rng.u64(..))).collect();
    scale_to_unit(&mut values);
    values
}

fn scale_to_unit(values: &mut [f32]) {
    let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
    values.iter_mut().for_each(|x| *x /= norm);
}

/// The centres of the clusters: 0.5 of a direction that all share, as embeddings of one encoder do, and 0.6 of the cluster's own.
fn centres(dim: usize) -> Vec<Vec<f32>> {
    let common = direction(&mut Rng::with_seed(1), dim);
    let centre = |k: u64| {
        let own = direction(&mut Rng::with_seed(1000 + k), dim);
        common.iter().zip(own).map(|(c, o)| 0.5 * c + 0.6 * o).collect()
    };
    (0..CLUSTERS).map(centre).collect()
}

/// A unit vector: some centre and 0.6 of a random direction.
fn member(rng: &mut Rng, centres: &[Vec<f32>]) -> Vec<f32> {
    let centre = &centres[rng.usize(..centres.len())];
    let mut row: Vec<f32> =
        centre.iter().zip(direction(rng, centre.len())).map(|(c, x)| c + 0.6 * x).collect();
    scale_to_unit(&mut row);
    row
}

/// Queries of the same kind as the rows, `[count, dim]`.
pub fn synthetic_queries(count: usize, dim: usize) -> Vec<f32> {
    let (mut rng, centres) = (Rng::with_seed(2), centres(dim));
    (0..count).flat_map(|_| member(&mut rng, &centres)).collect()
}

impl RowFile {
    /// Clustered unit vectors, the same in every run; made unless they are in the cache.
    pub fn synthetic(cache: &Path, rows: usize, dim: usize) -> Result<RowFile> {
        let path = cache.join(format!("rows-{dim}.f16"));
        if std::fs::metadata(&path).map_or(0, |m| m.len()) < (rows * dim * 2) as u64 {
            eprintln!("making {rows} rows of {dim}");
            let centres = centres(dim);
            let mut file = BufWriter::new(File::create(&path)?);
            let lots: Vec<usize> = (0..rows.div_ceil(LOT_ROWS)).collect();
            for lots in lots.chunks(16) {
                let made: Vec<Vec<f16>> = lots
                    .par_iter()
                    .map(|&lot| {
                        let mut rng = Rng::with_seed(1_000_000 + lot as u64);
                        (0..LOT_ROWS).flat_map(|_| member(&mut rng, &centres)).map(f16::from_f32).collect()
                    })
                    .collect();
                made.iter().try_for_each(|lot| file.write_all(bytemuck::cast_slice(lot)))?;
            }
            file.flush()?;
        }
        Ok(RowFile { path, rows, dim })
    }

    /// The image embeddings of a memory.
    pub fn of_memory(cache: &Path, memory: &Memory) -> Result<RowFile> {
        let (path, dim) = (cache.join("memory.f16"), memory.dim());
        let mut file = BufWriter::new(File::create(&path)?);
        let mut row = vec![0.0; dim];
        for id in 0..memory.len() {
            memory.image_embedding(id, &mut row)?;
            let row: Vec<f16> = row.iter().map(|&x| f16::from_f32(x)).collect();
            file.write_all(bytemuck::cast_slice(&row))?;
        }
        file.flush()?;
        Ok(RowFile { path, rows: memory.len() as usize, dim })
    }

    /// Where the codes of the rows from `start` on are.
    fn codes_path(&self, start: usize, rows: usize) -> PathBuf {
        self.path.with_extension(format!("{start}-{rows}.bin"))
    }

    /// Writes the parts' codes unless they are there and newer than the rows.
    pub fn encode(&self) -> Result<()> {
        let map = self.map()?;
        let made = std::fs::metadata(&self.path)?.modified()?;
        for (start, rows) in self.parts() {
            let path = self.codes_path(start, rows);
            if std::fs::metadata(&path).and_then(|m| m.modified()).is_ok_and(|time| time >= made) {
                continue;
            }
            let all: &[f16] = bytemuck::cast_slice(&map);
            codes::write(&path, &all[start * self.dim..][..rows * self.dim], self.dim)?;
        }
        Ok(())
    }

    /// First row and number of rows of each part.
    fn parts(&self) -> Vec<(usize, usize)> {
        (0..self.rows).step_by(PART_ROWS).map(|start| (start, PART_ROWS.min(self.rows - start))).collect()
    }

    fn map(&self) -> Result<Mmap> {
        // SAFETY: the map is only read, and nothing changes the file while this program runs.
        #[allow(unsafe_code)]
        Ok(unsafe { Mmap::map(&File::open(&self.path)?) }?)
    }

    /// Maps rows and codes, as opening a memory does.
    pub fn open(&self) -> Result<OpenRows> {
        let codes = self.parts().into_iter().map(|(start, rows)| {
            Ok((start, rows, Codes::open(&self.codes_path(start, rows), rows, self.dim)?))
        });
        Ok(OpenRows { map: self.map()?, dim: self.dim, parts: codes.collect::<Result<_>>()? })
    }
}

/// Open rows and their codes.
pub struct OpenRows {
    map: Mmap,
    dim: usize,
    parts: Vec<(usize, usize, Codes)>,
}

impl OpenRows {
    /// What a search takes, with codes or without.
    pub fn parts(&self, with_codes: bool) -> Vec<SearchPart<'_>> {
        let all: &[f16] = bytemuck::cast_slice(&self.map);
        self.parts
            .iter()
            .map(|(start, rows, codes)| SearchPart {
                first_id: *start as u64,
                rows: &all[start * self.dim..][..rows * self.dim],
                codes: with_codes.then_some(codes),
            })
            .collect()
    }

    /// Bytes of all codes, factors included.
    pub fn code_bytes(&self) -> u64 {
        self.parts.iter().map(|(.., codes)| codes.bytes()).sum()
    }

    /// Row `id` as f32.
    pub fn row(&self, id: usize) -> Vec<f32> {
        let all: &[f16] = bytemuck::cast_slice(&self.map);
        all[id * self.dim..][..self.dim].iter().map(|x| x.to_f32()).collect()
    }
}

//! Embeddings of captions that have none: those that a remote index gives without, and those inside a template. Encoded once, kept for
//! the next query and the next run.
//!
//! A file for each model, `captions/FINGERPRINT.bin` in xmore's cache folder: a header, then records of one size: the first 16
//! bytes of the caption's SHA-256, the unit embedding as float16, and 8 bytes of the SHA-256 of the fingerprint and these two. Records are
//! only appended. One that is damaged, or another model's, fails its checksum, is encoded again, and counted.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use half::slice::HalfFloatSliceExt;
use sha2::{Digest, Sha256};
use xmore_files::open_regular;

use crate::encode::encode_texts;
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};

const MAGIC: &[u8; 8] = b"XMORECP2";
const KEY_BYTES: usize = 16;
const SUM_BYTES: usize = 8;
/// A file grows to this size; captions beyond are kept for this run only.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Embeddings held in memory for each model; when there are more, they are forgotten together.
const MAX_HELD: usize = 200_000;

type Key = [u8; KEY_BYTES];

/// Embeddings by caption, of one model.
type Known = HashMap<Key, Arc<[f32]>>;

/// Unit embeddings by caption.
pub(crate) type Encoded<'a> = HashMap<&'a str, Arc<[f32]>>;

/// Keeps caption embeddings for each model that asks.
#[derive(Default)]
pub struct CaptionStore {
    /// Folder of the files; `None` keeps nothing beyond this run.
    dir: Option<PathBuf>,
    /// By the model's fingerprint.
    models: Mutex<HashMap<String, Known>>,
    damaged: AtomicUsize,
}

impl CaptionStore {
    /// One that ends with this process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// One with files in `captions/` of xmore's cache folder.
    ///
    /// # Errors
    /// That no cache folder can be told.
    pub fn on_disk() -> Result<Self> {
        Ok(Self { dir: Some(XmoreError::cache_home()?.join("captions")), ..Self::default() })
    }

    /// Embeddings of the captions by a model, encoding those that are not known. They are rounded to float16 as a memory's are, so
    /// that a kept one and a new one are the same.
    ///
    /// # Errors
    /// Those of the text tower. A file that cannot be read or written costs time, not the answer.
    pub(crate) fn embeddings<'a>(&self, model: &dyn Encoder, captions: &[&'a str]) -> Result<Encoded<'a>> {
        let fingerprint = model.identity().fingerprint.clone();
        let path = self.dir.as_ref().map(|dir| dir.join(format!("{fingerprint}.bin")));
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let known = models.entry(fingerprint.clone()).or_insert_with(|| {
            let read = path.as_deref().and_then(|path| read(path, &fingerprint, model.dim()).ok());
            let (known, damaged) = read.unwrap_or_default();
            self.damaged.fetch_add(damaged, Ordering::Relaxed);
            known
        });
        // A caption's key is a hash: made once for each.
        let distinct: HashMap<&str, Key> = captions.iter().map(|&caption| (caption, key(caption))).collect();
        let unknown = distinct.iter().filter(|(_, key)| !known.contains_key(*key));
        let mut unknown: Vec<(&str, Key)> = unknown.map(|(&caption, &key)| (caption, key)).collect();
        // The order in which they are kept should not be a hasher's.
        unknown.sort_unstable();
        if !unknown.is_empty() {
            let texts: Vec<&str> = unknown.iter().map(|(caption, _)| *caption).collect();
            let encoded = encode_texts(model, &texts, &mut |_| {})?.embeddings;
            let rows: Vec<(Key, Vec<f16>)> = unknown
                .iter()
                .zip(encoded.rows())
                .map(|((_, key), row)| (*key, row.iter().map(|&v| f16::from_f32(v)).collect()))
                .collect();
            if let Some(path) = &path {
                // The answer does not depend on it.
                let _ = append(path, &fingerprint, model.dim(), &rows);
            }
            forget_unneeded(known, rows.len(), &distinct, MAX_HELD);
            known.extend(rows.into_iter().map(|(key, row)| (key, widen(&row))));
        }
        Ok(distinct.into_iter().map(|(caption, key)| (caption, known[&key].clone())).collect())
    }

    /// How many kept embeddings were found damaged since this was asked last; those that are needed are made again.
    pub fn take_damaged(&self) -> usize {
        self.damaged.swap(0, Ordering::Relaxed)
    }
}

/// Forgets what is not needed now, if `more` would be too many.
fn forget_unneeded(known: &mut Known, more: usize, needed: &HashMap<&str, Key>, limit: usize) {
    if known.len() + more > limit {
        let needed: HashSet<&Key> = needed.values().collect();
        known.retain(|key, _| needed.contains(key));
    }
}

fn key(caption: &str) -> Key {
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(&Sha256::digest(caption.as_bytes())[..KEY_BYTES]);
    key
}

fn widen(row: &[f16]) -> Arc<[f32]> {
    row.to_f32_vec().into()
}

fn header(dim: usize) -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&(dim as u64).to_le_bytes());
    header
}

fn record_bytes(dim: usize) -> usize {
    KEY_BYTES + dim * 2 + SUM_BYTES
}

fn sum(model: &str, record: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&Sha256::new().chain_update(model).chain_update(record).finalize()[..SUM_BYTES]);
    sum
}

/// All good records of a file, and how many are not good; a header that is not counts as one.
fn read(path: &Path, model: &str, dim: usize) -> std::io::Result<(Known, usize)> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(MAX_FILE_BYTES + record_bytes(dim) as u64).read_to_end(&mut bytes)?;
    Ok(read_all(&bytes, model, dim))
}

/// The same from a file's bytes.
fn read_all(bytes: &[u8], model: &str, dim: usize) -> (Known, usize) {
    let (mut known, mut damaged) = (Known::new(), 0);
    let Some(records) = bytes.strip_prefix(&header(dim)) else { return (known, 1) };
    for record in records.chunks_exact(record_bytes(dim)) {
        let (content, check) = record.split_at(record.len() - SUM_BYTES);
        if sum(model, content) != *check {
            damaged += 1;
            continue;
        }
        let (key_bytes, values) = content.split_at(KEY_BYTES);
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(key_bytes);
        let row: Vec<f16> = values.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect();
        known.insert(key, widen(&row));
    }
    (known, damaged)
}

/// Appends records in one write under a lock; a file that is not whole records long is brought to that length first, so that
/// later records lie where they are looked for. One with another header is begun anew.
fn append(path: &Path, model: &str, dim: usize, rows: &[(Key, Vec<f16>)]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::options().create(true).append(true).read(true).open(path)?;
    file.lock()?;
    let mut length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(rows.len() * record_bytes(dim));
    let start = header(dim);
    let mut found = [0; 16];
    if length > 0 && (file.read_exact(&mut found).is_err() || found != start) {
        file.set_len(0)?;
        length = 0;
    }
    if length == 0 {
        bytes.extend_from_slice(&start);
    } else {
        let torn = (length - start.len() as u64) % record_bytes(dim) as u64;
        file.set_len(length - torn)?;
    }
    for (key, row) in rows {
        let from = bytes.len();
        bytes.extend_from_slice(key);
        row.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        let check = sum(model, &bytes[from..]);
        bytes.extend_from_slice(&check);
    }
    if length + bytes.len() as u64 > MAX_FILE_BYTES {
        return Ok(());
    }
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_when_there_are_too_many() {
        let all: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
        let known = || all.iter().map(|caption| (key(caption), Arc::from([0.0f32]))).collect::<Known>();
        let needed: HashMap<&str, Key> = all[..15_000].iter().map(|c| (c.as_str(), key(c))).collect();
        let mut within = known();
        forget_unneeded(&mut within, 5, &needed, 20_005);
        assert_eq!(within.len(), 20_000);
        let mut beyond = known();
        forget_unneeded(&mut beyond, 6, &needed, 20_005);
        assert_eq!(beyond.len(), 15_000);
        assert!(needed.values().all(|key| beyond.contains_key(key)));
    }

    fn rows(from: u8, to: u8) -> Vec<(Key, Vec<f16>)> {
        (from..to).map(|i| (key(&i.to_string()), vec![f16::from_f32(f32::from(i)), f16::ONE])).collect()
    }

    #[test]
    fn what_is_appended_is_read_back_and_torn_records_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captions/model.bin");
        let read = |dim| read(&path, "m", dim).map(|(known, damaged)| (known.len(), damaged)).unwrap();
        append(&path, "m", 2, &rows(0, 3)).unwrap();
        append(&path, "m", 2, &rows(3, 5)).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(*super::read(&path, "m", 2).unwrap().0[&key("4")], [4.0, 1.0]);
        assert_eq!(read(2), (5, 0));
        assert_eq!(read(3), (0, 1), "another length is another model's");
        assert_eq!(super::read(&path, "other", 2).unwrap().1, 5, "another model's");

        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(read(2), (4, 0));
        append(&path, "m", 2, &rows(4, 7)).unwrap();
        assert_eq!(read(2), (7, 0));

        // No flipped bit gives another embedding, or another caption one.
        let sound = read_all(&whole, "m", 2).0;
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            let (known, damaged) = read_all(&flipped, "m", 2);
            assert_eq!(damaged, 1, "byte {byte}");
            assert!(known.iter().all(|(key, row)| sound.get(key) == Some(row)), "byte {byte}");
        }
        // What has another header is begun anew.
        fs::write(&path, b"something else entirely").unwrap();
        append(&path, "m", 2, &rows(0, 1)).unwrap();
        assert_eq!(read(2), (1, 0));
    }
}

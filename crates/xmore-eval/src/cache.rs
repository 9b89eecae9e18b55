//! Embeddings of an evaluation, kept on disk: nothing is encoded twice, and an interrupted run continues where it stopped.
//!
//! ```text
//! eval-cache/
//!   images-KEY/00000.npy   float32 [512, dim]: rows of the first 512 images; a row of NaN is an image that could not be read
//!   labels-KEY.npy         float32 [C, dim]: the labels under some prompts
//! ```
//! A key is a hash of the model's fingerprint and of what was encoded: for images their names below the dataset's folder, sizes and
//! times of change; for labels the very prompts. A file gets its name when it is whole, and has a checksum (see `cache_file`): one that is
//! damaged is made again and counted. Nothing is ever evicted: remove the folder at will.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use npyz::WriterBuilder;
use sha2::{Digest, Sha256};
use xmore_clip::Embeddings;
use xmore_files::hex;
use xmore_files::image::Orientation;
use xmore_memory::ingest::ImageRef;

use crate::error::{EvalError, Result};
use xmore::{EncodedBatch, Encoder, Labels, PartlySeen, Template, XmoreError, encode_refs};
use xmore_files::cache_file::{self, CacheFile};

/// Images of one file: at most so many are encoded again after an interruption.
const CHUNK: usize = 512;
/// An npy header is shorter than this; numpy pads it to a multiple of 64.
const MAX_HEADER_BYTES: u64 = 1024;
/// Folders of images' embeddings begin with this.
const IMAGES: &str = "images-";

/// Where embeddings are kept.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingCache {
    dir: Option<PathBuf>,
    damaged: Arc<Mutex<Vec<PathBuf>>>,
}

/// A dataset's embeddings.
#[derive(Debug)]
pub struct CachedImages {
    /// Unit rows `[kept, dim]`.
    pub embeddings: Embeddings,
    /// For each row, the index of its image.
    pub kept: Vec<usize>,
    /// For each image that gave no row, its index and why.
    pub failed: Vec<(usize, String)>,
    /// How many images were encoded, or tried, by this call; the others were kept from before.
    pub encoded: usize,
    /// How many were looked at only in part.
    pub partly_seen: PartlySeen,
}

impl EmbeddingCache {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Keeps embeddings in a folder, which is made when it is needed.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: Some(dir.into()), ..Self::default() }
    }

    /// Keeps embeddings in `eval-cache/` of xmore's cache folder.
    ///
    /// # Errors
    /// That no cache folder is known.
    pub fn on_disk() -> Result<Self> {
        Ok(Self::at(
            xmore_files::cache_home()
                .map_err(|source| EvalError::NoCacheFolder { source })?
                .join("eval-cache"),
        ))
    }

    /// Unit rows of images below `root`, encoded unless they are kept from before. `progress` is called with the number that is done.
    ///
    /// # Errors
    /// Those of loading the image tower, and [`EvalError::Io`] if the cache cannot be written; a broken image is no error but counted in
    /// [`CachedImages::failed`].
    pub fn images(
        &self,
        model: &dyn Encoder,
        root: &Path,
        images: &[ImageRef],
        progress: &mut dyn FnMut(usize),
    ) -> Result<CachedImages> {
        self.images_until(model, root, images, &|| false, progress)
    }

    /// The same, ended where `stop`, which is asked now and then, says so: what is whole by then is kept.
    ///
    /// # Errors
    /// As [`EmbeddingCache::images`], and [`XmoreError::Interrupted`].
    pub fn images_until(
        &self,
        model: &dyn Encoder,
        root: &Path,
        images: &[ImageRef],
        stop: &(dyn Fn() -> bool + Sync),
        progress: &mut dyn FnMut(usize),
    ) -> Result<CachedImages> {
        let dir =
            self.dir.as_ref().map(|dir| dir.join(format!("{IMAGES}{}", images_key(model, root, images))));
        if let Some(dir) = &dir {
            fs::create_dir_all(dir).map_err(|e| EvalError::io("create the folder", dir, e))?;
        }
        let dim = model.dim();
        let mut found: Vec<Option<Vec<f32>>> = images
            .chunks(CHUNK)
            .enumerate()
            .map(|(n, chunk)| self.read(&dir.as_ref()?.join(file_name(n)), chunk.len(), dim))
            .collect();
        let mut done: usize = images
            .chunks(CHUNK)
            .zip(&found)
            .filter(|(_, rows)| rows.is_some())
            .map(|(chunk, _)| chunk.len())
            .sum();
        progress(done);
        let (mut reasons, mut encoded, mut partly_seen) = (HashMap::new(), 0, PartlySeen::default());
        let mut next = 0;
        while let Some(first) = (next..found.len()).find(|&n| found[n].is_none()) {
            // Chunks that are missing in a row are encoded in a row, so that reading ahead does not stop between them.
            next = (first..found.len()).find(|&n| found[n].is_some()).unwrap_or(found.len());
            let range = first * CHUNK..(next * CHUNK).min(images.len());
            let mut sink = Chunks {
                dir: dir.as_deref(),
                dim,
                number: first,
                total: range.len(),
                taken: 0,
                rows: Vec::new(),
                chunks: Vec::new(),
                failed: HashMap::new(),
                partly_seen: PartlySeen::default(),
                progress: &mut |now| progress(done + now),
            };
            let mut written = Ok(());
            encode_refs(&[model], &images[range.clone()], stop, &mut |batch| {
                written = sink.take(batch);
                written.is_ok()
            })?;
            written?;
            if sink.taken < range.len() {
                return Err(XmoreError::Interrupted.into());
            }
            let Chunks { chunks, failed, .. } = sink;
            partly_seen += sink.partly_seen;
            for (n, rows) in (first..next).zip(chunks) {
                found[n] = Some(rows);
            }
            reasons.extend(failed.into_iter().map(|(i, why)| (range.start + i, why)));
            encoded += range.len();
            done += range.len();
        }
        let (mut rows, mut kept, mut failed) =
            (Vec::with_capacity(images.len() * dim), Vec::new(), Vec::new());
        for (i, row) in found.iter().flatten().flat_map(|chunk| chunk.chunks_exact(dim)).enumerate() {
            if row.iter().all(|v| v.is_finite()) {
                rows.extend_from_slice(row);
                kept.push(i);
            } else {
                let before = || format!("{}: could not be read when it was encoded", images[i]);
                failed.push((i, reasons.remove(&i).unwrap_or_else(before)));
            }
        }
        Ok(CachedImages { embeddings: Embeddings::new(rows, dim), kept, failed, encoded, partly_seen })
    }

    /// [`Labels::embed`], encoded unless it is kept from before.
    ///
    /// # Errors
    /// Those of the text tower, and [`EvalError::Io`] if the cache cannot be written.
    pub fn labels(&self, model: &dyn Encoder, labels: &Labels, templates: &[Template]) -> Result<Embeddings> {
        let mut hash = Sha256::new();
        hash.update(&model.identity().fingerprint);
        for label in 0..labels.names().len() {
            for prompt in labels.prompts(label, templates) {
                add(&mut hash, prompt.as_bytes());
            }
            add(&mut hash, b"");
        }
        let path = self.dir.as_ref().map(|dir| dir.join(format!("labels-{}.npy", name_of(hash))));
        let dim = model.dim();
        if let Some(rows) = path.as_ref().and_then(|path| self.read(path, labels.names().len(), dim)) {
            return Ok(Embeddings::new(rows, dim));
        }
        let embeddings = labels.embed(model, templates)?;
        if let (Some(path), Some(dir)) = (&path, &self.dir) {
            fs::create_dir_all(dir).map_err(|e| EvalError::io("create the folder", dir, e))?;
            write_npy(path, embeddings.as_slice(), dim)?;
        }
        Ok(embeddings)
    }

    /// The files found damaged since this was asked last; their embeddings were made again.
    pub fn take_damaged(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The values of a float32 matrix of just that shape.
    fn read(&self, path: &Path, rows: usize, dim: usize) -> Option<Vec<f32>> {
        let max = (rows * dim * size_of::<f32>()) as u64 + MAX_HEADER_BYTES;
        let values = match cache_file::read(path, &kept_name(path), max) {
            CacheFile::Missing => return None,
            CacheFile::Damaged => None,
            CacheFile::Whole(content) => parse_npy(&content, rows, dim),
        };
        if values.is_none() {
            self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        }
        values
    }
}

/// Cuts batches into chunks, and writes each when it is whole.
struct Chunks<'a> {
    dir: Option<&'a Path>,
    dim: usize,
    /// Number of the chunk that is filled now.
    number: usize,
    /// Images to come in all, and those that came.
    total: usize,
    taken: usize,
    rows: Vec<f32>,
    chunks: Vec<Vec<f32>>,
    failed: HashMap<usize, String>,
    partly_seen: PartlySeen,
    progress: &'a mut dyn FnMut(usize),
}

impl Chunks<'_> {
    fn take(&mut self, batch: EncodedBatch) -> Result<()> {
        let mut rows = batch.kept.iter().copied().zip(batch.embeddings[0].rows()).peekable();
        self.failed.extend(batch.failed.into_iter().map(|(i, error)| (i, error.to_string())));
        self.partly_seen += batch.partly_seen;
        for i in self.taken..batch.end {
            match rows.next_if(|(kept, _)| *kept == i) {
                Some((_, row)) => self.rows.extend_from_slice(row),
                None => self.rows.extend(std::iter::repeat_n(f32::NAN, self.dim)),
            }
            if self.rows.len() == CHUNK * self.dim || i + 1 == self.total {
                let rows = std::mem::take(&mut self.rows);
                if let Some(dir) = self.dir {
                    write_npy(&dir.join(file_name(self.number)), &rows, self.dim)?;
                }
                self.chunks.push(rows);
                self.number += 1;
            }
        }
        self.taken = batch.end;
        (self.progress)(batch.end);
        Ok(())
    }
}

fn file_name(chunk: usize) -> String {
    format!("{chunk:05}.npy")
}

/// Identifies a list of images: by names, sizes and times of change.
fn images_key(model: &dyn Encoder, root: &Path, images: &[ImageRef]) -> String {
    let mut hash = Sha256::new();
    hash.update(&model.identity().fingerprint);
    // Nothing for what was kept before there was a choice.
    if model.orientation() == Orientation::Exif {
        hash.update(b"exif");
    }
    if let Some(preparation) = model.preparation() {
        hash.update(preparation);
    }
    // Many images lie in one tar.
    let mut states: HashMap<PathBuf, (u64, u128)> = HashMap::new();
    for image in images {
        let (file, rest) = match image {
            ImageRef::File(path) => (path.as_path(), Vec::new()),
            ImageRef::TarMember { tar, name, .. } => (&**tar, name.clone()),
            ImageRef::ParquetCell { file, row } => (&**file, row.to_string().into()),
            other => (Path::new(""), other.to_string().into()),
        };
        let (size, changed) = match states.get(file) {
            Some(state) => *state,
            None => {
                let state = state(file);
                if !rest.is_empty() {
                    states.insert(file.to_owned(), state);
                }
                state
            }
        };
        add(&mut hash, file.strip_prefix(root).unwrap_or(file).as_os_str().as_encoded_bytes());
        add(&mut hash, &rest);
        hash.update(size.to_le_bytes());
        hash.update(changed.to_le_bytes());
    }
    name_of(hash)
}

/// Size and time of change; impossible ones of a file that is not there.
fn state(file: &Path) -> (u64, u128) {
    let Ok(metadata) = fs::metadata(file) else { return (u64::MAX, u128::MAX) };
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), changed.map_or(0, |time| time.as_nanos()))
}

fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Half of the hash is enough to tell files of one cache apart.
fn name_of(hash: Sha256) -> String {
    hex(&hash.finalize()[..16])
}

/// A file's name within the cache: its own, and that of its folder where that identifies the images.
fn kept_name(path: &Path) -> String {
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if folder.starts_with(IMAGES) { format!("{folder}/{own}") } else { own }
}

fn parse_npy(content: &[u8], rows: usize, dim: usize) -> Option<Vec<f32>> {
    let npy = npyz::NpyFile::new(content).ok()?;
    if npy.shape() != [rows as u64, dim as u64] || npy.order() != npyz::Order::C {
        return None;
    }
    npy.into_vec::<f32>().ok()
}

fn write_npy(path: &Path, values: &[f32], dim: usize) -> Result<()> {
    let mut content = Vec::with_capacity(size_of_val(values) + MAX_HEADER_BYTES as usize);
    let shape = [(values.len() / dim) as u64, dim as u64];
    let write = |content: &mut Vec<u8>| {
        let mut writer =
            npyz::WriteOptions::new().default_dtype().shape(&shape).writer(content).begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()
    };
    write(&mut content)
        .and_then(|()| cache_file::write(path, &kept_name(path), &content))
        .map_err(|e| EvalError::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use xmore::{ModelIdentity, Pixels, TextEmbeddings};

    use super::*;

    /// An image is the direction of its first pixel's color, a text one of its length and bytes.
    struct Directions(ModelIdentity);

    fn model() -> Directions {
        Directions(ModelIdentity::new("directions", "first version", 3))
    }

    fn unit_rows(rows: impl Iterator<Item = [f32; 3]>) -> Embeddings {
        let unit = |row: [f32; 3]| row.map(|v| v / row.iter().map(|v| v * v).sum::<f32>().sqrt());
        Embeddings::new(rows.flat_map(unit).collect(), 3)
    }

    impl Encoder for Directions {
        fn identity(&self) -> &ModelIdentity {
            &self.0
        }

        fn logit_scale(&self) -> f32 {
            1.0
        }

        fn prepare(&self, image: &RgbImage) -> Pixels {
            Pixels::new(image.get_pixel(0, 0).0.map(|v| f32::from(v) + 1.0).to_vec())
        }

        fn embed_images(&self, images: &[Pixels]) -> xmore::Result<Embeddings> {
            Ok(unit_rows(images.iter().map(|image| image.as_slice().try_into().expect("three values"))))
        }

        fn embed_texts(&self, texts: &[&str]) -> xmore::Result<TextEmbeddings> {
            let sum = |text: &str| text.bytes().map(f32::from).sum::<f32>();
            let rows = texts.iter().map(|text| [1.0, text.len() as f32, sum(text)]);
            Ok(TextEmbeddings { embeddings: unit_rows(rows), truncated: 0 })
        }
    }

    /// More images than a chunk has, one of them broken and one missing.
    fn images(dir: &Path) -> Vec<ImageRef> {
        fs::write(dir.join("broken.png"), b"not a picture").unwrap();
        let name = |i: usize| match i {
            3 => "broken.png".to_owned(),
            515 => "missing.png".to_owned(),
            _ => format!("{i}.png"),
        };
        let paths: Vec<PathBuf> = (0..CHUNK + 8).map(|i| dir.join(name(i))).collect();
        for (i, path) in (0u16..).zip(&paths) {
            if !path.ends_with("broken.png") && !path.ends_with("missing.png") {
                // The content is a portable pixmap of one pixel.
                let [high, low] = i.to_be_bytes();
                fs::write(path, [&b"P6\n1 1\n255\n"[..], &[high, low, 7]].concat()).unwrap();
            }
        }
        paths.into_iter().map(ImageRef::File).collect()
    }

    #[test]
    fn what_is_kept_is_not_encoded_again_and_what_is_lost_is() {
        let dir = tempfile::tempdir().unwrap();
        let (model, images) = (model(), images(dir.path()));
        let cache = EmbeddingCache::at(dir.path().join("cache"));
        let get = |cache: &EmbeddingCache| cache.images(&model, dir.path(), &images, &mut |_| {}).unwrap();
        let plain = get(&EmbeddingCache::none());
        let first = get(&cache);
        assert_eq!((first.encoded, &first.embeddings, &first.kept), (520, &plain.embeddings, &plain.kept));
        assert_eq!(first.failed.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [3, 515]);
        assert!(first.failed[1].1.contains("missing.png"), "{:?}", first.failed);
        let second = get(&cache);
        assert_eq!((second.encoded, &second.embeddings, &second.kept), (0, &first.embeddings, &first.kept));
        assert_eq!(second.failed.len(), 2);

        // A run that was killed after its first chunk, and damaged files.
        let chunks = fs::read_dir(dir.path().join("cache")).unwrap().next().unwrap().unwrap().path();
        let (a, b) = (chunks.join("00000.npy"), chunks.join("00001.npy"));
        fs::remove_file(&b).unwrap();
        assert_eq!(get(&cache).encoded, 8);
        let whole = fs::read(&a).unwrap();
        for torn in [
            &whole[..whole.len() / 2],
            b"",
            &[&whole[..], b"more".as_slice().repeat(999).as_slice()].concat(),
        ] {
            fs::write(&a, torn).unwrap();
            let mended = get(&cache);
            assert_eq!((mended.encoded, &mended.embeddings), (CHUNK, &first.embeddings));
            assert_eq!(fs::read(&a).unwrap(), whole);
            assert_eq!(cache.take_damaged(), std::slice::from_ref(&a));
        }
        // Another chunk in its place is noticed.
        fs::copy(&b, &a).unwrap();
        assert_eq!((get(&cache).encoded, cache.take_damaged().len()), (CHUNK, 1));

        // Another image under the same name is another list; the same list from elsewhere is the same.
        fs::write(dir.path().join("0.png"), b"shorter").unwrap();
        assert_eq!(get(&cache).encoded, 520);
    }

    #[test]
    fn a_dataset_that_moved_keeps_its_embeddings() {
        let dir = tempfile::tempdir().unwrap();
        let (before, after) = (dir.path().join("before"), dir.path().join("after"));
        fs::create_dir(&before).unwrap();
        let model = model();
        let key = |root: &Path| images_key(&model, root, &[ImageRef::File(root.join("a.png"))]);
        fs::write(before.join("a.png"), b"a").unwrap();
        let first = key(&before);
        fs::rename(&before, &after).unwrap();
        assert_eq!(key(&after), first);
        fs::write(after.join("a.png"), b"ab").unwrap();
        assert_ne!(key(&after), first);
    }

    #[test]
    fn labels_are_kept_by_their_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let (model, cache) = (model(), EmbeddingCache::at(dir.path()));
        let labels = Labels::new(["cat", "dog"]).unwrap();
        let templates = [Template::default(), Template::new("{}.").unwrap()];
        let fresh = labels.embed(&model, &templates).unwrap();
        assert_eq!(cache.labels(&model, &labels, &templates).unwrap(), fresh);
        assert_eq!(cache.labels(&model, &labels, &templates).unwrap(), fresh);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        cache.labels(&model, &labels, &templates[..1]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
    #[test]
    fn no_flipped_bit_changes_an_embedding() {
        let dir = tempfile::tempdir().unwrap();
        let (model, cache) = (model(), EmbeddingCache::at(dir.path()));
        let labels = Labels::new(["cat", "dog"]).unwrap();
        let templates = [Template::default()];
        let get = || cache.labels(&model, &labels, &templates).unwrap();
        let fresh = get();
        let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        // Its header, its values, its checksum.
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            fs::write(&file, flipped).unwrap();
            assert_eq!(get(), fresh, "byte {byte}");
            assert_eq!(cache.take_damaged(), std::slice::from_ref(&file), "byte {byte}");
            assert_eq!(fs::read(&file).unwrap(), whole, "byte {byte}");
        }
    }
}

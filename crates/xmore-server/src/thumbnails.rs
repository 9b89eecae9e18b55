//! Thumbnails of the memory's images: decoded, resized and encoded as JPEG, so that no file's own bytes are sent.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;
use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use xmore_files::image::{Alpha, DecodeOptions, decode_bytes};
use xmore_memory::ingest::ImageRef;

use crate::api_error::{ApiError, ErrorCode};
use crate::blocking::BlockingPool;
use crate::options::Limits;
use crate::snapshot::{Snapshot, no_pair};

/// Longest sides that can be asked for, in pixels.
pub(crate) const SIZES: std::ops::RangeInclusive<u32> = 16..=1024;
/// Pictures that are read at the same time; reads may be stuck.
const READ_AT_ONCE: usize = 8;
/// Pictures that are decoded at the same time.
const DECODED_AT_ONCE: usize = 2;
/// Pictures that are made or wait to be made.
const MAX_WAITING: usize = 256;
/// Pictures that are kept: at 160 pixels, some 20 MB.
const KEPT: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");
/// Larger ones are not kept.
const KEPT_BYTES: usize = 32 << 10;
/// JPEG quality.
const QUALITY: u8 = 82;

/// Generation, id and size.
type Key = (u64, u64, u32);

/// The result of making a picture; none while it is being made.
type Made = Option<Result<Bytes, ApiError>>;

pub(crate) struct Thumbnails {
    max_pixels: u64,
    timeout: Duration,
    reads: BlockingPool,
    decoders: Semaphore,
    /// Requests for one of these wait for it: a read that is stuck is not begun again.
    making: Mutex<HashMap<Key, watch::Receiver<Made>>>,
    kept: Mutex<LruCache<Key, Bytes>>,
}

impl Thumbnails {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max_pixels: limits.pixels,
            timeout: limits.timeout,
            reads: BlockingPool::new(READ_AT_ONCE),
            decoders: Semaphore::new(DECODED_AT_ONCE),
            making: Mutex::default(),
            kept: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// A pair's image as a JPEG whose longest side is `size` at most.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] without such a pair, or where its image cannot be read or decoded any more; [`ErrorCode::Timeout`],
    /// [`ErrorCode::Overloaded`].
    pub(crate) async fn get(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        id: u64,
        size: u32,
        deadline: Instant,
    ) -> Result<Bytes, ApiError> {
        let memory = snapshot.memory("a picture")?;
        if !snapshot.shows(memory, id) {
            return Err(no_pair(id));
        }
        let key = (snapshot.generation, id, size);
        if let Some(jpeg) = lock(&self.kept).get(&key) {
            return Ok(jpeg.clone());
        }
        let mut made = self.begin(snapshot, key)?;
        let made = tokio::time::timeout_at(deadline.into(), made.wait_for(Option::is_some)).await;
        let made =
            made.map_err(|_| ApiError::timeout())?.map_err(|error| ApiError::internal(&error))?.clone();
        made.unwrap_or_else(|| Err(ApiError::timeout()))
    }

    /// Begins to make a picture, unless it is being made.
    fn begin(self: &Arc<Self>, snapshot: Arc<Snapshot>, key: Key) -> Result<watch::Receiver<Made>, ApiError> {
        let mut making = lock(&self.making);
        if let Some(made) = making.get(&key) {
            return Ok(made.clone());
        }
        if making.len() >= MAX_WAITING {
            return Err(ApiError::overloaded());
        }
        let (tell, made) = watch::channel(None);
        making.insert(key, made.clone());
        let claim = Claim { thumbnails: self.clone(), key };
        let (thumbnails, deadline) = (self.clone(), Instant::now() + self.timeout);
        tokio::spawn(async move {
            let made = thumbnails.reads.run(deadline, move || claim.make(&snapshot)).await;
            tell.send_replace(Some(made.and_then(|made| made)));
        });
        Ok(made)
    }
}

/// A picture that is being made, until its work has ended.
struct Claim {
    thumbnails: Arc<Thumbnails>,
    key: Key,
}

impl Claim {
    /// Reads the image and makes the picture; waits for a decoder's turn in between.
    fn make(self, snapshot: &Snapshot) -> Result<Bytes, ApiError> {
        let (_, id, size) = self.key;
        let path = snapshot.memory("a picture")?.image_path(id)?;
        let bytes = snapshot.images.read(&ImageRef::parse(path)).map_err(|error| missing(id, &error))?;
        let thumbnails = &self.thumbnails;
        let turn = Handle::current().block_on(thumbnails.decoders.acquire());
        let _turn = turn.map_err(|error| ApiError::internal(&error))?;
        let jpeg = Bytes::from(small(&bytes, Path::new(path), id, size, thumbnails.max_pixels)?);
        if jpeg.len() <= KEPT_BYTES {
            lock(&thumbnails.kept).put(self.key, jpeg.clone());
        }
        Ok(jpeg)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.thumbnails.making).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The caller knows the path from the pair; why it cannot be read is not revealed.
fn missing(id: u64, error: &dyn std::fmt::Display) -> ApiError {
    tracing::debug!("no picture of pair {id}: {error}");
    ApiError::new(
        ErrorCode::NotFound,
        format!("the image of pair {id} is not there any more, or cannot be read"),
    )
}

/// An image file as a JPEG whose longest side is `size` at most.
fn small(bytes: &[u8], path: &Path, id: u64, size: u32, max_pixels: u64) -> Result<Vec<u8>, ApiError> {
    let options = DecodeOptions { max_pixels, ..DecodeOptions::default() };
    let picture = decode_bytes(bytes, path, Alpha::White, &options).map_err(|error| missing(id, &error))?;
    let picture = picture.image();
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    let small = if longest <= size {
        picture.clone()
    } else {
        let side = |side: u32| (u64::from(side) * u64::from(size) / u64::from(longest)).max(1) as u32;
        thumbnail(picture, side(width), side(height))
    };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode_image(&small)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(jpeg)
}

//! Small pictures of the memory's images: decoded, made small and written as JPEG anew, so that no file's own bytes leave the machine.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;
use lru::LruCache;
use tokio::sync::Semaphore;
use xmore_clip::{Alpha, decode_memory_within};
use xmore_memory::ingest::ImageRef;

use crate::error::{ApiError, ErrorCode};
use crate::snapshot::{Snapshot, no_pair};

/// Longest sides that can be asked for, in pixels.
pub(crate) const SIZES: std::ops::RangeInclusive<u32> = 16..=1024;
/// Pictures that are made at the same time.
const AT_ONCE: usize = 2;
/// Pictures that are kept: at 160 pixels, some 20 MB.
const KEPT: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");
/// Larger ones are not kept.
const KEPT_BYTES: usize = 32 << 10;
/// JPEG quality.
const QUALITY: u8 = 82;

/// Generation, id and size.
type Key = (u64, u64, u32);

pub(crate) struct Thumbnails {
    max_pixels: u64,
    turns: Semaphore,
    kept: Mutex<LruCache<Key, Bytes>>,
}

impl Thumbnails {
    pub(crate) fn new(max_pixels: u64) -> Self {
        Self { max_pixels, turns: Semaphore::new(AT_ONCE), kept: Mutex::new(LruCache::new(KEPT)) }
    }

    /// A pair's image as a JPEG whose longest side is `size` at most.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] without such a pair, or where its image cannot be read or decoded any more.
    pub(crate) async fn get(&self, snapshot: Arc<Snapshot>, id: u64, size: u32) -> Result<Bytes, ApiError> {
        let memory = snapshot.memory("a picture")?;
        if !snapshot.shows(memory, id) {
            return Err(no_pair(id));
        }
        let key = (snapshot.generation, id, size);
        if let Some(jpeg) = self.kept().get(&key) {
            return Ok(jpeg.clone());
        }
        let _turn = self.turns.acquire().await.map_err(|error| ApiError::internal(&error))?;
        let max_pixels = self.max_pixels;
        let made = tokio::task::spawn_blocking(move || make(&snapshot, id, size, max_pixels)).await;
        let jpeg = Bytes::from(made.map_err(|error| ApiError::internal(&error))??);
        if jpeg.len() <= KEPT_BYTES {
            self.kept().put(key, jpeg.clone());
        }
        Ok(jpeg)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, LruCache<Key, Bytes>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(snapshot: &Snapshot, id: u64, size: u32, max_pixels: u64) -> Result<Vec<u8>, ApiError> {
    let path = snapshot.memory("a picture")?.image_path(id)?;
    // The caller sees the path with the pair; what is on this machine behind it is not told.
    let missing = |error: &dyn std::fmt::Display| {
        tracing::debug!("no picture of pair {id}: {error}");
        ApiError::new(
            ErrorCode::NotFound,
            format!("the image of pair {id} is not there any more, or cannot be read"),
        )
    };
    let bytes = snapshot.images.read(&ImageRef::parse(path)).map_err(|error| missing(&error))?;
    let picture = decode_memory_within(&bytes, Path::new(path), Alpha::White, max_pixels)
        .map_err(|error| missing(&error))?;
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    let small = if longest <= size {
        picture
    } else {
        let side = |side: u32| (u64::from(side) * u64::from(size) / u64::from(longest)).max(1) as u32;
        thumbnail(&picture, side(width), side(height))
    };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode_image(&small)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(jpeg)
}

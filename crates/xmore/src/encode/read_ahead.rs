//! Images in the order in which they are encoded, read by a thread of its own ahead of decoding.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use image::RgbImage;
use xmore_clip::Loaded;
use xmore_files::image::MAX_PIXELS;
use xmore_memory::ingest::{ImageReader, ImageRef};

use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};

/// A batch with this many bytes of files is complete, however few they are.
const BATCH_BYTES: usize = 64 << 20;

/// An image that is handed over to be encoded.
#[derive(Clone, Debug)]
pub enum GivenImage {
    /// A file.
    Path(PathBuf),
    /// A file's bytes.
    Bytes {
        /// The bytes.
        bytes: Vec<u8>,
        /// Stands for the file in errors.
        name: PathBuf,
    },
    /// Decoded pixels, upright.
    Pixels(RgbImage),
}

/// The images of a run.
pub(super) enum Images<'a> {
    Refs(&'a [ImageRef]),
    Files(&'a [PathBuf]),
    Given(Receiver<Vec<GivenImage>>),
}

impl Images<'_> {
    /// The images behind the first `asked`: `batch` of them, or those that were handed over together. Waits for these only if `wait`.
    fn next(&mut self, asked: usize, batch: usize, wait: bool) -> NextImages {
        let listed = |len: usize, get: &dyn Fn(usize) -> ImageRef| {
            let range = asked..(asked + batch).min(len);
            match range.is_empty() {
                true => NextImages::End,
                false => NextImages::Some(range.map(|i| (i, Wanted::Ref(get(i)))).collect()),
            }
        };
        match self {
            Self::Refs(refs) => listed(refs.len(), &|i| refs[i].clone()),
            Self::Files(files) => listed(files.len(), &|i| ImageRef::File(files[i].clone())),
            Self::Given(batches) => {
                let given = match wait {
                    false => batches.try_recv(),
                    true => batches.recv_timeout(STOP_CHECK).map_err(|error| match error {
                        RecvTimeoutError::Timeout => TryRecvError::Empty,
                        RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                    }),
                };
                match given {
                    Ok(images) => {
                        NextImages::Some((asked..).zip(images.into_iter().map(Wanted::from)).collect())
                    }
                    Err(TryRecvError::Empty) => NextImages::NotYet,
                    Err(TryRecvError::Disconnected) => NextImages::End,
                }
            }
        }
    }
}

/// What follows of the images of a run.
enum NextImages {
    Some(WantedBatch),
    /// Nothing was handed over yet.
    NotYet,
    End,
}

/// An image as the reader is asked for it.
enum Wanted {
    Ref(ImageRef),
    /// Nothing is left to read.
    Read(Content, PathBuf),
}

impl From<GivenImage> for Wanted {
    fn from(image: GivenImage) -> Self {
        match image {
            GivenImage::Path(path) => Self::Ref(ImageRef::File(path)),
            GivenImage::Bytes { bytes, name } => Self::Read(Content::File(bytes), name),
            GivenImage::Pixels(pixels) => Self::Read(Content::Pixels(pixels), PathBuf::new()),
        }
    }
}

/// An image that is in memory.
pub(super) enum Content {
    /// A file's bytes.
    File(Vec<u8>),
    /// Decoded and upright.
    Pixels(RgbImage),
}

impl Content {
    pub(super) fn file(&self) -> Option<&[u8]> {
        match self {
            Self::File(bytes) => Some(bytes),
            Self::Pixels(_) => None,
        }
    }

    /// Its size in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::File(bytes) => bytes.len(),
            Self::Pixels(pixels) => pixels.as_raw().len(),
        }
    }

    /// Decodes and prepares it.
    pub(super) fn load(&self, model: &dyn Encoder, name: &Path) -> Result<Loaded> {
        match self {
            Self::File(bytes) => model.load(bytes, name, MAX_PIXELS),
            Self::Pixels(pixels) => {
                Ok(Loaded { pixels: model.prepare(pixels), first_of_several: false, far_from_square: false })
            }
        }
    }
}

/// Consecutive images that were read, with the index and the name of each.
pub(super) type ReadBatch = Vec<(usize, Result<Content>, PathBuf)>;

/// Images that the reader is asked for at once, at least one.
type WantedBatch = Vec<(usize, Wanted)>;

/// A thread that reads files while others are decoded and encoded. It is not joined: a read that never ends, such as from a server that
/// is gone, keeps it but no other.
pub(super) struct ReadAhead<'a> {
    images: Images<'a>,
    /// Images of a batch.
    batch: usize,
    /// Images that the reader has been asked for, and those that have come.
    asked: usize,
    come: usize,
    /// Whether it has been asked for all.
    all_asked: bool,
    ask: Sender<WantedBatch>,
    read: Receiver<ReadBatch>,
    reader: Option<JoinHandle<()>>,
}

/// Batches that the reader is asked for ahead of the one that is waited for.
const AHEAD: usize = 2;
/// How often a wait asks whether to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

impl<'a> ReadAhead<'a> {
    pub(super) fn start(images: Images<'a>, batch: usize) -> Result<Self> {
        let (ask, wanted) = channel();
        let (send, read) = sync_channel(1);
        let reader = Builder::new().name("read-ahead".to_owned());
        let reader = reader.spawn(move || read_ahead(&wanted, &send));
        let reader = Some(reader.map_err(|source| XmoreError::System { action: "start a thread", source })?);
        Ok(Self { images, batch, asked: 0, come: 0, all_asked: false, ask, read, reader })
    }

    /// The next batch that was read; `None` at the end, or if `stop` says so.
    pub(super) fn next(&mut self, stop: &(dyn Fn() -> bool + Sync)) -> Option<ReadBatch> {
        loop {
            self.ask_ahead();
            if self.come < self.asked {
                break;
            }
            if self.all_asked || stop() {
                return None;
            }
            // Others may compute on this thread while nothing is handed over: what is waited for may depend on them.
            rayon::yield_now();
        }
        loop {
            if stop() {
                return None;
            }
            match self.read.recv_timeout(STOP_CHECK) {
                Ok(batch) => {
                    self.come += batch.len();
                    return Some(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // It ends before us only by a panic.
                    match self.reader.take().map(JoinHandle::join) {
                        Some(Err(panic)) => std::panic::resume_unwind(panic),
                        _ => return None,
                    }
                }
            }
        }
    }
}

impl ReadAhead<'_> {
    /// Asks for what follows, as far as it is known; waits a moment for it if nothing else has been asked for.
    fn ask_ahead(&mut self) {
        while !self.all_asked && self.asked < self.come + (AHEAD + 1) * self.batch {
            match self.images.next(self.asked, self.batch, self.asked == self.come) {
                NextImages::Some(wanted) => {
                    self.asked += wanted.len();
                    // Without a reader, what it left is found where it is waited for.
                    let _ = self.ask.send(wanted);
                }
                NextImages::NotYet => return,
                NextImages::End => self.all_asked = true,
            }
        }
    }
}

fn read_ahead(wanted: &Receiver<WantedBatch>, send: &SyncSender<ReadBatch>) {
    let reader = ImageReader::new();
    while let Ok(images) = wanted.recv() {
        let (mut batch, mut bytes, last) = (ReadBatch::new(), 0, images.len() - 1);
        for (n, (i, image)) in images.into_iter().enumerate() {
            let (read, name) = match image {
                Wanted::Ref(image) => {
                    let read = reader.read(&image).map(Content::File).map_err(XmoreError::from);
                    (read, PathBuf::from(image.to_string()))
                }
                Wanted::Read(content, name) => (Ok(content), name),
            };
            bytes += read.as_ref().map_or(0, Content::bytes);
            batch.push((i, read, name));
            if bytes >= BATCH_BYTES || n == last {
                // At an early end no thread waits for it.
                if send.send(std::mem::take(&mut batch)).is_err() {
                    return;
                }
                bytes = 0;
            }
        }
    }
}

//! JPEG files to pixels on the card, by nvJPEG: the card's JPEG engines for what they can decode, several threads and the card's processors for the rest.
//!
//! Pixels are close to libjpeg's and not the same. A file that nvJPEG does not decode is an error of its own ([`JpegError`]): the caller decodes it on the
//! processor.

mod engines;
mod functions;
mod header;

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Result;
use crate::kernels::{Kernel, Source};
use crate::stream::{Arg, Launch, Stream};
use engines::Engines;
use functions::{Backend, Functions, Image, OUTPUT_RGBI, Owned, SUBSAMPLING_UNKNOWN, SUCCESS, Status};
use header::Header;

/// Images begin at multiples of this, which the resampling's 16-byte loads need.
const ALIGNMENT: usize = 256;

/// How large images may be: headers of a few bytes may promise 65,535 x 65,535 pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of an image.
    pub image_pixels: usize,
    /// Pixels of a batch, which are on the card together.
    pub batch_pixels: usize,
}

/// An image on the card: RGB, row after row, without bytes between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where it begins in [`JpegDecoder::pixels`].
    pub offset: usize,
    /// Its width.
    pub width: usize,
    /// Its height.
    pub height: usize,
}

/// Why an image was not decoded on the card.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JpegError {
    /// The file is not a whole JPEG file.
    #[error("{what}")]
    Broken {
        /// What is wrong.
        what: &'static str,
    },
    /// nvJPEG has no such decoder, or is not known to decode it as others do.
    #[error("not decoded on the GPU: {what}")]
    Unsupported {
        /// What it has.
        what: &'static str,
    },
    /// The image has more pixels than are allowed.
    #[error("{width} x {height} pixels; at most {limit} are allowed")]
    TooLarge {
        /// Its width.
        width: usize,
        /// Its height.
        height: usize,
        /// Pixels that are allowed.
        limit: usize,
    },
    /// The images before it took the batch's pixels.
    #[error("a batch on the GPU has at most {limit} pixels")]
    BatchFull {
        /// Pixels that are allowed.
        limit: usize,
    },
    /// nvJPEG said so.
    #[error("nvJPEG: {status}")]
    Decoder {
        /// Its status in words.
        status: &'static str,
    },
    /// nvJPEG reported success and wrote no pixels, or not all of them. (An image whose first or last row has nothing but bytes of 165 is taken for one.)
    #[error("nvJPEG left out the image")]
    NotWritten,
}

impl JpegError {
    fn of(status: Status) -> std::result::Result<(), Self> {
        match status {
            SUCCESS => Ok(()),
            other => Err(Self::Decoder { status: functions::status_name(other) }),
        }
    }
}

/// Must be `Decoded` of jpeg.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Place {
    pixels: u64,
    width: i32,
    height: i32,
}

/// Decodes batches of files. Its memory grows to the largest batch and is kept.
pub struct JpegDecoder {
    functions: &'static Functions,
    device: Device,
    limits: Limits,
    mark: Kernel,
    unwritten: Kernel,
    pixels: Buffer,
    /// [`Place`]s of a pass, and a flag for each.
    places: Buffer,
    flags: Buffer,
    // States stand before the handles that they are of: fields are dropped in this order.
    engines: Option<Engines>,
    workers: Vec<Mutex<Worker>>,
    software: Owned,
}

/// What a thread decodes single images with.
struct Worker {
    state: Owned,
    stream: Stream,
}

/// A file that is decoded, and where to.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// Its number in the batch.
    number: usize,
    file: &'a [u8],
    image: Decoded,
}

impl std::fmt::Debug for JpegDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JpegDecoder").field("limits", &self.limits).field("engines", &self.engines()).finish()
    }
}

impl JpegDecoder {
    /// Opens nvJPEG; `threads` decode what the engines do not.
    ///
    /// # Errors
    /// [`CudaError::NoLibrary`](crate::CudaError::NoLibrary) without nvJPEG; those of the driver.
    pub fn new(device: &Device, threads: usize, limits: Limits) -> Result<Self> {
        device.bind()?;
        let functions = functions::functions()?;
        let software = Owned::handle(functions, Backend::Default)?;
        let worker = || {
            let state = Owned::state(functions, &software)?;
            Ok(Mutex::new(Worker { state, stream: Stream::new(device)? }))
        };
        Ok(Self {
            functions,
            device: *device,
            limits,
            mark: device.kernel(Source::Jpeg, "mark", &[], 0)?,
            unwritten: device.kernel(Source::Jpeg, "unwritten", &[], 0)?,
            pixels: Buffer::new(device, 0)?,
            places: Buffer::new(device, 0)?,
            flags: Buffer::new(device, 0)?,
            // Not every card has engines, and not every container is given them.
            engines: Engines::open(functions).ok(),
            workers: (0..threads.max(1)).map(|_| worker()).collect::<Result<_>>()?,
            software,
        })
    }

    /// JPEG engines of the card that are used; 0 for none.
    pub fn engines(&self) -> usize {
        self.engines.as_ref().map_or(0, |engines| engines.count())
    }

    /// Where decoded images are.
    pub fn pixels(&self) -> &Buffer {
        &self.pixels
    }

    /// Decodes files, each to an image in [`JpegDecoder::pixels`] or to an error of its own. First waits for the stream, whose work may read the batch
    /// before; images are complete when this returns.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`](crate::CudaError::OutOfMemory) if the batch does not fit the card; those of the driver.
    pub fn decode(
        &mut self,
        stream: &Stream,
        files: &[&[u8]],
    ) -> Result<Vec<std::result::Result<Decoded, JpegError>>> {
        self.device.bind()?;
        let mut results = self.arrange(files);
        let jobs: Vec<Job> = results
            .iter()
            .enumerate()
            .filter_map(|(number, result)| {
                Some(Job { number, file: files[number], image: *result.as_ref().ok()? })
            })
            .collect();
        let bytes = jobs.last().map_or(0, |job| job.image.offset + job.image.width * job.image.height * 3);
        let count = jobs.len();
        let (by_engine, by_thread): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .partition(|job| self.engines.as_mut().is_some_and(|e| e.take(self.functions, job.file)));

        // Engines do not wait for work that was queued before, and memory may be given back.
        stream.synchronize()?;
        self.pixels.grow(bytes)?;
        self.places.grow(count * size_of::<Place>())?;
        self.flags.grow(count * size_of::<i32>())?;
        self.mark(stream, &by_engine)?;
        let retry = match &mut self.engines {
            Some(engines) if !by_engine.is_empty() => {
                match engines.decode(self.functions, stream, self.pixels.pointer(), &by_engine) {
                    SUCCESS => self.unwritten(stream, &by_engine)?,
                    // It does not say which image it is.
                    _ => {
                        stream.synchronize()?;
                        by_engine
                    }
                }
            }
            _ => Vec::new(),
        };
        let rest = [by_thread, retry].concat();
        self.mark(stream, &rest)?;
        for (job, error) in self.decode_single(&rest)? {
            results[job.number] = Err(error);
        }
        for job in self.unwritten(stream, &rest)? {
            results[job.number] = results[job.number].and(Err(JpegError::NotWritten));
        }
        Ok(results)
    }

    /// Reads the files' headers and gives each image its place.
    fn arrange(&self, files: &[&[u8]]) -> Vec<std::result::Result<Decoded, JpegError>> {
        let (mut offset, mut pixels) = (0, 0);
        let place = |file: &&[u8]| {
            let header = header::read(file)?;
            let Header { width, height, .. } = header;
            let (limit, wanted) = (self.limits.image_pixels, width * height);
            if wanted > limit {
                return Err(JpegError::TooLarge { width, height, limit });
            }
            if wanted > self.limits.batch_pixels - pixels {
                return Err(JpegError::BatchFull { limit: self.limits.batch_pixels });
            }
            self.check(file, header)?;
            pixels += wanted;
            let image = Decoded { offset, width, height };
            offset = (offset + wanted * 3).next_multiple_of(ALIGNMENT);
            Ok(image)
        };
        files.iter().map(place).collect()
    }

    /// Whether nvJPEG reads a file's header as this crate does.
    fn check(&self, file: &[u8], header: Header) -> std::result::Result<(), JpegError> {
        let (mut components, mut subsampling): (c_int, c_int) = (0, 0);
        let (mut widths, mut heights): ([c_int; 4], [c_int; 4]) = ([0; 4], [0; 4]);
        // SAFETY: the file's bytes, and four values each, as the library wants.
        #[allow(unsafe_code)]
        let status = unsafe {
            (self.functions.info)(
                self.software.raw(),
                file.as_ptr(),
                file.len(),
                &mut components,
                &mut subsampling,
                widths.as_mut_ptr(),
                heights.as_mut_ptr(),
            )
        };
        JpegError::of(status)?;
        let read = [widths[0], heights[0], components].map(|n| usize::try_from(n).unwrap_or(0));
        if read != [header.width, header.height, header.components] {
            return Err(JpegError::Unsupported { what: "a header that is read in two ways" });
        }
        if subsampling == SUBSAMPLING_UNKNOWN {
            return Err(JpegError::Unsupported { what: "unusual chroma subsampling" });
        }
        Ok(())
    }

    /// Fills what [`JpegDecoder::unwritten`] looks at, and waits for it.
    fn mark(&self, stream: &Stream, jobs: &[Job]) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let place = |job: &Job| Place {
            pixels: self.pixels.pointer() + job.image.offset as u64,
            width: job.image.width as i32,
            height: job.image.height as i32,
        };
        self.places.write(stream, 0, &jobs.iter().map(place).collect::<Vec<_>>())?;
        // SAFETY: the places are within the pixels, as `arrange` and `grow` made sure.
        #[allow(unsafe_code)]
        unsafe {
            stream.launch(
                &self.mark,
                Launch::blocks([jobs.len(), 1, 1], 256, 0),
                &[Arg::Pointer(self.places.pointer())],
            )?;
        }
        stream.synchronize()
    }

    /// Those of the jobs that were marked last whose pixels were not written. Waits for the stream.
    fn unwritten<'a>(&self, stream: &Stream, jobs: &[Job<'a>]) -> Result<Vec<Job<'a>>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut flags = vec![0i32; jobs.len()];
        // SAFETY: as in `mark`; there is a flag for each place.
        #[allow(unsafe_code)]
        unsafe {
            let args = [Arg::Pointer(self.places.pointer()), Arg::Pointer(self.flags.pointer())];
            stream.launch(&self.unwritten, Launch::blocks([jobs.len(), 1, 1], 256, 0), &args)?;
        }
        self.flags.read(stream, 0, &mut flags)?;
        Ok(jobs.iter().zip(flags).filter(|&(_, flag)| flag != 0).map(|(job, _)| *job).collect())
    }

    /// Decodes images one by one in the threads; returns those that failed.
    fn decode_single<'a>(&self, jobs: &[Job<'a>]) -> Result<Vec<(Job<'a>, JpegError)>> {
        let next = AtomicUsize::new(0);
        let work = |worker: &Mutex<Worker>| {
            let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
            self.device.bind()?;
            let mut failed = Vec::new();
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let status = worker.decode(self.functions, &self.software, self.pixels.pointer(), job)?;
                failed.extend(JpegError::of(status).err().map(|error| (*job, error)));
            }
            Ok(failed)
        };
        let workers = &self.workers[..self.workers.len().min(jobs.len())];
        std::thread::scope(|scope| {
            let threads: Vec<_> = workers.iter().map(|worker| scope.spawn(|| work(worker))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<_>>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok(threads.into_iter().map(join).collect::<Result<Vec<_>>>()?.concat())
        })
    }
}

impl Drop for JpegDecoder {
    fn drop(&mut self) {
        // nvJPEG gives its memory back to the thread's card.
        let _ = self.device.bind();
    }
}

impl Worker {
    /// Decodes an image and waits for it.
    fn decode(&mut self, functions: &Functions, handle: &Owned, pixels: u64, job: &Job) -> Result<Status> {
        let mut image = job.image.target(pixels);
        // SAFETY: the state is this worker's alone; the pixels are as long as nvJPEG itself read from the header.
        #[allow(unsafe_code)]
        let status = unsafe {
            (functions.decode)(
                handle.raw(),
                self.state.raw(),
                job.file.as_ptr(),
                job.file.len(),
                OUTPUT_RGBI,
                &mut image,
                self.stream.raw().cast(),
            )
        };
        self.stream.synchronize()?;
        Ok(status)
    }
}

impl Decoded {
    fn target(&self, pixels: u64) -> Image {
        Image::interleaved(pixels + self.offset as u64, self.width * 3)
    }
}

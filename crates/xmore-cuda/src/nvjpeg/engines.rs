//! Batches by the card's JPEG engines.

use std::ffi::c_int;

use super::Job;
use super::functions::{self, Backend, Functions, Image, OUTPUT_RGBI, Owned, SUCCESS, Status};
use crate::error::{CudaError, Result};
use crate::stream::Stream;

/// Threads of the processor for a batch: there is nothing for more of them to do.
const THREADS: c_int = 1;

/// The card's JPEG engines.
pub(super) struct Engines {
    // Before the handle that it is of: fields are dropped in this order.
    state: Owned,
    /// Files whose header is looked at.
    file: Owned,
    handle: Owned,
    count: usize,
    /// Images that the state is set up for; 0 to set it up anew.
    batch: usize,
}

impl Engines {
    /// Those of the card.
    pub(super) fn open(functions: &'static Functions) -> Result<Self> {
        let handle = Owned::handle(functions, Backend::Hardware)?;
        let (mut count, mut cores) = (0, 0);
        // SAFETY: the handle is valid.
        #[allow(unsafe_code)]
        let status = unsafe { (functions.engines)(handle.raw(), &mut count, &mut cores) };
        if status != SUCCESS || count == 0 {
            return Err(CudaError::call("nvjpegGetHardwareDecoderInfo", functions::status_name(status)));
        }
        let (state, file) = (Owned::state(functions, &handle)?, Owned::file(functions, &handle)?);
        Ok(Self { state, file, handle, count: count as usize, batch: 0 })
    }

    /// Engines of the card.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether they decode such a file.
    pub(super) fn take(&mut self, functions: &Functions, file: &[u8]) -> bool {
        let mut not_supported: c_int = -1;
        // SAFETY: handles are valid, the file's bytes live through both calls.
        #[allow(unsafe_code)]
        unsafe {
            let parsed =
                (functions.file_parse)(self.handle.raw(), file.as_ptr(), file.len(), self.file.raw());
            parsed == SUCCESS
                && (functions.supported)(self.handle.raw(), self.file.raw(), &mut not_supported) == SUCCESS
                && not_supported == 0
        }
    }

    /// Queues a batch. Engines do not wait for the stream's earlier work: none may be there that uses the pixels.
    pub(super) fn decode(
        &mut self,
        functions: &Functions,
        stream: &Stream,
        pixels: u64,
        jobs: &[Job],
    ) -> Status {
        let files: Vec<*const u8> = jobs.iter().map(|job| job.file.as_ptr()).collect();
        let lengths: Vec<usize> = jobs.iter().map(|job| job.file.len()).collect();
        let mut images: Vec<Image> = jobs.iter().map(|job| job.image.target(pixels)).collect();
        // SAFETY: as many files, lengths and images as the state is set up for; the pixels are as long as nvJPEG itself read from the headers.
        #[allow(unsafe_code)]
        unsafe {
            if self.batch != jobs.len() {
                let size = c_int::try_from(jobs.len()).unwrap_or(c_int::MAX);
                self.batch = 0;
                let (handle, state) = (self.handle.raw(), self.state.raw());
                let status = (functions.initialize)(handle, state, size, THREADS, OUTPUT_RGBI);
                if status != SUCCESS {
                    return status;
                }
                self.batch = jobs.len();
            }
            let status = (functions.decode_batch)(
                self.handle.raw(),
                self.state.raw(),
                files.as_ptr(),
                lengths.as_ptr(),
                images.as_mut_ptr(),
                stream.raw().cast(),
            );
            if status != SUCCESS {
                self.batch = 0;
            }
            status
        }
    }
}

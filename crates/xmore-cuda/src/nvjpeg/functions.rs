//! The functions of nvJPEG that are used, from its library, and what they take.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use libloading::Library;

use crate::error::{CudaError, Result};
use crate::libraries::open;

/// A handle, a state or a parsed file; nvJPEG's own.
pub(super) type Opaque = *mut c_void;
/// `nvjpegStatus_t`.
pub(super) type Status = c_int;

/// `NVJPEG_STATUS_SUCCESS`.
pub(super) const SUCCESS: Status = 0;
/// `NVJPEG_OUTPUT_RGBI`: interleaved.
pub(super) const OUTPUT_RGBI: c_int = 5;
/// `NVJPEG_CSS_UNKNOWN`.
pub(super) const SUBSAMPLING_UNKNOWN: c_int = -1;
/// `NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION`, since 12.1: chroma as libjpeg has it by default.
const FLAG_INTERPOLATION: c_uint = 1 << 5;

/// Which of nvJPEG's implementations decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// Processor and card, shared as nvJPEG thinks best for each image.
    Default = 0,
    /// The card's JPEG engines: baseline files of one scan.
    Hardware = 3,
}

/// `nvjpegImage_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Image {
    channel: [*mut u8; 4],
    pitch: [usize; 4],
}

impl Image {
    /// Interleaved pixels on the card, rows of `pitch` bytes.
    pub(super) fn interleaved(pointer: u64, pitch: usize) -> Self {
        let first = pointer as *mut u8;
        Self { channel: [first, null_mut(), null_mut(), null_mut()], pitch: [pitch, 0, 0, 0] }
    }
}

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        /// The functions, which stay loaded until the process ends.
        pub(super) struct Functions {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> Status,)*
        }

        impl Functions {
            fn load(library: &Library) -> Result<Self> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the type is that of the header of nvJPEG 12 and 13.
                        #[allow(unsafe_code)]
                        let function = unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> Status>($symbol) };
                        *function.map_err(|error| CudaError::call("libnvjpeg", error.to_string()))?
                    },)*
                })
            }
        }
    };
}

functions! {
    create = "nvjpegCreateEx" (c_int, *mut c_void, *mut c_void, c_uint, *mut Opaque);
    destroy = "nvjpegDestroy" (Opaque);
    engines = "nvjpegGetHardwareDecoderInfo" (Opaque, *mut c_uint, *mut c_uint);
    state_create = "nvjpegJpegStateCreate" (Opaque, *mut Opaque);
    state_destroy = "nvjpegJpegStateDestroy" (Opaque);
    file_create = "nvjpegJpegStreamCreate" (Opaque, *mut Opaque);
    file_destroy = "nvjpegJpegStreamDestroy" (Opaque);
    file_parse = "nvjpegJpegStreamParseHeader" (Opaque, *const u8, usize, Opaque);
    supported = "nvjpegDecodeBatchedSupported" (Opaque, Opaque, *mut c_int);
    info = "nvjpegGetImageInfo" (Opaque, *const u8, usize, *mut c_int, *mut c_int, *mut c_int, *mut c_int);
    initialize = "nvjpegDecodeBatchedInitialize" (Opaque, Opaque, c_int, c_int, c_int);
    decode_batch = "nvjpegDecodeBatched" (Opaque, Opaque, *const *const u8, *const usize, *mut Image, *mut c_void);
    decode = "nvjpegDecode" (Opaque, Opaque, *const u8, usize, c_int, *mut Image, *mut c_void);
}

/// Opens the library, once.
pub(super) fn functions() -> Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Result<Functions>> = OnceLock::new();
    let load = || {
        let library = open("libnvjpeg")?;
        let functions = Functions::load(&library)?;
        std::mem::forget(library);
        Ok(functions)
    };
    FUNCTIONS.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// The name of a status that is not success.
pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        1 => "not initialized",
        2 => "invalid parameter",
        3 => "bad JPEG",
        4 => "JPEG not supported",
        5 => "allocator failure",
        6 => "execution failed",
        7 => "no such hardware",
        8 => "internal error",
        9 => "implementation not supported",
        10 => "incomplete bitstream",
        _ => "unknown status",
    }
}

/// A handle of the library, with a state: what one thread decodes with.
pub(super) struct Owned {
    raw: NonNull<c_void>,
    destroy: unsafe extern "C" fn(Opaque) -> Status,
}

// SAFETY: nvJPEG's handles may be used from any thread; states and parsed files, from one at a time, which `&mut` of their owners makes sure.
#[allow(unsafe_code)]
unsafe impl Send for Owned {}
// SAFETY: as above; only handles are used through shared references.
#[allow(unsafe_code)]
unsafe impl Sync for Owned {}

impl Owned {
    /// What `create` makes.
    fn new(
        call: &'static str,
        destroy: unsafe extern "C" fn(Opaque) -> Status,
        create: impl FnOnce(*mut Opaque) -> Status,
    ) -> Result<Self> {
        let mut raw = null_mut();
        let status = create(&mut raw);
        match NonNull::new(raw) {
            Some(raw) if status == SUCCESS => Ok(Self { raw, destroy }),
            _ => Err(CudaError::call(call, status_name(status))),
        }
    }

    /// A library handle, with interpolated chroma where nvJPEG has it.
    pub(super) fn handle(functions: &Functions, backend: Backend) -> Result<Self> {
        let with = |flags: c_uint| {
            Self::new("nvjpegCreateEx", functions.destroy, |raw| {
                // SAFETY: no allocators; the result is checked.
                #[allow(unsafe_code)]
                unsafe {
                    (functions.create)(backend as c_int, null_mut(), null_mut(), flags, raw)
                }
            })
        };
        with(FLAG_INTERPOLATION).or_else(|_| with(0))
    }

    /// A state for one thread's images.
    pub(super) fn state(functions: &Functions, handle: &Self) -> Result<Self> {
        Self::new("nvjpegJpegStateCreate", functions.state_destroy, |raw| {
            // SAFETY: the handle is valid; the result is checked.
            #[allow(unsafe_code)]
            unsafe {
                (functions.state_create)(handle.raw(), raw)
            }
        })
    }

    /// Memory for a parsed file.
    pub(super) fn file(functions: &Functions, handle: &Self) -> Result<Self> {
        Self::new("nvjpegJpegStreamCreate", functions.file_destroy, |raw| {
            // SAFETY: the handle is valid; the result is checked.
            #[allow(unsafe_code)]
            unsafe {
                (functions.file_create)(handle.raw(), raw)
            }
        })
    }

    pub(super) fn raw(&self) -> Opaque {
        self.raw.as_ptr()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once; owners drop states before the handle.
        #[allow(unsafe_code)]
        let _ = unsafe { (self.destroy)(self.raw()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs the library (pip: `nvidia-nvjpeg`), not a card.
    #[test]
    fn the_library_has_every_function() {
        match functions() {
            Ok(_) => {}
            Err(CudaError::NoLibrary { library, .. }) => println!("SKIPPED: {library} is not installed"),
            Err(error) => panic!("{error}"),
        }
    }
}

//! What can go wrong between a program and a card.

use std::path::PathBuf;

use cudarc::driver::sys::CUresult;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CudaError>;

/// An error of a card, its driver or its libraries.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CudaError {
    /// The driver's library is not there: no NVIDIA driver is installed.
    #[error("no NVIDIA driver: libcuda.so.1 is not found")]
    NoDriver,
    /// The driver found fewer cards than were asked for.
    #[error("no GPU {wanted}: the NVIDIA driver shows {found}")]
    NoDevice {
        /// Number of the card, from 0.
        wanted: usize,
        /// Cards that the driver shows.
        found: usize,
    },
    /// A library of the CUDA toolkit is not there.
    #[error("{library} is not found in {}", list(.searched))]
    NoLibrary {
        /// Its file name without the version.
        library: &'static str,
        /// Folders that were searched, beside the system's own.
        searched: Vec<PathBuf>,
    },
    /// The card has not as much memory free.
    #[error("the GPU has {} memory free", amount(*.wanted))]
    OutOfMemory {
        /// Bytes that were asked for; 0 where the driver does not tell.
        wanted: usize,
    },
    /// A kernel of this crate does not compile: a fault of this crate, or a compiler that it does not know.
    #[error("kernel source {source_name} does not compile for {target}: {log}")]
    Compile {
        /// Name of the source.
        source_name: &'static str,
        /// The architecture it was compiled for.
        target: String,
        /// What the compiler says.
        log: String,
    },
    /// cuBLASLt has no algorithm for a product, or failed.
    #[error("cuBLASLt: {status} in a product of {m} x {k} with {k} x {n}")]
    Product {
        /// cuBLAS' name of the status.
        status: String,
        /// Rows of the result.
        m: usize,
        /// Columns of the result.
        n: usize,
        /// Length of the sums.
        k: usize,
    },
    /// A call of the driver or of a library failed.
    #[error("{call}: {message}")]
    Call {
        /// The function.
        call: &'static str,
        /// What it says.
        message: String,
    },
}

impl CudaError {
    /// Whether less work at a time may help.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }

    pub(crate) fn call(call: &'static str, message: impl Into<String>) -> Self {
        Self::Call { call, message: message.into() }
    }
}

fn amount(wanted: usize) -> String {
    if wanted == 0 { "not enough".to_owned() } else { format!("no {wanted} bytes of") }
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if folders.is_empty() { "the system's folders".to_owned() } else { folders.join(", ") }
}

/// The error of a driver call.
pub(crate) fn driver(call: &'static str) -> impl Fn(cudarc::driver::DriverError) -> CudaError {
    move |error| match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory { wanted: 0 },
        _ => {
            let text = error.error_string().ok().and_then(|text| text.to_str().ok().map(str::to_owned));
            CudaError::call(call, text.unwrap_or_else(|| format!("{:?}", error.0)))
        }
    }
}

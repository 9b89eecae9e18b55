//! NVIDIA GPUs from a binary that was built without CUDA.
//!
//! The driver, NVRTC and cuBLASLt are opened when a [`Device`] is, nvJPEG when a [`JpegDecoder`] is: from the system's CUDA 12 or 13, or from pip's `nvidia-*` packages. A machine
//! without them gets an error that says what is missing; nothing is looked for before. Kernels ([`kernels`]) are CUDA C++ in this crate,
//! compiled for the card at hand. Memory is given back when its [`Buffer`] is dropped; everything else that a card keeps (its context, compiled
//! kernels, chosen algorithms) lives as long as the process.
//!
//! Launching a kernel is `unsafe`: its pointers and sizes are the caller's promise. The crates that own a kernel's arguments wrap it.

mod buffer;
mod compile;
mod device;
mod error;
mod graph;
pub mod kernels;
mod libraries;
mod nvjpeg;
mod products;
mod resize;
mod stream;
mod tensor_map;

pub use buffer::{Buffer, PinnedBuffer};
pub use compile::compile;
pub use device::{Device, DeviceInfo, devices};
pub use error::{CudaError, Result};
pub use graph::Graph;
pub use kernels::{Element, Kernel, Source};
pub use nvjpeg::{Decoded, JpegDecoder, JpegError, Limits};
pub use products::{Add, Format, Operand, Product, Scales};
pub use resize::{Pixels, ResizeImage, Resizer, Taps};
pub use stream::{Arg, Event, Launch, Stream, TensorMapBytes};
pub use tensor_map::BOX_COLUMNS;

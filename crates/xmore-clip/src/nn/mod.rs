//! The layers that every tower is made of, each in one place. Activations are row-major f32 slices; shapes are in the docs.
//!
//! Below the layers, [`precision`] has the number formats of linear layers and [`simd`] the choice of an instruction set.

pub(crate) mod activation;
mod aligned_buffer;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub(crate) mod attention;
mod bf16;
pub(crate) mod conv;
mod float32;
pub(crate) mod gemm;
mod int8;
pub(crate) mod linear;
pub(crate) mod norm;
mod operand;
mod packed_weight;
pub(crate) mod pool;
pub(crate) mod pool_threads;
pub(crate) mod precision;
pub(crate) mod rotary;
pub(crate) mod simd;
pub(crate) mod speed;
pub(crate) mod thread_buffers;
mod weight_memory;

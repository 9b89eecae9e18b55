//! The layers that every tower is made of, each in one place. Activations are row-major f32 slices; shapes are in the docs.
//!
//! Below the layers, [`precision`] has the number formats of linear layers and [`simd`] the choice of an instruction set.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
mod float32;
pub(crate) mod gemm;
mod int8;
pub(crate) mod linear;
pub(crate) mod norm;
mod packed_weight;
pub(crate) mod pool;
pub(crate) mod pool_threads;
pub(crate) mod precision;
pub(crate) mod rotary;
mod simd;
pub(crate) mod thread_buffers;

//! The layers that every tower is made of, each in one place. Activations are row-major f32 slices; shapes are in the docs.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod gemm;
pub(crate) mod int8;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pool;
pub(crate) mod pool_threads;
pub(crate) mod scratch;

//! npy files of float16 matrices: written row by row, read as a memory map. The tests read our files with the `npyz` crate as an
//! independent reader.

mod header;
mod matrix;
mod writer;

pub(crate) use header::{MAX_DICT_BYTES, parse_header};
pub(crate) use matrix::NpyMatrix;
pub(crate) use writer::NpyWriter;

//! Image files: which formats there are.

mod formats;

pub use formats::{HEAD_BYTES, IMAGE_FORMATS, ImageFormat};

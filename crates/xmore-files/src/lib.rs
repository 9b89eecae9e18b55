//! Files given by users: folders are walked, regular files opened, text and pictures decoded within limits, and outputs written.
//!
//! Every other crate goes through this one, so that the same file is treated the same way by each command, the server and the library.

pub mod image;
mod regular;
pub mod text;

pub use regular::{FileKind, NotRegular, TooLarge, open_input, open_regular, read_bounded, read_input};

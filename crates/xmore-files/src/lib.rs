//! Files given by users: folders are walked, regular files opened, text and pictures decoded within limits, and outputs written.
//!
//! Every other crate goes through this one, so that the same file is treated the same way by each command, the server and the library.

pub mod image;
mod regular;
pub mod text;
mod walk;

pub use regular::{FileKind, NotRegular, TooLarge, open_input, open_regular, read_bounded, read_input};
pub use walk::{
    Exclude, LeftOut, LeftOutCount, MAX_DEPTH, Reason, WalkOptions, Walked, has_images, walk_extension,
    walk_images,
};

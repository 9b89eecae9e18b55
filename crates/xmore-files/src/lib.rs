//! Files given by users: folders are walked, regular files opened, text and pictures decoded within limits, and outputs written.
//!
//! Every other crate goes through this one, so that the same file is treated the same way by each command, the server and the library.

pub mod cache_file;
mod escape;
mod hex;
mod home;
pub mod image;
pub mod json;
mod lock;
mod names;
mod output;
mod regular;
mod replace;
pub mod table;
pub mod text;
mod walk;

pub use escape::{escape_for_terminal, escape_json, escape_lines, escape_path, is_active};
pub use hex::hex;
pub use home::cache_home;
pub use lock::lock_file;
pub use names::{
    is_plain_name, name_from_text, name_to_text, name_to_uri, path_from_bytes, path_from_text, path_to_text,
};
pub use output::{Output, is_standard_output, remove_unfinished_outputs, write_output};
pub use regular::{FileKind, NotRegular, TooLarge, open_input, open_regular, read_bounded, read_input};
pub use replace::replace_file;
pub use walk::{
    Exclude, LeftOut, LeftOutCount, MAX_DEPTH, Reason, WalkOptions, Walked, has_images, walk_extension,
    walk_images,
};

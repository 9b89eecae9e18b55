//! What fetching is made of: the cache folder, tools that the user already has, copies that are hashed, and progress.
//!
//! What arrives is not trusted: archives are read as streams, only named members are written, under names of our
//! own, with size limits; sizes and SHA-256 are compared with constants where the exact file is known. Every file
//! appears under its final name only when it is whole, so an interrupted run, or two runs at once, are safe.

pub mod cache;
pub(crate) mod digest;
mod error;
pub mod run;

pub use digest::{CopyError, copy_hashed};
pub use error::{FetchError, ManualDownload};
pub use run::end_tools;

/// Result of anything in this module.
pub type Result<T> = std::result::Result<T, FetchError>;

/// The progress of a fetch. A step that fails sends no `Done`; the error follows instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchEvent<'a> {
    /// A step began.
    Started {
        /// Name of the step, for people: the file being fetched or written.
        what: &'a str,
        /// Size of the whole step in bytes, where it is known beforehand.
        total: Option<u64>,
    },
    /// The step `what` has come this far.
    Bytes {
        /// Name of the step, as in `Started`.
        what: &'a str,
        /// Bytes so far; never more than `total`, and may not change while a tool is busy.
        done: u64,
    },
    /// The step `what` ended well.
    Done {
        /// Name of the step, as in `Started`.
        what: &'a str,
    },
    /// Something the user should know; no step by itself.
    Note {
        /// One sentence, for people.
        message: &'a str,
    },
}

/// Receiver of [`FetchEvent`]s; called on the fetching thread, so it should return quickly.
pub type Progress<'a> = &'a dyn Fn(FetchEvent<'_>);

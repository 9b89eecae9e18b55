//! Why an image is not decoded.

use std::io;

use thiserror::Error;

use crate::Reason;

/// Errors of reading and decoding one image. The file's name is for the caller to add.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be opened or read.
    #[error("cannot read the image: {0}")]
    Io(#[from] io::Error),
    /// The encoded file is larger than is read.
    #[error("cannot decode the image: the file is larger than {} MiB", limit >> 20)]
    FileTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// Neither content nor name are those of a format in the table.
    #[error("cannot decode the image: it is in none of the known formats ({known})")]
    UnknownFormat {
        /// The formats that are read.
        known: String,
    },
    /// The format is known, but there is no decoder for it.
    #[error("cannot decode the image: {format} is not read yet")]
    NotRead {
        /// Its name.
        format: &'static str,
    },
    /// It has, or claims, more pixels than the caller allows.
    #[error("{width}x{height} pixels, at most {limit} are decoded")]
    TooManyPixels {
        /// In pixels.
        width: u64,
        /// In pixels.
        height: u64,
        /// Pixels that are read.
        limit: u64,
    },
    /// One of its sides is longer than is read.
    #[error("{width}x{height} pixels, at most {limit} along a side are decoded")]
    SideTooLong {
        /// In pixels.
        width: u64,
        /// In pixels.
        height: u64,
        /// Longest side that is read, in pixels.
        limit: u32,
    },
    /// Decoding takes more memory than all decodes together may have.
    #[error("{width}x{height} pixels take {} MiB to decode, at most {} MiB may be taken", needed.div_ceil(1 << 20), budget >> 20)]
    TooMuchMemory {
        /// In pixels.
        width: u64,
        /// In pixels.
        height: u64,
        /// In bytes.
        needed: u64,
        /// In bytes.
        budget: u64,
    },
    /// It is damaged, or uses something of its format that is not supported.
    #[error("cannot decode the image: {format}: {message}")]
    Broken {
        /// Its name.
        format: &'static str,
        /// What the decoder says.
        message: String,
    },
}

impl ImageError {
    /// What the image counts as where images are left out.
    pub fn left_out_reason(&self) -> Reason {
        match self {
            Self::Io(error) => Reason::of_io(error),
            Self::NotRead { format } => Reason::FormatNotRead { format: (*format).to_owned() },
            Self::FileTooLarge { .. }
            | Self::TooManyPixels { .. }
            | Self::SideTooLong { .. }
            | Self::TooMuchMemory { .. } => Reason::TooLarge,
            Self::UnknownFormat { .. } | Self::Broken { .. } => Reason::Unreadable,
        }
    }
}

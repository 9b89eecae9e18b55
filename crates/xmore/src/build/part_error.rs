//! What can be wrong with the parts of a divided build.

use std::path::PathBuf;

use thiserror::Error;

use super::part::Part;

/// A part of a divided build that cannot be built, or parts that cannot be merged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PartError {
    /// Embeddings are not divided.
    #[error("{} holds embeddings, and a build of these is not divided", path.display())]
    Embeddings {
        /// The folder of embeddings.
        path: PathBuf,
    },
    /// A folder holds another part than the one that is to be built there.
    #[error("{} holds part {there} of a build{}, and part {asked} was to be built there", dir.display(), differing(*differs))]
    OtherPart {
        /// The folder.
        dir: PathBuf,
        /// The part that it holds.
        there: Part,
        /// The part that is to be built.
        asked: Part,
        /// What differs, if it is a part of another build.
        differs: Option<&'static str>,
    },
    /// A build, or something that adds to a memory, was asked for where a part of a divided build is.
    #[error("{} holds part {part} of a divided build, to which nothing is added", dir.display())]
    IsAPart {
        /// The folder.
        dir: PathBuf,
        /// The part.
        part: Part,
    },
    /// A folder that is to be merged is no part of a divided build.
    #[error("{} holds no part of a divided build", dir.display())]
    NotAPart {
        /// The folder.
        dir: PathBuf,
    },
    /// A part is not finished.
    #[error("part {part} in {} is not finished", dir.display())]
    Unfinished {
        /// Its folder.
        dir: PathBuf,
        /// The part.
        part: Part,
    },
    /// A part was changed after it was finished.
    #[error("the memory of part {part} in {} has changed since the part was finished", dir.display())]
    Changed {
        /// Its folder.
        dir: PathBuf,
        /// The part.
        part: Part,
    },
    /// A part was given twice.
    #[error("part {part} is given twice: {} and {}", first.display(), second.display())]
    Twice {
        /// The part.
        part: Part,
        /// One of the folders.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Parts were not given.
    #[error("{count} of {of} parts are missing: {}{}", listed(first), if first.len() < *count { ", …" } else { "" })]
    Missing {
        /// How many.
        count: usize,
        /// Of how many.
        of: u32,
        /// The numbers of the first of them.
        first: Vec<u32>,
    },
    /// Two parts are not of the same build.
    #[error("{} and {} are parts of different builds: they differ in {what}", first.display(), second.display())]
    OtherBuild {
        /// The folder of one of them.
        first: PathBuf,
        /// The folder of the other.
        second: PathBuf,
        /// What they differ in.
        what: &'static str,
    },
    /// No part has a pair, so there is nothing to merge.
    #[error("none of the {of} parts has a pair")]
    NoPairs {
        /// How many parts there are.
        of: u32,
    },
}

fn differing(differs: Option<&'static str>) -> String {
    differs.map_or(String::new(), |what| format!(" that differs in {what}"))
}

fn listed(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

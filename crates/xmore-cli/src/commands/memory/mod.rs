//! `xmore memory`: building, growing, merging, checking, searching and uploading memories.

mod build;
mod check;
mod duplicates;
mod embed;
mod info;
mod interrupted;
mod merge;
mod search;
mod skipped;
mod upload;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::flags::effect::Given;

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    #[command(subcommand)]
    command: MemoryCommand,
}

#[derive(Debug, Subcommand)]
enum MemoryCommand {
    /// Encode image-caption pairs into a new memory
    ///
    /// A SOURCE is a folder of images with captions beside them (.txt, or img2dataset's .json); a .csv, .tsv or .parquet with an image
    /// column (image_path, or image bytes in parquet) and a caption column; webdataset tars; COCO captions (.json); or a folder of
    /// embeddings by clip-retrieval's inference or LAION's, which needs no images. Braces and globs are expanded if your shell did not:
    /// '{00000..00010}.tar'.
    ///
    /// The same command adds what is missing: stopped or killed at any moment it goes on where it stopped, it takes pairs that have come
    /// to the sources since, and it tries again what could not be read. Two pairs are the same if the image's path (links of folders
    /// resolved) and the caption are; each is taken once. Pairs that have gone from the sources stay in the memory until it is built with
    /// --overwrite.
    ///
    /// Exit status: 0 if done, 3 if no pair came or more failed than --max-skipped allows (what could be read is in the memory
    /// then, but a memory is not replaced), 1 for an error, 2 for wrong flags.
    Build(build::BuildArgs),
    /// Merge the parts of a divided build into the memory that one build would have made
    ///
    /// N workers run `xmore memory build … --part 1/N` to `N/N`, each with the same sources (at the same paths), model and flags and a folder of
    /// its own. The merged memory has the bytes of a build by one worker, whatever N is and however often workers were killed and started again.
    /// It is put in place when it is complete; stopped or killed at any moment, the same command goes on. The parts stay as they are.
    ///
    /// Exit status: 0 if done, 1 for an error, such as a part that is missing, not finished or of another build.
    Merge(merge::MergeArgs),
    /// Add the pairs of sources that a memory does not have; what is there is not rewritten
    ///
    /// Pairs, what could not be read and the exit status are treated as by `build`.
    Append(build::AppendArgs),
    /// Add embeddings of a memory's images and captions by another model
    ///
    /// Retrieval can then use one model to search (--search-model), another to choose captions (--rerank-model) and a third to classify
    /// (--model). Also brings such embeddings up to date when the memory has grown, and tries again images that could not be read. Exit
    /// status 3: none or too few could be read, see --max-skipped.
    Embed(embed::EmbedColumnArgs),
    /// Show what a memory holds
    Info(info::InfoArgs),
    /// Find the pairs nearest to a photo or a text
    Search(search::SearchArgs),
    /// Check every byte of a memory against its checksums
    Verify(check::VerifyArgs),
    /// Mend a memory: make damaged files again from sound ones, set aside the pairs of which that cannot be done
    ///
    /// All is read and planned first, what is new is written beside the memory and put in place at the end: stopped or killed at any moment,
    /// or with a full disk, the memory is as before or as repaired, and the same command goes on. What is taken out stays in the memory's
    /// folder .xmore-set-aside under its own names.
    Repair(check::RepairArgs),
    /// Report what a memory holds more than once
    Duplicates(duplicates::DuplicatesArgs),
    /// Copy a memory to a Milvus or PostgreSQL server, or go on with it
    Upload(upload::UploadArgs),
}

impl MemoryArgs {
    /// That no flag is given that would have no effect.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        match &self.command {
            MemoryCommand::Build(args) => args.check(given),
            MemoryCommand::Append(args) => args.check(given),
            MemoryCommand::Embed(args) => args.check(given),
            MemoryCommand::Info(args) => args.check(given),
            MemoryCommand::Search(args) => args.check(given),
            MemoryCommand::Merge(_)
            | MemoryCommand::Verify(_)
            | MemoryCommand::Repair(_)
            | MemoryCommand::Duplicates(_)
            | MemoryCommand::Upload(_) => Ok(()),
        }
    }
}

pub(crate) fn run(args: &MemoryArgs) -> Result<()> {
    match &args.command {
        MemoryCommand::Build(args) => build::build(args),
        MemoryCommand::Append(args) => build::append(args),
        MemoryCommand::Merge(args) => merge::run(args),
        MemoryCommand::Embed(args) => embed::run(args),
        MemoryCommand::Info(args) => info::run(args),
        MemoryCommand::Search(args) => search::run(args),
        MemoryCommand::Verify(args) => check::verify(args),
        MemoryCommand::Repair(args) => check::repair(args),
        MemoryCommand::Duplicates(args) => duplicates::run(args),
        MemoryCommand::Upload(args) => upload::run(args),
    }
}

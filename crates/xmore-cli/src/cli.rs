//! The command tree: the top-level parser and a variant for each command.

use std::num::NonZeroUsize;

use clap::{Parser, Subcommand};

use crate::commands::classify::ClassifyArgs;
use crate::commands::demo::DemoArgs;
use crate::commands::embed::EmbedArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::memory::MemoryArgs;
use crate::commands::model::ModelArgs;
use crate::commands::serve::ServeArgs;
use crate::commands::{classify, demo, embed, eval, memory, model, serve};
use crate::error::Result;
use crate::flags::effect::Given;
use crate::flags::values::size;
use crate::threads;

/// Zero-shot image classification that looks things up (X-MoRe, arXiv 2308.15273).
///
/// Photos and a list of labels in plain words go in; with a memory of image-caption pairs, captions retrieved for each photo help to
/// choose the label.
#[derive(Debug, Parser)]
#[command(name = "xmore", version, max_term_width = 100)]
#[command(
    after_help = "Start with `xmore demo`. Models and downloads live in XMORE_HOME, else in the platform's cache folder."
)]
pub(crate) struct Cli {
    /// Threads to compute with, at most four for each core [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = threads::parse, env = "XMORE_THREADS")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Memory that all images being decoded may take together, such as 512MiB or 4GiB
    ///
    /// An image that does not fit beside those being decoded waits, one that needs more is refused. The default is half of the machine's memory,
    /// but between 256MiB and 2GiB.
    #[arg(long, global = true, value_name = "SIZE", value_parser = size, env = "XMORE_DECODE_MEMORY")]
    pub(crate) decode_memory: Option<u64>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // Its documentation is `DemoArgs`'.
    Demo(DemoArgs),
    /// Name what is in photos, choosing between labels
    Classify(Box<ClassifyArgs>),
    // Its documentation is `EvalArgs`'.
    Eval(Box<EvalArgs>),
    /// Build, inspect and search memories of image-caption pairs
    Memory(MemoryArgs),
    /// Write embeddings of photos or texts as a .npy file
    Embed(EmbedArgs),
    // Its documentation is `ServeArgs`'.
    Serve(Box<ServeArgs>),
    /// Fetch and inspect models
    Model(ModelArgs),
}

impl Command {
    /// Runs the command to its end.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Demo(args) => demo::run(args),
            Self::Classify(args) => classify::run(args),
            Self::Embed(args) => embed::run(args),
            Self::Eval(args) => eval::run(args),
            Self::Memory(args) => memory::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Model(args) => model::run(args),
        }
    }

    /// That no flag is given that would have no effect.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        match self {
            // Every flag of these has an effect whatever the others are, or says itself that it has none.
            Self::Demo(_) => Ok(()),
            Self::Classify(args) => args.check(given),
            Self::Embed(args) => args.check(given),
            Self::Eval(args) => args.check(given),
            Self::Memory(args) => args.check(given),
            Self::Serve(args) => args.check(given),
            Self::Model(args) => args.check(given),
        }
    }

    /// Whether the command handles SIGINT, SIGTERM and SIGHUP itself.
    pub(crate) fn handles_signals(&self) -> bool {
        matches!(self, Self::Serve(_))
    }
}

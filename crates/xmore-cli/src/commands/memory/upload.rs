//! `xmore memory upload`: a memory into a remote index that takes one.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use xmore_memory::Memory;
use xmore_memory::retriever::{IndexKind, Location};

use crate::error::{CliError, Result};
use crate::flags::remote::RemoteArgs;
use crate::flags::skips::SkipArgs;
use crate::interrupt;
use crate::messages::tell;
use crate::output::print;
use crate::progress::DeferredBar;

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// The memory
    #[arg(value_name = "DIR")]
    memory: PathBuf,
    #[arg(value_name = "URL", help = upload_help())]
    to: Location,
    /// How a new collection is indexed
    #[arg(long, value_enum, default_value_t)]
    index: IndexArg,
    #[command(flatten)]
    skips: SkipArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum IndexArg {
    /// Every row is compared: exact
    #[default]
    Flat,
    /// The server's choice: approximate, for very many rows
    Auto,
}

fn upload_help() -> String {
    format!("Where to: {}; what is not there is made", Location::upload_forms())
}

pub(super) fn run(args: &UploadArgs) -> Result<()> {
    let memory = Memory::open(&args.memory)?;
    let index = match args.index {
        IndexArg::Flat => IndexKind::Flat,
        IndexArg::Auto => IndexKind::Auto,
    };
    let start = Instant::now();
    let upload = args.to.create(&memory, index, &args.remote.options())?;
    let _orderly = interrupt::orderly();
    let mut bar = DeferredBar::new("pairs");
    let report = upload.run(&memory, |at| {
        bar.show(at.done, at.total);
        !interrupt::requested()
    });
    drop(bar);
    let report = report?;
    if !report.complete {
        return Err(CliError::Interrupted(format!("stopped; the same command goes on with {}", args.to)));
    }
    if report.skipped > 0 {
        tell!("{} pairs were left out: their embeddings are not finite", report.skipped);
    }
    if report.changed > 0 {
        tell!(
            "{} texts were changed: they were longer than the server takes, or had a zero character",
            report.changed
        );
    }
    tell!(
        "{} pairs, {} of them uploaded before, in {:.1} s",
        report.total,
        report.present,
        start.elapsed().as_secs_f64()
    );
    print(&args.to.to_string())?;
    args.skips.check(report.skipped, memory.len(), "pairs")
}

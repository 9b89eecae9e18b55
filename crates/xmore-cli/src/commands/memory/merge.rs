//! `xmore memory merge`: the parts of a divided build into one memory.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use xmore::merge_memories;

use super::interrupted::or_interrupted;
use crate::error::Result;
use crate::flags::checkpoints::CheckpointArgs;
use crate::interrupt;
use crate::messages::counted;
use crate::messages::tell;
use crate::output::print;
use crate::progress::DeferredBar;

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folders of all parts, in any order
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
    /// Folder of the new memory
    #[arg(short, long, value_name = "DIR", visible_alias = "out")]
    output: PathBuf,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
}

pub(super) fn run(args: &MergeArgs) -> Result<()> {
    let _orderly = interrupt::orderly();
    let start = Instant::now();
    let mut bar = DeferredBar::new("pairs");
    let report = merge_memories(&args.parts, &args.output, args.checkpoints.every(), &mut |at| {
        bar.show(at.done, at.total);
        !interrupt::requested()
    });
    drop(bar);
    let report = or_interrupted(report, &args.output)?;
    let pairs = counted(report.manifest.pairs, "pair");
    if report.was_complete {
        tell!("nothing to do: the memory of these parts is there, with {pairs}");
    } else {
        if report.resumed > 0 {
            tell!("resumed after {} of an interrupted run", counted(report.resumed, "pair"));
        }
        tell!(
            "{pairs} of {} from {} in {:.1} s",
            counted(report.manifest.images, "image"),
            counted(args.parts.len() as u64, "part"),
            start.elapsed().as_secs_f64()
        );
    }
    print(&format!("{}", args.output.display()))
}

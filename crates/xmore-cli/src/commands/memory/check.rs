//! `xmore memory verify` and `repair`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use xmore_memory::store;

use super::LocalMemoryArgs;
use crate::args::ShortFormat;
use crate::error::{CliError, Result};
use crate::files::{print, print_json};
use crate::progress::bar;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    memory: LocalMemoryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The memory
    #[arg(value_name = "DIR", env = "XMORE_MEMORY")]
    memory: PathBuf,
}

pub(super) fn verify(args: &VerifyArgs) -> Result<()> {
    let dir = &args.memory.memory;
    let bar = bar(0, "parts");
    let report = store::verify(dir, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if args.memory.format == ShortFormat::Json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|f| json!({"path": f.path, "part": f.part, "column": f.column, "problem": f.problem, "derived": f.derived}))
            .collect();
        print_json(&json!({
            "pairs": report.pairs, "files": report.files, "bytes": report.bytes, "without_checksum": report.unchecked,
            "not_unit": report.not_unit, "unfinished_build": report.unfinished, "findings": findings,
        }))?;
    } else {
        for finding in &report.findings {
            print(&finding.to_string())?;
        }
    }
    if report.unfinished {
        eprintln!("an unfinished build is there too; the command that began it goes on with it");
    }
    if report.unchecked > 0 {
        eprintln!("{} files have no recorded checksum; `xmore memory repair` records it", report.unchecked);
    }
    if report.not_unit > 0 {
        eprintln!("{} embeddings are not of length 1: similarities of these are no cosines", report.not_unit);
    }
    match report.findings.len() {
        0 => {
            eprintln!(
                "{} pairs in {} files, {} bytes: as they should be",
                report.pairs, report.files, report.bytes
            );
            Ok(())
        }
        found => Err(CliError::Failed(format!(
            "{found} of {} files are not as they should be; `xmore memory repair {}` mends what can be",
            report.files,
            dir.display()
        ))),
    }
}

pub(super) fn repair(args: &RepairArgs) -> Result<()> {
    let report = store::repair(&args.memory)?;
    for note in &report.notes {
        print(note)?;
    }
    if let Some(place) = &report.set_aside {
        eprintln!("what was replaced or dropped is in {}", place.display());
    }
    if !report.changed() {
        eprintln!("nothing to mend");
    } else if report.dropped > 0 {
        eprintln!("{} pairs are no longer in the memory; ids after them have changed", report.dropped);
    }
    Ok(())
}

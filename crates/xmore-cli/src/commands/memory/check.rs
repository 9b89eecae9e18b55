//! `xmore memory verify` and `repair`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use xmore_memory::store::{self, SetAside};

use crate::error::{CliError, Result};
use crate::flags::output::ShortFormat;
use crate::messages::tell;
use crate::output::{print, print_json};
use crate::progress::bar;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The memory
    #[arg(value_name = "DIR", env = "XMORE_MEMORY")]
    memory: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: ShortFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The memory
    #[arg(value_name = "DIR", env = "XMORE_MEMORY")]
    memory: PathBuf,
}

pub(super) fn verify(args: &VerifyArgs) -> Result<()> {
    let dir = &args.memory;
    let bar = bar(0, "parts");
    let report = store::verify(dir, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if args.format == ShortFormat::Json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|f| json!({"path": f.path, "part": f.part, "column": f.embedding_set, "problem": f.problem, "derived": f.derived}))
            .collect();
        print_json(&json!({
            "pairs": report.pairs, "files": report.files, "bytes": report.bytes, "without_checksum": report.unchecked,
            "not_unit": report.not_unit, "unfinished_build": report.unfinished, "pending": report.pending, "findings": findings,
            "set_aside": report.set_aside,
            "set_aside_files": report.set_aside_files.0, "set_aside_bytes": report.set_aside_files.1,
        }))?;
    } else {
        for finding in &report.findings {
            print(&finding.to_string())?;
        }
    }
    if report.unfinished {
        tell!("there is an unfinished build too; the command that started it resumes it");
    }
    if report.pending {
        tell!(
            "an interrupted command left finished files that are not in place yet: `xmore memory repair {}`, or the same command \
             again, puts them there",
            dir.display()
        );
    }
    for line in set_aside(&report.set_aside, report.set_aside_files) {
        tell!("{line}");
    }
    if report.unchecked > 0 {
        tell!("{} files have no recorded checksum; `xmore memory repair` records it", report.unchecked);
    }
    if report.not_unit > 0 {
        tell!("{} embeddings are not of length 1: similarities of these are no cosines", report.not_unit);
    }
    match report.findings.len() {
        0 => {
            tell!(
                "{} pairs in {} files, {} bytes: as they should be",
                report.pairs,
                report.files,
                report.bytes
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

/// What repairs took out of a memory, a line each.
pub(super) fn set_aside(taken: &[SetAside], (files, bytes): (u64, u64)) -> Vec<String> {
    let mut lines: Vec<String> = taken
        .iter()
        .map(|taken| {
            let what = match &taken.embedding_set {
                None => format!("{} pairs", taken.rows),
                Some(set) => format!("{} embeddings of the set {set}", taken.rows),
            };
            format!("set aside by a repair: {what} of part {}, since {}", taken.part, taken.reason)
        })
        .collect();
    if files > 0 {
        lines.push(format!("{files} files that repairs took out, {bytes} bytes, are kept in the memory's folder .xmore-set-aside"));
    }
    lines
}

pub(super) fn repair(args: &RepairArgs) -> Result<()> {
    let report = store::repair(&args.memory)?;
    for note in &report.notes {
        print(note)?;
    }
    if report.embedding_sets_cut > 0 {
        tell!("hint: `xmore memory embed` with the model of an embedding set makes its parts again");
    }
    if let Some(place) = &report.set_aside {
        tell!("what was taken out is in {}", place.display());
    }
    if !report.changed() {
        tell!("nothing to mend");
    } else if report.dropped > 0 {
        tell!(
            "{} pairs are no longer in the memory, and ids after them have changed; `xmore memory append` with the same sources adds \
             those again that can be read",
            report.dropped
        );
    }
    Ok(())
}

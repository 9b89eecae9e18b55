//! `xmore memory build` and `append`: pairs into a memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use xmore::{
    BuildOptions, BuildOutcome, BuildProgress, BuildReport, NamedModel, Part, XmoreError, build_memory,
    build_part,
};
use xmore_memory::Memory;
use xmore_memory::ingest::{ColumnNames, InputFormat, Source, SourceOptions, expand};
use xmore_memory::store::Mode;

use super::interrupted::or_interrupted;
use super::skipped::tell_skipped;
use crate::error::{CliError, Result};
use crate::flags::checkpoints::CheckpointArgs;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::folders::FolderArgs;
use crate::flags::model::ModelChoice;
use crate::flags::skips::SkipArgs;
use crate::interrupt;
use crate::messages::counted;
use crate::messages::images::{tell_left_out, tell_partly_seen};
use crate::messages::tell;
use crate::output::print;
use crate::progress::DeferredBar;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Folder of the new memory
    #[arg(short, long, value_name = "DIR", visible_alias = "output_folder")]
    output: PathBuf,
    /// Build anew and replace the memory that is there, or what an interrupted build with other sources or another model left
    #[arg(long)]
    overwrite: bool,
    /// Build only part I of N, counted from 1, as one of several workers: each with the same sources, model and flags and a folder of its
    /// own. `xmore memory merge` makes of all N parts the memory that this command builds without --part
    #[arg(long, value_name = "I/N", conflicts_with = "overwrite")]
    part: Option<Part>,
    #[command(flatten)]
    model: ModelChoice,
}

#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// The memory that grows
    #[arg(value_name = "DIR")]
    memory: PathBuf,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    model: ModelChoice,
}

/// Where pairs come from.
#[derive(Debug, Args)]
struct SourceArgs {
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// What the sources are taken as: files (folders of images with captions), table (csv, tsv, jsonl, a list in json), parquet,
    /// webdataset (tars), coco, embeddings (clip-retrieval's); auto is what each looks like
    #[arg(long, alias = "input_format", value_name = "FORMAT", default_value_t = InputFormat::Auto)]
    input_format: InputFormat,
    /// Folder that image paths in tables, parquet files and COCO captions are relative to [default: the file's own]
    #[arg(long, value_name = "DIR", visible_alias = "image_folder")]
    image_root: Option<PathBuf>,
    /// Column of tables and parquet files that names the images, or its number from 1 [default: image_path, file_name or another usual name]
    #[arg(long, alias = "image_column", value_name = "NAME")]
    image_column: Option<String>,
    /// Column of tables and parquet files with the captions, or its number [default: caption, text or another usual name]
    #[arg(long, alias = "caption_column", value_name = "NAME")]
    caption_column: Option<String>,
    #[command(flatten)]
    folders: FolderArgs,
    #[command(flatten)]
    skips: SkipArgs,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
}

impl BuildArgs {
    /// That no flag is given that would have no effect.
    pub(super) fn check(&self, given: &Given) -> Result<()> {
        given.check(SourceArgs::NO_EFFECT, &self.sources)
    }
}

impl AppendArgs {
    /// As [`BuildArgs::check`].
    pub(super) fn check(&self, given: &Given) -> Result<()> {
        given.check(SourceArgs::NO_EFFECT, &self.sources)
    }
}

impl SourceArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[
        NoEffect {
            flags: &[&["image_root"]],
            when: |args| {
                args.none(|source| {
                    matches!(source, Source::Table { .. } | Source::Parquet { .. } | Source::Coco { .. })
                })
            },
            because: "on these sources: it is for tables, parquet files and COCO captions",
        },
        NoEffect {
            flags: &[&["image_column", "caption_column"]],
            when: |args| {
                args.none(|source| {
                    matches!(source, Source::Table { .. } | Source::Parquet { .. } | Source::Folder { .. })
                })
            },
            because: "on these sources: it is for tables and parquet files",
        },
        NoEffect {
            flags: &[FolderArgs::FLAGS],
            when: |args| {
                args.sources.iter().all(|source| Path::new(source).is_file())
                    && args.none(|source| matches!(source, Source::WebDataset { .. }))
            },
            because: "on these sources: it is for folders and tars",
        },
    ];

    /// Whether no source is of a kind. What cannot be opened is told of later.
    fn none(&self, is_of_kind: fn(&Source) -> bool) -> bool {
        let options = self.options(Mode::Create).source;
        let is_other =
            |path: &PathBuf| Source::detect(path, self.input_format, &options).is_ok_and(|s| !is_of_kind(&s));
        expand(&self.sources).is_ok_and(|paths| paths.iter().all(is_other))
    }

    fn options(&self, mode: Mode) -> BuildOptions {
        BuildOptions {
            mode,
            format: self.input_format,
            source: SourceOptions {
                image_root: self.image_root.clone(),
                columns: ColumnNames {
                    image: self.image_column.clone(),
                    caption: self.caption_column.clone(),
                },
                walk: self.folders.options(),
            },
            max_skipped: self.skips.max_skipped,
            checkpoint_every: self.checkpoints.every(),
        }
    }
}

pub(super) fn build(args: &BuildArgs) -> Result<()> {
    let mode = if args.overwrite { Mode::Overwrite } else { Mode::Create };
    let model = match Memory::open(&args.output) {
        Ok(memory) if !args.overwrite => args.model.decoding_as(memory.manifest().orientation).open()?,
        _ => args.model.open()?,
    };
    write_pairs(&model, &args.sources, &args.output, mode, args.part)
}

pub(super) fn append(args: &AppendArgs) -> Result<()> {
    let memory = Memory::open(&args.memory)?;
    let manifest = memory.manifest();
    let model = args.model.decoding_as(manifest.orientation).open_for(Some(&manifest.model))?;
    drop(memory);
    write_pairs(&model, &args.sources, &args.memory, Mode::Append, None)
}

fn write_pairs(
    model: &NamedModel,
    sources: &SourceArgs,
    dir: &Path,
    mode: Mode,
    part: Option<Part>,
) -> Result<()> {
    let _orderly = interrupt::orderly();
    let start = Instant::now();
    let mut bar = DeferredBar::new("images");
    let options = sources.options(mode);
    let mut progress = |at: BuildProgress| {
        bar.show(at.done, at.total);
        !interrupt::requested()
    };
    let report = match part {
        None => build_memory(model, &sources.sources, dir, &options, &mut progress),
        Some(part) => build_part(model, &sources.sources, part, dir, &options, &mut progress),
    };
    drop(bar);
    let report = match report {
        Err(error @ XmoreError::SourcesChanged { .. }) if part.is_some() => {
            let message = format!("{error}; restore them, or start again by removing {}", dir.display());
            return Err(CliError::Failed(message));
        }
        report => or_interrupted(report, dir)?,
    };
    tell_report(&report, dir, start.elapsed().as_secs_f64(), part);
    tell_partly_seen(report.partly_seen, model);
    tell_left_out(&report.left_out);
    if let Some(part) = part {
        return end_of_part(&report, dir, sources.skips, part);
    }
    if report.manifest.is_some() && report.outcome != BuildOutcome::NothingRead {
        print(&format!("{}", dir.display()))?;
    }
    enough(&report, dir, sources.skips)
}

/// Says what became of a part, and whether that is enough for exit status 0.
fn end_of_part(report: &BuildReport, dir: &Path, skips: SkipArgs, part: Part) -> Result<()> {
    if report.outcome == BuildOutcome::FormerKept {
        return Err(CliError::NotEnough(format!(
            "{}: part {part} is not finished; what could be read is kept, and the same command goes on with it",
            too_many(report, skips)
        )));
    }
    if report.outcome == BuildOutcome::NothingRead {
        tell!("no pair came of part {part}; it is finished all the same");
    }
    print(&format!("{}", dir.display()))
}

fn tell_report(report: &BuildReport, dir: &Path, seconds: f64, part: Option<Part>) {
    for note in &report.notes {
        tell!("{note}");
    }
    let written = report.outcome == BuildOutcome::Written;
    tell_skipped(&report.skipped, report.manifest.as_ref().filter(|_| written).map(|_| dir));
    let failed = report.skipped.failed();
    if report.resumed > 0 {
        tell!("resumed after {} of an interrupted run", counted(report.resumed, "pair"));
    }
    match (report.outcome, &report.manifest) {
        (BuildOutcome::Written, Some(manifest)) => {
            let (mut added, mut rate) = (String::new(), String::new());
            if manifest.pairs != report.added {
                added = format!("added {}: ", report.added);
            } else if report.resumed == 0 {
                rate = format!(" ({:.1} images/s)", manifest.images as f64 / seconds);
            }
            tell!(
                "{added}{} of {} in {seconds:.1} s{rate}, {} skipped",
                counted(manifest.pairs, "pair"),
                counted(manifest.images, "image"),
                report.skipped.total()
            );
            if report.recovered > 0 {
                tell!(
                    "added {} that could not be read before; {failed} still cannot be read",
                    counted(report.recovered, "pair")
                );
            }
        }
        (BuildOutcome::NothingNew, _) if failed > 0 => tell!(
            "nothing to do: the memory has {} of these sources already, and {} still cannot be read",
            counted(report.present, "pair"),
            counted(failed, "thing")
        ),
        (BuildOutcome::NothingNew, _) => {
            tell!("nothing to do: the memory has all {} pairs of these sources already", report.present);
        }
        _ => {}
    }
    if failed > 0 && part.is_none() && report.outcome != BuildOutcome::FormerKept {
        tell!("the same command tries again what could not be read");
    }
    if report.repeated > 0 {
        tell!("{} listed more than once: each is taken once", counted(report.repeated, "pair"));
    }
    if report.unlisted > 0 {
        let pairs = counted(report.unlisted, "pair");
        tell!("{pairs} of the memory no longer in these sources; build with --overwrite to remove them");
    }
    if report.truncated > 0 {
        tell!("{} cut: longer than the model reads", counted(report.truncated, "caption"));
    }
    if report.renormalized > 0 {
        tell!("{} normalized: not of length 1", counted(report.renormalized, "embedding"));
    }
}

/// Whether what was done is enough for exit status 0.
fn enough(report: &BuildReport, dir: &Path, skips: SkipArgs) -> Result<()> {
    let share = too_many(report, skips);
    let message = match report.outcome {
        BuildOutcome::NothingRead => {
            let state = match &report.manifest {
                Some(_) => format!("{} is as it was", dir.display()),
                None => "no memory was written".to_owned(),
            };
            format!(
                "the sources gave no pair ({} listed, {} skipped): {state}",
                counted(report.things, "image"),
                report.skipped.total()
            )
        }
        BuildOutcome::FormerKept => format!(
            "{share}: the memory in {} was not replaced; what could be read is kept, and the same command goes on with it",
            dir.display()
        ),
        _ if report.over_limit => share,
        _ => return Ok(()),
    };
    Err(CliError::NotEnough(message))
}

/// How many things failed, and how many may.
fn too_many(report: &BuildReport, skips: SkipArgs) -> String {
    format!(
        "{} of {} images, rows and files could not be read, and --max-skipped allows {}",
        report.skipped.failed(),
        report.things,
        skips.max_skipped
    )
}

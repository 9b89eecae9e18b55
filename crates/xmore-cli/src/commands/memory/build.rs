//! `xmore memory build`, `append` and `embed`: the commands that encode.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use xmore::{BuildOptions, BuildReport, NamedModel, XmoreError, build_memory, embed_column};
use xmore_memory::Memory;
use xmore_memory::ingest::{ColumnNames, InputFormat, SourceOptions};
use xmore_memory::store::{Mode, finish_interrupted};

use crate::args::ModelChoice;
use crate::error::{CliError, Result};
use crate::files::print;
use crate::images::{WalkArgs, tell_left_out};
use crate::interrupt;
use crate::messages::tell;
use crate::progress::bar_from;
use crate::setup::tell_first_of_several;

/// Skipped things that are listed one by one; the rest are counted.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Folder of the new memory
    #[arg(short, long, value_name = "DIR", visible_alias = "output_folder")]
    output: PathBuf,
    /// Replace a memory that is there already, or what an interrupted build with other sources or another model left
    #[arg(long)]
    overwrite: bool,
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
    sources: Vec<String>,
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
    walk: WalkArgs,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
}

#[derive(Debug, Args)]
struct CheckpointArgs {
    /// Most seconds of work that a killed run loses
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds, env = "XMORE_CHECKPOINT_SECONDS")]
    checkpoint_seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|s: &f64| (0.0..=86_400.0).contains(s))
        .ok_or_else(|| "expected seconds, 0 to 86400".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct EmbedColumnArgs {
    /// The memory
    #[arg(value_name = "DIR")]
    memory: PathBuf,
    /// What is embedded: a model that is to search needs the images
    #[arg(long, value_enum, default_value_t)]
    only: What,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
    #[command(flatten)]
    model: ModelChoice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum What {
    /// Images, read again from where they were, and captions
    #[default]
    ImagesAndCaptions,
    /// Captions
    Captions,
}

impl SourceArgs {
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
                walk: self.walk.options(),
            },
            checkpoint_every: self.checkpoints.every(),
        }
    }
}

impl CheckpointArgs {
    fn every(&self) -> Duration {
        Duration::from_secs_f64(self.checkpoint_seconds)
    }
}

pub(super) fn build(args: &BuildArgs) -> Result<()> {
    let mode = if args.overwrite { Mode::Overwrite } else { Mode::Create };
    write_pairs(&args.model.open()?, &args.sources, &args.output, mode)
}

pub(super) fn append(args: &AppendArgs) -> Result<()> {
    let memory = Memory::open(&args.memory)?;
    let manifest = memory.manifest();
    let model = args.model.decoding_as(manifest.orientation).open_for(Some(&manifest.model))?;
    drop(memory);
    write_pairs(&model, &args.sources, &args.memory, Mode::Append)
}

fn write_pairs(model: &NamedModel, sources: &SourceArgs, dir: &Path, mode: Mode) -> Result<()> {
    let _orderly = interrupt::orderly();
    let start = Instant::now();
    let mut progress: Option<ProgressBar> = None;
    let report = build_memory(model, &sources.sources, dir, &sources.options(mode), &mut |at| {
        let bar = progress.get_or_insert_with(|| bar_from(at.done, at.total, "images"));
        bar.set_position(at.done);
        !interrupt::requested()
    });
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    let report = or_stopped(report, dir)?;
    tell(&report, start.elapsed().as_secs_f64());
    tell_left_out(&report.left_out);
    print(&format!("{}", dir.display()))
}

fn or_stopped<T>(result: Result<T, XmoreError>, dir: &Path) -> Result<T> {
    match result {
        Err(XmoreError::Interrupted) => {
            let message =
                format!("stopped; {} is unfinished, and the same command goes on with it", dir.display());
            Err(CliError::Interrupted(message))
        }
        other => Ok(other?),
    }
}

fn tell(report: &BuildReport, seconds: f64) {
    for note in &report.notes {
        tell!("{note}");
    }
    for skipped in report.skipped.iter().take(SHOWN) {
        tell!("skipped {}: {}", skipped.path, skipped.reason);
    }
    if report.skipped.len() > SHOWN {
        tell!("… and {} more; the memory's folder `skipped` lists them", report.skipped.len() - SHOWN);
    }
    let manifest = &report.manifest;
    if report.was_complete {
        tell!("nothing to do: the memory has all {} pairs of these sources already", report.pairs);
        return;
    }
    if report.resumed > 0 {
        tell!("went on after {} images and skipped things of an interrupted run", report.resumed);
    }
    let (mut added, mut rate) = (String::new(), String::new());
    if manifest.pairs != report.pairs {
        added = format!("added {}: ", report.pairs);
    } else if report.resumed == 0 {
        rate = format!(" ({:.1} images/s)", manifest.images as f64 / seconds);
    }
    tell!(
        "{added}{} pairs of {} images in {seconds:.1} s{rate}, {} skipped",
        manifest.pairs,
        manifest.images,
        report.skipped_in_all
    );
    if report.pairs == 0 {
        tell!("the sources gave no pair: are there images with captions?");
    }
    if report.truncated > 0 {
        tell!("{} captions were longer than the model reads and were cut", report.truncated);
    }
    tell_first_of_several(report.first_of_several);
    if report.renormalised > 0 {
        tell!("{} embeddings were not of length 1 and were made so", report.renormalised);
    }
}

pub(super) fn embed(args: &EmbedColumnArgs) -> Result<()> {
    finish_interrupted(&args.memory)?;
    let orientation = Memory::open(&args.memory)?.manifest().orientation;
    let model = args.model.decoding_as(orientation).open()?;
    let _orderly = interrupt::orderly();
    let start = Instant::now();
    let mut progress: Option<ProgressBar> = None;
    let images = args.only == What::ImagesAndCaptions;
    let report = embed_column(&model, &args.memory, images, args.checkpoints.every(), &mut |at| {
        let bar = progress.get_or_insert_with(|| bar_from(at.done, at.total, "pairs"));
        bar.set_position(at.done);
        !interrupt::requested()
    });
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    let report = or_stopped(report, &args.memory)?;
    if report.was_complete {
        tell!("nothing to do: the memory has embeddings by {} of all pairs already", model.name());
        return print(&format!("{}", args.memory.display()));
    }
    for (path, reason) in report.unreadable.iter().take(SHOWN) {
        tell!("not found through this model: {path}: {reason}");
    }
    if report.unreadable.len() > SHOWN {
        tell!("… and {} more images", report.unreadable.len() - SHOWN);
    }
    tell_first_of_several(report.first_of_several);
    if report.truncated > 0 {
        tell!("{} captions were longer than the model reads and were cut", report.truncated);
    }
    tell!(
        "embeddings of {} pairs by {} in {:.1} s",
        report.manifest.pairs - report.resumed,
        model.name(),
        start.elapsed().as_secs_f64()
    );
    print(&format!("{}", args.memory.display()))
}

//! `xmore memory embed`: a further embedding set.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use xmore::add_embedding_set;
use xmore_memory::Memory;
use xmore_memory::store::finish_interrupted;

use super::interrupted::or_interrupted;
use super::skipped::tell_skipped;
use crate::error::Result;
use crate::flags::checkpoints::CheckpointArgs;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::model::ModelChoice;
use crate::flags::skips::SkipArgs;
use crate::interrupt;
use crate::messages::counted;
use crate::messages::images::tell_partly_seen;
use crate::messages::tell;
use crate::output::print;
use crate::progress::DeferredBar;

#[derive(Debug, Args)]
pub(crate) struct EmbedColumnArgs {
    /// The memory
    #[arg(value_name = "DIR")]
    memory: PathBuf,
    /// What is embedded: a model that is to search needs the images
    #[arg(long, value_enum, default_value_t)]
    only: What,
    #[command(flatten)]
    skips: SkipArgs,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
    #[command(flatten)]
    model: ModelChoice,
}

impl EmbedColumnArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[NoEffect {
        flags: &[&["max_skipped", "orientation"]],
        when: |args| args.only == What::Captions,
        because: "on captions",
    }];

    /// That no flag is given that would have no effect.
    pub(super) fn check(&self, given: &Given) -> Result<()> {
        given.check(Self::NO_EFFECT, self)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum What {
    /// Images, read again from where they were, and captions
    #[default]
    ImagesAndCaptions,
    /// Captions
    Captions,
}

pub(super) fn run(args: &EmbedColumnArgs) -> Result<()> {
    finish_interrupted(&args.memory)?;
    let orientation = Memory::open(&args.memory)?.manifest().orientation;
    let model = args.model.decoding_as(orientation).open()?;
    let _orderly = interrupt::orderly();
    let start = Instant::now();
    let mut bar = DeferredBar::new("pairs");
    let images = args.only == What::ImagesAndCaptions;
    let report = add_embedding_set(&model, &args.memory, images, args.checkpoints.every(), &mut |at| {
        bar.show(at.done, at.total);
        !interrupt::requested()
    });
    drop(bar);
    let report = or_interrupted(report, &args.memory)?;
    tell_skipped(&report.skipped, None);
    if report.was_complete {
        let pairs = if report.unreadable == 0 { "all pairs" } else { "all pairs whose image can be read" };
        tell!("nothing to do: the memory has embeddings by {} of {pairs} already", model.name());
    } else {
        tell!(
            "embeddings of {} by {} in {:.1} s",
            counted(report.embedded, "pair"),
            model.name(),
            start.elapsed().as_secs_f64()
        );
    }
    if report.recovered > 0 {
        tell!(
            "{} of these could not be read before; {} still cannot be read",
            counted(report.recovered, "pair"),
            report.unreadable
        );
    }
    if report.unreadable > 0 {
        tell!(
            "{} not searched by this model: the image could not be read; the same command tries again",
            counted(report.unreadable, "pair")
        );
    }
    tell_partly_seen(report.partly_seen, &model);
    if report.truncated > 0 {
        tell!("{} cut: longer than the model reads", counted(report.truncated, "caption"));
    }
    print(&format!("{}", args.memory.display()))?;
    let unreadable = if images { report.unreadable } else { 0 };
    args.skips.check(unreadable, report.manifest.pairs, "pairs' images")
}

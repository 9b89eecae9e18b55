//! `xmore memory duplicates`: what a memory holds more than once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use xmore_files::escape_for_terminal;
use xmore_memory::store::Modality;
use xmore_memory::{Memory, duplicates};

use crate::error::Result;
use crate::flags::output::ShortFormat;
use crate::flags::retrieval::SAME_IMAGE;
use crate::flags::values::cosine;
use crate::interrupt;
use crate::output::{print, print_json};
use crate::progress::bar;

#[derive(Debug, Args)]
pub(crate) struct DuplicatesArgs {
    /// The memory
    #[arg(value_name = "DIR", env = "XMORE_MEMORY")]
    memory: PathBuf,
    /// Two are near-duplicates if their cosine is above this
    #[arg(long, value_name = "COSINE", default_value_t = SAME_IMAGE, value_parser = cosine)]
    above: f32,
    /// What is compared
    #[arg(long = "in", value_enum, default_value_t)]
    modality: What,
    /// Groups shown, the largest first
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Form of the output; json has all groups
    #[arg(long, value_enum, default_value_t)]
    format: ShortFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum What {
    /// Distinct images
    #[default]
    Images,
    /// Distinct captions
    Captions,
}

pub(super) fn run(args: &DuplicatesArgs) -> Result<()> {
    let memory = Memory::open(&args.memory)?;
    let (modality, what) = match args.modality {
        What::Images => (Modality::Image, "images"),
        What::Captions => (Modality::Text, "captions"),
    };
    let _orderly = interrupt::orderly();
    let bar = bar(0, what);
    let mut total = 0;
    let report = duplicates(&memory, modality, args.above, &mut |done, of| {
        total = of;
        bar.set_length(of);
        bar.set_position(done);
        !interrupt::requested()
    })?;
    bar.finish_and_clear();
    if args.format == ShortFormat::Json {
        return print_json(&json!({
            "pairs": report.pairs, "captions": report.captions, "images": report.images, "compared": report.compared,
            "above": args.above, "redundant": report.redundant(), "groups": report.groups,
        }));
    }
    let mut text = format!(
        "{} pairs: {} distinct captions, {} distinct images\n{} groups of near-duplicate {what} (cosine above {}), {} {what} more than groups",
        report.pairs,
        report.captions,
        report.images,
        report.groups.len(),
        args.above,
        report.redundant()
    );
    if report.compared < total {
        text += &format!("\nstopped: only {} of {total} {what} were compared with all", report.compared);
    }
    for group in report.groups.iter().take(args.top) {
        text += &format!("\n\n{} {what}", group.len());
        for &id in group.iter().take(5) {
            let [image, caption] = [memory.image_path(id)?, memory.caption(id)?].map(escape_for_terminal);
            text += &format!("\n  {id:>8}  {image}  {caption}");
        }
        if group.len() > 5 {
            text += &format!("\n            … and {} more", group.len() - 5);
        }
    }
    print(&text)
}

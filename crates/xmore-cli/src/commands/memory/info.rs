//! `xmore memory info`: what a memory holds, here or with a remote index.

use std::fmt;

use clap::Args;
use serde_json::json;
use xmore::OpenPairs;
use xmore_memory::Memory;
use xmore_memory::retriever::Location;
use xmore_memory::store::Modality;

use super::skipped;
use crate::error::{CliError, Result};
use crate::flags::effect::{Given, NoEffect};
use crate::flags::output::ShortFormat;
use crate::flags::remote::{RemoteArgs, is_on_this_machine};
use crate::output::{print, print_json};

#[derive(Args)]
pub(crate) struct InfoArgs {
    /// The memory: a folder or a remote index's URL
    #[arg(value_name = "DIR|URL", env = "XMORE_MEMORY")]
    memory: String,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: ShortFormat,
    /// List what the sources had that is not in the memory, and why, as csv
    #[arg(long, conflicts_with = "format")]
    skipped: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl InfoArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[NoEffect {
        flags: &[RemoteArgs::FLAGS],
        when: |args| is_on_this_machine(&args.memory),
        because: "on a memory of this machine: it is for remote indexes",
    }];

    /// That no flag is given that would have no effect.
    pub(super) fn check(&self, given: &Given) -> Result<()> {
        given.check(Self::NO_EFFECT, self)
    }
}

impl fmt::Debug for InfoArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A remote index's URL may hold a password.
        f.debug_struct("InfoArgs").field("memory", &Location::shown(&self.memory)).finish_non_exhaustive()
    }
}

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    let pairs = OpenPairs::open(&args.memory, &args.remote.options())?;
    match (pairs.memory(), pairs.remote()) {
        (Some(memory), _) if args.skipped => skipped::list(memory),
        (Some(memory), _) if args.format == ShortFormat::Json => print_json(memory.manifest()),
        (Some(memory), _) => print(&describe(memory)),
        (None, Some(index)) if !args.skipped => describe_remote(index, args.format),
        (None, _) => {
            let message = format!("{}: a remote index has no list of what was skipped", pairs.location());
            Err(CliError::Usage(message))
        }
    }
}

fn describe_remote(index: &dyn xmore_memory::Retriever, format: ShortFormat) -> Result<()> {
    let (pairs, model) = (index.pairs()?, index.identity());
    if format == ShortFormat::Json {
        return print_json(&json!({"location": index.location(), "pairs": pairs, "model": model}));
    }
    let unknown = || "not told".to_owned();
    print(&format!(
        "index        {}\npairs        {}\nmodel        {}",
        index.location(),
        pairs.map_or_else(unknown, |n| n.to_string()),
        model.map_or_else(unknown, |m| m.name.clone())
    ))
}

fn describe(memory: &Memory) -> String {
    let manifest = memory.manifest();
    let mut text = format!(
        "pairs        {}\nimages       {}\nskipped      {} things of its sources\ncut          {} captions longer than the model reads\n\
         model        {}\nfingerprint  {}\nembeddings   {} values each, float16\nparts        {}\nsources      {}",
        manifest.pairs,
        manifest.images,
        manifest.skipped,
        manifest.truncated,
        manifest.model,
        manifest.model.fingerprint,
        manifest.model.dim,
        manifest.parts.len(),
        manifest.sources.len()
    );
    for line in skipped::kinds(&skipped::counts(memory)) {
        text += &format!("\nskipped      {}", line.trim_start());
    }
    for (column, info) in memory.embedding_sets()[1..].iter().zip(&manifest.embedding_sets) {
        let mut notes = Vec::new();
        if !info.images {
            notes.push("captions only".to_owned());
        }
        if column.require(Modality::Text).is_err() {
            notes.push(format!(
                "only {} of {} pairs: run `xmore memory embed` again",
                column.rows(),
                manifest.pairs
            ));
        }
        if info.unreadable > 0 {
            notes.push(format!("{} pairs without their image", info.unreadable));
        }
        let notes = if notes.is_empty() { String::new() } else { format!(", {}", notes.join(", ")) };
        text += &format!("\nfurther set  {}, {} values each{notes}", info.model, info.model.dim);
    }
    for line in super::check::set_aside(&manifest.set_aside, (0, 0)) {
        text += &format!("\n{line}");
    }
    text
}

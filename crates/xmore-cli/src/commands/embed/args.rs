//! The flags of `xmore embed`.

use std::path::PathBuf;

use clap::Args;
use xmore::SkipLimit;

use crate::error::Result;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::folders::FolderArgs;
use crate::flags::model::QueryModelChoice;

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    pub(super) folders: FolderArgs,
    /// Photos, or folders of them
    #[arg(value_name = "IMAGES", required_unless_present = "texts", conflicts_with = "texts")]
    pub(super) images: Vec<PathBuf>,
    /// File with one text a line, instead of photos
    #[arg(long, value_name = "FILE")]
    pub(super) texts: Option<PathBuf>,
    /// The .npy file to write: unit f32 rows [n, d] in the order given
    #[arg(short, long, visible_alias = "output_file", value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Most photos that may be left out because they cannot be read: a number, or a percentage of all. Beyond it nothing is written, and
    /// the exit status is 3
    #[arg(long, value_name = "N|P%", default_value_t = SkipLimit::NONE)]
    pub(super) max_skipped: SkipLimit,
    /// Leave photos out that cannot be read, however many, instead of writing nothing
    #[arg(long, conflicts_with = "max_skipped")]
    pub(super) skip_broken: bool,
    #[command(flatten)]
    pub(super) model: QueryModelChoice,
}

impl EmbedArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[
        NoEffect {
            flags: &[
                FolderArgs::FLAGS,
                &["orientation", "resize_mode", "decode", "max_skipped", "skip_broken"],
            ],
            when: |args| args.texts.is_some(),
            because: "on texts",
        },
        NoEffect { flags: &[&["clean_texts"]], when: |args| args.texts.is_none(), because: "on photos" },
        NoEffect {
            flags: &[FolderArgs::FLAGS],
            when: |args| args.images.iter().all(|path| path.is_file()),
            because: "on files that are named themselves: it is for folders",
        },
    ];

    /// That no flag is given that would have no effect.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        given.check(Self::NO_EFFECT, self)
    }
}

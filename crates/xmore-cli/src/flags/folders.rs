//! Which files of folders are taken as images.

use clap::Args;
use xmore_files::{Exclude, WalkOptions};

/// Which files of folders are taken. A file that is named itself is always taken.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FolderArgs {
    /// Also take hidden files of folders, thumbnails kept by other programs, and trashes
    #[arg(long, alias = "include_hidden", help_heading = "Folders")]
    pub(crate) include_hidden: bool,
    /// Leave out files and folders that match, such as '*.png' or 'raw/2019'; may be given several times
    ///
    /// A pattern without a slash is compared with names at any depth, one with a slash with the path below the folder that is given;
    /// `**` stands for any number of folders.
    #[arg(long, value_name = "GLOB", help_heading = "Folders")]
    pub(crate) exclude: Vec<Exclude>,
}

impl FolderArgs {
    /// The flags, for tables of what has no effect.
    pub(crate) const FLAGS: &[&str] = &["include_hidden", "exclude"];

    /// The options of the walk.
    pub(crate) fn options(&self) -> WalkOptions {
        WalkOptions { include_hidden: self.include_hidden, exclude: self.exclude.clone() }
    }
}

//! Images named on the command line: files as given, folders walked.

use std::path::{Path, PathBuf};

use xmore_files::image::ImageFormat;
use xmore_files::{LeftOut, WalkOptions, walk_images};

use crate::error::{CliError, Result};
use crate::messages::tell;

/// Folders that could not be listed which are named one by one; the rest are counted.
const SHOWN: usize = 10;

/// The images that arguments stand for.
pub(crate) struct Images {
    /// Files as given, and all images below folders, sorted; in the order of the arguments.
    pub(crate) files: Vec<PathBuf>,
    /// What was left out of the folders.
    pub(crate) left_out: LeftOut,
}

impl Images {
    /// Finds them. Folders without an image are told of; if there is nothing else, that is an error.
    pub(crate) fn find(arguments: &[PathBuf], options: &WalkOptions) -> Result<Self> {
        let mut images = Self { files: Vec::new(), left_out: LeftOut::default() };
        let mut empty = Vec::new();
        for argument in arguments {
            if !argument.is_dir() {
                images.files.push(argument.clone());
                continue;
            }
            let walked = walk_images(argument, options).map_err(|reason| CliError::Io {
                action: "list",
                path: argument.clone(),
                reason,
            })?;
            for (path, error) in walked.unlisted.iter().take(SHOWN) {
                tell!("cannot list {}: {error}", path.display());
            }
            if walked.files.is_empty() {
                empty.push(no_images(argument, &walked.left_out));
            }
            images.files.extend(walked.files);
            images.left_out.merge(walked.left_out);
        }
        if images.files.is_empty() {
            return Err(CliError::Usage(empty.join("; ")));
        }
        empty.iter().for_each(|folder| tell!("{folder}"));
        Ok(images)
    }
}

fn no_images(folder: &Path, left_out: &LeftOut) -> String {
    let formats: Vec<&str> = ImageFormat::read().map(|format| format.name).collect();
    let mut text = format!("{}: no images ({}) in this folder", folder.display(), formats.join(", "));
    if !left_out.is_empty() {
        text += &format!("; {left_out}");
    }
    match left_out.no_images() {
        0 => {}
        1 => text += "; 1 file is no image",
        count => text += &format!("; {count} files are no images"),
    }
    text
}

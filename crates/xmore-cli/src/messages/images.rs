//! Messages about images: those left out, those read in part, and those decoded in another orientation than a memory's.

use xmore::{NamedModel, OpenPairs, PartlySeen};
use xmore_clip::ResizeMode;
use xmore_files::LeftOut;

use super::tell;

/// Tells in one line how many files of folders were left out and why, if any were.
pub(crate) fn tell_left_out(left_out: &LeftOut) {
    if !left_out.is_empty() {
        tell!("{left_out}");
    }
}

/// Tells that photos are decoded in another orientation than those of the memory, if there is one.
pub(crate) fn tell_other_orientation(model: &NamedModel, pairs: Option<&OpenPairs>) {
    let Some(memory) = pairs.and_then(OpenPairs::orientation) else { return };
    let ours = model.preprocess().orientation();
    if ours != memory {
        tell!(
            "note: photos are decoded with orientation `{ours}`, the memory's were with `{memory}` (--orientation {memory} for the same)"
        );
    }
}

/// Tells how many images the model saw only a part of.
pub(crate) fn tell_partly_seen(images: PartlySeen, model: &NamedModel) {
    let PartlySeen { first_of_several, far_from_square } = images;
    if first_of_several > 0 {
        let images = if first_of_several == 1 { "image has" } else { "images have" };
        tell!("{first_of_several} {images} several frames or pages: the first of each was taken");
    }
    if far_from_square > 0 {
        let seen = match model.preprocess().resize_mode() {
            ResizeMode::Shortest => "the middle square of each was seen",
            ResizeMode::Squash => "each was squashed into a square",
            ResizeMode::Longest => "each was seen whole",
        };
        let images = if far_from_square == 1 { "image is" } else { "images are" };
        tell!("{far_from_square} {images} more than twice as long one way as the other: {seen}");
    }
}

/// The same for query images, with the flag that shows the model all of them.
pub(crate) fn tell_partly_seen_queries(images: PartlySeen, model: &NamedModel) {
    tell_partly_seen(images, model);
    if images.far_from_square > 0 {
        tell!("hint: --resize-mode longest (with bars) shows the model whole images as they are");
    }
}

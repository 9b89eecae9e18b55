//! Messages about the pairs: what searches them, damaged search codes, and a remote index that cannot be reached.

use std::sync::Arc;

use xmore::{OpenPairs, Opened};
use xmore_memory::MemoryError;

use super::tell;

/// Tells which GPU searches the pairs, if one does.
pub(crate) fn tell_gpu(pairs: &OpenPairs) {
    if let Some(gpu) = pairs.gpu() {
        tell!("searching the memory on {gpu}");
    }
}

/// Tells of search codes that searches found damaged.
pub(crate) fn tell_damaged_codes(pairs: &OpenPairs) {
    for path in pairs.damaged_codes() {
        tell!(
            "{} is damaged and was not used, which is slower and changes no answer: `xmore memory repair` makes it again",
            path.display()
        );
    }
}

/// The pairs that were opened; tells of a remote index that could not be reached, if the flags allow that.
pub(crate) fn tell_if_unreachable(opened: Opened) -> Option<Arc<OpenPairs>> {
    opened.unreachable.iter().for_each(tell_zero_shot);
    opened.pairs
}

/// Tells that images are classified without a remote index, and why.
pub(crate) fn tell_zero_shot(error: &MemoryError) {
    tell!("{error}\nzero-shot, by the image alone, as --if-unreachable zero-shot allows");
}

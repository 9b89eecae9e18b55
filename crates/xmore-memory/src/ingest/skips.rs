//! Things that a file gives no pair for: the first are listed one by one, the rest are counted.

use std::path::Path;

use super::{ImageRef, Skip, SkipReason};

/// Most that are listed of one file. A list of all would take a multiple of the memory of a file that holds nothing else.
const MAX_LISTED: usize = 10_000;

/// The skipped rows, elements or members of one file.
pub(super) struct Skips<'a> {
    path: &'a Path,
    list: Vec<Skip>,
    more: u64,
}

impl<'a> Skips<'a> {
    /// None yet.
    pub fn of(path: &'a Path) -> Skips<'a> {
        Skips { path, list: Vec::new(), more: 0 }
    }

    /// Adds one of the file.
    pub fn add(&mut self, reason: SkipReason) {
        self.push(|path| Skip::of(path, reason));
    }

    /// Adds one of an image in the file.
    pub fn add_image(&mut self, image: &ImageRef, reason: SkipReason) {
        self.push(|_| Skip { path: image.to_string(), reason });
    }

    /// Adds what concerns the whole file: it is listed in any case.
    pub fn add_last(&mut self, reason: SkipReason) {
        self.list.push(Skip::of(self.path, reason));
    }

    fn push(&mut self, skip: impl FnOnce(&Path) -> Skip) {
        if self.list.len() < MAX_LISTED {
            self.list.push(skip(self.path));
        } else {
            self.more += 1;
        }
    }

    /// The list, with the number of those that are not in it.
    pub fn finish(mut self) -> Vec<Skip> {
        if self.more > 0 {
            self.add_last(SkipReason::NotListed { count: self.more });
        }
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_listed_and_the_rest_counted() {
        let mut skips = Skips::of(Path::new("a.csv"));
        for _ in 0..MAX_LISTED + 3 {
            skips.add(SkipReason::NoImage);
        }
        let list = skips.finish();
        assert_eq!(list.len(), MAX_LISTED + 1);
        assert_eq!(list.last().unwrap().reason, SkipReason::NotListed { count: 3 });
    }
}

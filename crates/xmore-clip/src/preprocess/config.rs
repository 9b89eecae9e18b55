//! `preprocess_cfg`, with open_clip's keys and `alpha`.
//!
//! Reference: open_clip 3.3, `PreprocessCfg` and `merge_preprocess_dict` in `transform.py`. As there, a key that is null takes its default,
//! and `size` is not read: images get the size that the image tower takes.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use xmore_files::image::Alpha;

use super::{Interpolation, NaFlex, ResizeMode};

/// How images are prepared, whatever their size.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "Keys")]
pub(crate) struct PreprocessConfig {
    /// Per channel, of pixels in [0, 1].
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
    pub(crate) interpolation: Interpolation,
    pub(crate) resize_mode: ResizeMode,
    /// Value of the bytes around an image that does not fill the square.
    pub(crate) fill_color: u8,
    pub(crate) alpha: Alpha,
    /// Of a tower that takes pictures of any aspect.
    pub(crate) patches: Option<NaFlex>,
}

/// OpenAI's, which most CLIP models share.
impl Default for PreprocessConfig {
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            interpolation: Interpolation::default(),
            resize_mode: ResizeMode::default(),
            fill_color: 0,
            alpha: Alpha::default(),
            patches: None,
        }
    }
}

impl PreprocessConfig {
    /// Checks that every byte becomes a number that a tower can take; `keys` are the file's names of `mean` and `std`.
    pub(crate) fn checked(self, [mean, std]: [&str; 2]) -> Result<Self, String> {
        /// Far beyond those of any model, and far from what sums of them overflow at.
        const LARGEST: f32 = 1e6;
        let usable = |c: usize, value: f32| ((value - self.mean[c]) / self.std[c]).abs() <= LARGEST;
        match (0..3).find(|&c| !(usable(c, 0.0) && usable(c, 1.0))) {
            Some(c) => Err(format!(
                "{mean} {} and {std} {} of channel {c} make no numbers of at most {LARGEST} of pixels",
                self.mean[c], self.std[c]
            )),
            None => Ok(self),
        }
    }
}

impl TryFrom<Keys> for PreprocessConfig {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        if let Some(mode) = keys.get::<String>("mode")?.filter(|mode| mode != "RGB") {
            return Err(format!("mode is {mode:?}, expected \"RGB\""));
        }
        let default = Self::default();
        let config = Self {
            mean: keys.get("mean")?.unwrap_or(default.mean),
            std: keys.get("std")?.unwrap_or(default.std),
            interpolation: keys.get("interpolation")?.unwrap_or(default.interpolation),
            resize_mode: keys.get("resize_mode")?.unwrap_or(default.resize_mode),
            fill_color: keys.get("fill_color")?.unwrap_or(default.fill_color),
            alpha: keys.get("alpha")?.unwrap_or(default.alpha),
            patches: None,
        };
        config.checked(["mean", "std"])
    }
}

/// A JSON object that is read key by key, so that an error names the key.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Keys(Map<String, Value>);

impl Keys {
    /// The key's value; `None` where it is absent or null.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|error| format!("{key}: {error}"))
    }

    /// The names of the keys that are not null.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }
}

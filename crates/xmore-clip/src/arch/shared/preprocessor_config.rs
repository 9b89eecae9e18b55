//! transformers' preprocessing, which lies beside a model's configuration.
//!
//! Reference: transformers 5.23, `PilBackend` in `image_processing_backends.py` and the classes `image_processing_pil_*`. Keys that they do
//! not know change nothing there, and are not refused here. Images are RGB whatever `do_convert_rgb` says.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::read_json;
use crate::error::{ClipError, Result};
use crate::preprocess::{Interpolation, Keys, NaFlex, PreprocessConfig, ResizeMode};

/// The file that has an image processor alone.
pub(crate) const FILE: &str = "preprocessor_config.json";
/// The file that has it beside the tokenizer's settings; where both are there, transformers reads this one.
pub(crate) const NESTED_FILE: &str = "processor_config.json";
/// The processor's key in it.
const NESTED: &str = "image_processor";

/// A kind of image processor: what is done where a file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessorKind {
    /// Short side, center crop, OpenAI's mean and deviation.
    Clip,
    /// Both sides, 0.5 and 0.5.
    Siglip,
    /// Patches of pictures of any aspect, 0.5 and 0.5, bilinear.
    Siglip2,
}

/// The processors that are read, by their classes' names without `ImageProcessor` and what may follow that.
const PROCESSORS: &[(&str, ProcessorKind)] = &[
    ("CLIP", ProcessorKind::Clip),
    ("ChineseCLIP", ProcessorKind::Clip),
    ("Siglip", ProcessorKind::Siglip),
    ("Siglip2", ProcessorKind::Siglip2),
];

impl ProcessorKind {
    fn of_class(class: &str) -> Option<Self> {
        // Older names of the same, and those of its implementations.
        let endings = ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"];
        let name = endings.iter().find_map(|ending| class.strip_suffix(ending))?;
        PROCESSORS.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind)
    }

    /// Whether a tower of this kind of processor takes pictures of any aspect, not squares.
    fn keeps_aspect(self) -> bool {
        self.defaults().patches.is_some()
    }

    fn defaults(self) -> PreprocessConfig {
        match self {
            Self::Clip => PreprocessConfig::default(),
            Self::Siglip => PreprocessConfig {
                mean: [0.5; 3],
                std: [0.5; 3],
                resize_mode: ResizeMode::Squash,
                ..PreprocessConfig::default()
            },
            Self::Siglip2 => PreprocessConfig {
                mean: [0.5; 3],
                std: [0.5; 3],
                interpolation: Interpolation::Bilinear,
                patches: NaFlex::new(16, 256),
                ..PreprocessConfig::default()
            },
        }
    }
}

/// Reads the processor beside `config`, if there is one, for a CLIP tower that sees squares of `image_size`.
pub(crate) fn read(config: &Path, image_size: usize) -> Result<PreprocessConfig> {
    read_or(config, image_size, ProcessorKind::Clip)
}

/// Reads the processor beside `config`, if there is one, for a tower that sees squares of `image_size`; `kind` is that of a processor whose
/// class is not named. One of patches of any aspect is for such a tower alone.
pub(crate) fn read_or(config: &Path, image_size: usize, kind: ProcessorKind) -> Result<PreprocessConfig> {
    let Some((path, keys)) = find(config)? else { return Ok(kind.defaults()) };
    parse(&keys, image_size, kind).map_err(|message| ClipError::config(&path, message))
}

/// The processor's keys, and the file that has them.
fn find(config: &Path) -> Result<Option<(PathBuf, Keys)>> {
    let nested = config.with_file_name(NESTED_FILE);
    if nested.exists() {
        let processor = read_json::<Keys>(&nested)?.get(NESTED);
        if let Some(keys) = processor.map_err(|message| ClipError::config(&nested, message))? {
            return Ok(Some((nested, keys)));
        }
    }
    let path = config.with_file_name(FILE);
    Ok(if path.exists() { Some((path.clone(), read_json(&path)?)) } else { None })
}

fn parse(keys: &Keys, image_size: usize, kind: ProcessorKind) -> Result<PreprocessConfig, String> {
    let kind = class(keys, kind.keeps_aspect())?.unwrap_or(kind);
    let default = kind.defaults();
    for (key, supported) in
        [("do_resize", true), ("do_rescale", true), ("do_pad", false), ("use_square_size", false)]
    {
        if keys.get::<bool>(key)?.is_some_and(|value| value != supported) {
            return Err(format!("{key} is {}, which is not supported", !supported));
        }
    }
    let is_other = |factor: &f64| !(0.999_999..1.000_001).contains(&(factor * 255.0));
    if let Some(factor) = keys.get::<f64>("rescale_factor")?.filter(is_other) {
        return Err(format!("rescale_factor is {factor}, expected 1/255"));
    }
    let normalized = keys.get("do_normalize")?.unwrap_or(true);
    let per_channel = |key, default, unchanged: f32| {
        Ok::<_, String>(if normalized { numbers(keys, key)?.unwrap_or(default) } else { [unchanged; 3] })
    };
    PreprocessConfig {
        mean: per_channel("image_mean", default.mean, 0.0)?,
        std: per_channel("image_std", default.std, 1.0)?,
        interpolation: interpolation(keys)?.unwrap_or(default.interpolation),
        resize_mode: match default.patches {
            Some(_) => default.resize_mode,
            None => resize_mode(keys, image_size, default.resize_mode)?,
        },
        patches: default.patches.map(|default| patches(keys, default)).transpose()?,
        ..default
    }
    .checked(["image_mean", "image_std"])
}

/// The kind of the class that the file names; `keeps_aspect` is that of the model's tower.
fn class(keys: &Keys, keeps_aspect: bool) -> Result<Option<ProcessorKind>, String> {
    let fits = |kind: &ProcessorKind| kind.keeps_aspect() == keeps_aspect;
    for key in ["image_processor_type", "feature_extractor_type"] {
        if let Some(class) = keys.get::<String>(key)? {
            let known = || {
                let known = PROCESSORS.iter().filter(|(_, kind)| fits(kind));
                known.map(|(name, _)| format!("{name}ImageProcessor")).collect::<Vec<_>>().join(", ")
            };
            return match ProcessorKind::of_class(&class).filter(fits) {
                None => Err(format!("{key} is {class:?}, expected one of {}", known())),
                kind => Ok(kind),
            };
        }
    }
    Ok(None)
}

/// Three numbers, or one for all channels.
fn numbers(keys: &Keys, key: &str) -> Result<Option<[f32; 3]>, String> {
    match keys.get(key)? {
        Some(Value::Number(_)) => Ok(keys.get(key)?.map(|value| [value; 3])),
        _ => keys.get(key),
    }
}

/// Pillow's numbers of its filters.
fn interpolation(keys: &Keys) -> Result<Option<Interpolation>, String> {
    let filter = |number: u32| match number {
        2 => Ok(Interpolation::Bilinear),
        3 => Ok(Interpolation::Bicubic),
        _ => {
            let name = ["nearest", "lanczos", "", "", "box", "hamming"].get(number as usize);
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            Err(format!("resample is {number}{name}, expected 2 (bilinear) or 3 (bicubic)"))
        }
    };
    keys.get("resample")?.map(filter).transpose()
}

/// Sizes of patches of pictures of any aspect.
fn patches(keys: &Keys, default: NaFlex) -> Result<NaFlex, String> {
    let patch = keys.get("patch_size")?.unwrap_or(default.patch());
    let most = keys.get("max_num_patches")?.unwrap_or(default.max_patches());
    NaFlex::new(patch, most).ok_or_else(|| {
        format!("patch_size is {patch} and max_num_patches {most}, which are no patches of images")
    })
}

/// What a `size` asks for.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    ShortestEdge(usize),
    Square(usize),
}

/// How images become squares of `image_size`, which is what absent sizes stand for.
fn resize_mode(keys: &Keys, image_size: usize, default: ResizeMode) -> Result<ResizeMode, String> {
    let crops = keys.get("do_center_crop")?.unwrap_or(default == ResizeMode::Shortest);
    let extent = |key| {
        let extent = extent(keys, key)?;
        match extent {
            Some(Extent::ShortestEdge(side) | Extent::Square(side)) if side != image_size => {
                Err(format!("{key} is {side}, expected {image_size}, the image size of the model"))
            }
            _ => Ok(extent),
        }
    };
    if crops {
        // Squares, whether it was written as one number or two.
        extent("crop_size")?;
    }
    let shortest_edge = match extent("size")? {
        Some(extent) => matches!(extent, Extent::ShortestEdge(_)),
        None => default == ResizeMode::Shortest,
    };
    match (shortest_edge, crops) {
        (false, _) => Ok(ResizeMode::Squash),
        (true, true) => Ok(ResizeMode::Shortest),
        (true, false) => {
            Err("do_center_crop is false, and size is that of the shortest edge: images would not be squares"
                .into())
        }
    }
}

/// One number, `[height, width]`, `{"shortest_edge"}` or `{"height", "width"}`.
fn extent(keys: &Keys, key: &str) -> Result<Option<Extent>, String> {
    let Some(value) = keys.get::<Value>(key)? else { return Ok(None) };
    let unsupported =
        || format!("{key} is {value}, expected one number, `shortest_edge`, or equal `height` and `width`");
    let extent = match &value {
        Value::Number(_) => keys.get(key)?.map(Extent::ShortestEdge),
        Value::Array(_) => {
            keys.get::<[usize; 2]>(key)?.filter(|[h, w]| h == w).map(|[h, _]| Extent::Square(h))
        }
        Value::Object(_) => {
            let sides: Keys = keys.get(key)?.unwrap_or_default();
            let side = |name: &str| sides.get(name).map_err(|error| format!("{key}: {error}"));
            match sides.names().collect::<Vec<_>>()[..] {
                ["shortest_edge"] => side("shortest_edge")?.map(Extent::ShortestEdge),
                ["height", "width"] | ["width", "height"] if side("height")? == side("width")? => {
                    side("height")?.map(Extent::Square)
                }
                _ => None,
            }
        }
        _ => None,
    };
    extent.map(Some).ok_or_else(unsupported)
}

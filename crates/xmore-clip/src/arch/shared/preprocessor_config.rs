//! transformers' preprocessing, which lies beside a model's configuration.
//!
//! Reference: transformers, `image_processing_clip.py`.

use std::path::Path;

use serde::Deserialize;

use super::read_json;
use crate::error::{ClipError, Result};
use crate::preprocess::PreprocessConfig;

/// The file's name.
pub(crate) const FILE: &str = "preprocessor_config.json";

#[derive(Default, Deserialize)]
struct Processor {
    size: Option<Extent>,
    crop_size: Option<Extent>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    do_resize: Option<bool>,
    do_normalize: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Extent {
    Side(usize),
    Shortest { shortest_edge: usize },
    Box { height: usize, width: usize },
}

/// Pillow's number of bicubic resampling.
const BICUBIC: u32 = 3;

/// Reads the file beside `config`, if there is one, for a tower that sees squares of `image_size`.
pub(crate) fn read(config: &Path, image_size: usize) -> Result<PreprocessConfig> {
    let path = config.with_file_name(FILE);
    let default = PreprocessConfig::default();
    if !path.exists() {
        return Ok(default);
    }
    let processor: Processor = read_json(&path)?;
    let fail = |what: String| Err(ClipError::config(&path, what));
    let side = |extent: Option<Extent>| match extent {
        None => image_size,
        Some(Extent::Side(n) | Extent::Shortest { shortest_edge: n }) => n,
        Some(Extent::Box { height, width }) if height == width => height,
        Some(Extent::Box { .. }) => 0,
    };
    let (size, crop) = (side(processor.size), side(processor.crop_size));
    if size != image_size || crop != image_size {
        return fail(format!(
            "resizes to {size} and crops to {crop}; only the tower's own {image_size} is supported"
        ));
    }
    if processor.resample.is_some_and(|n| n != BICUBIC) {
        return fail(format!("resample is {:?}, expected {BICUBIC}, which is bicubic", processor.resample));
    }
    if [processor.do_center_crop, processor.do_resize, processor.do_normalize].contains(&Some(false)) {
        return fail("leaves out resizing, cropping or normalizing, which is not supported".into());
    }
    Ok(PreprocessConfig {
        mean: processor.image_mean.unwrap_or(default.mean),
        std: processor.image_std.unwrap_or(default.std),
        ..default
    })
}

//! CLIP in the forms it is published in: open_clip's and transformers' folders, and single files by OpenAI or open_clip's training.

mod config;
mod resnet;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointKind};
use crate::device::{BuildImage, Device, ImageTower};
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;
use crate::options::LoadOptions;
use crate::tokenizer::{ClipTokenizer, FileTokenizer, TOKENIZER_FILES, TokenizerOptions};

use super::shared::assemble::{Parts, assemble};
use super::shared::open_clip::OpenClipFolder;
use super::shared::text_config::OwnText;
use super::shared::timm::TRUNK;
use super::shared::transformers::TransformersFolder;
use super::shared::vit_image::VitImage;
use super::{
    Architecture, CONFIG_FILE, ConfigForm, Found, ImagePart, Opened, TRANSFORMERS_CONFIG, TextPart,
    TokenizerLoader,
};
use config::{ClipArch, ResNetArch, VisionArch, infer, read_transformers, read_vision};
use resnet::ResNet;
use weights::{ClipNames, OPEN_CLIP, TRANSFORMERS};

/// CLIP's row of the table. It takes what no other does; its errors say what is missing for a CLIP model.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "clip",
    summary: "CLIP's ViT or ResNet and its text transformer: open_clip's and transformers' folders, single checkpoint files",
    detect: |_| true,
    open: |found, options| match found {
        Found::File(checkpoint) => open_file(*checkpoint, options),
        Found::Folder { dir, form: ConfigForm::OpenClip, .. } => {
            let folder = OpenClipFolder::read(dir, options)?;
            let vision = read_vision(&folder)?;
            let checkpoint = folder.checkpoint()?;
            let image = image_part(&checkpoint, &OPEN_CLIP, vision, folder.dim, options);
            folder.opened(&checkpoint, image)
        }
        Found::Folder { dir, form: ConfigForm::Transformers, .. } => open_transformers(dir, options),
    },
};

fn open_transformers(dir: PathBuf, options: &LoadOptions) -> Result<Opened> {
    let folder = TransformersFolder::new(dir, options);
    let arch = read_transformers(&folder)?;
    let checkpoint = folder.checkpoint()?;
    let own = TOKENIZER_FILES.iter().any(|file| folder.dir.join(file).is_file());
    let tokenizer = own.then_some(folder.dir);
    parts(&checkpoint, &TRANSFORMERS, arch, tokenizer, Some(folder.path), options)
}

/// Opens a single checkpoint file, whose tensors' shapes give the sizes.
fn open_file(checkpoint: Checkpoint, options: &LoadOptions) -> Result<Opened> {
    let names = ClipNames::detect(&checkpoint);
    if std::ptr::eq(names, &TRANSFORMERS) {
        let message =
            format!("transformers' weights need their {TRANSFORMERS_CONFIG}: give the folder instead");
        return Err(ClipError::checkpoint(checkpoint.path(), message));
    }
    let foreign = |name: &str| {
        let text = name.strip_prefix("text.transformer.");
        name.starts_with(TRUNK) || text.is_some_and(|rest| !rest.starts_with("resblocks."))
    };
    if checkpoint.names().any(foreign) {
        let message = format!(
            "its towers are not CLIP's own, and shapes alone do not say what they are: give the folder with their {CONFIG_FILE}"
        );
        return Err(ClipError::checkpoint(checkpoint.path(), message));
    }
    // OpenAI published TorchScript archives, and trained with QuickGELU.
    let quick_gelu = options.quick_gelu.unwrap_or(checkpoint.kind() == CheckpointKind::TorchScript);
    let arch = infer(&checkpoint, names, quick_gelu)?;
    parts(&Arc::new(checkpoint), names, arch, None, None, options)
}

fn parts(
    checkpoint: &Arc<Checkpoint>,
    names: &'static ClipNames,
    arch: ClipArch,
    tokenizer: Option<PathBuf>,
    config: Option<PathBuf>,
    options: &LoadOptions,
) -> Result<Opened> {
    let ClipArch { dim, vision, text, preprocess } = arch;
    let image = image_part(checkpoint, names, vision, dim, options);
    let own = OwnText {
        checkpoint: Arc::clone(checkpoint),
        prefix: names.text_prefix.to_owned(),
        names: names.text,
        projection: Some(names.text_projection.to_owned()),
        dim,
        precision: options.precision,
        arch: text,
    };
    let beside = tokenizer.iter().flat_map(|_| TOKENIZER_FILES.map(str::to_owned)).collect();
    let cleaning = tokenizer.as_ref().map(|_| options.cleaning.unwrap_or_default());
    let tokenizer_options = TokenizerOptions {
        cleaning: cleaning.unwrap_or_default(),
        ..TokenizerOptions::new(own.arch.context_length)
    };
    let load = load_tokenizer(checkpoint, tokenizer, own.arch.vocabulary, tokenizer_options);
    let text: TextPart = own.part(load, cleaning, beside);
    assemble(checkpoint, Parts { dim, preprocess, image, text, config }, options)
}

/// The tokenizer of the folder `dir` where there is one, else CLIP's own.
fn load_tokenizer(
    checkpoint: &Arc<Checkpoint>,
    dir: Option<PathBuf>,
    vocabulary: usize,
    options: TokenizerOptions,
) -> TokenizerLoader {
    let checkpoint = Arc::clone(checkpoint);
    Box::new(move || match &dir {
        Some(dir) => Ok(Box::new(FileTokenizer::open(dir, &options)?)),
        None if vocabulary == ClipTokenizer::VOCABULARY => {
            Ok(Box::new(ClipTokenizer::new(options.context_length)))
        }
        None => Err(ClipError::config(
            checkpoint.path(),
            format!(
                "the text tower knows {vocabulary} tokens, CLIP's own vocabulary has {}; put a {} beside the weights",
                ClipTokenizer::VOCABULARY,
                TOKENIZER_FILES[0]
            ),
        )),
    })
}

fn image_part(
    checkpoint: &Arc<Checkpoint>,
    names: &'static ClipNames,
    arch: VisionArch,
    dim: usize,
    options: &LoadOptions,
) -> ImagePart {
    let checkpoint = Arc::clone(checkpoint);
    match arch {
        VisionArch::Vit(arch) => VitImage {
            checkpoint,
            prefix: names.vision_prefix,
            names: names.vision,
            arch,
            projection: Some(names.vision_projection.to_owned()),
            dim,
            precision: options.precision,
        }
        .part(),
        VisionArch::ResNet(arch) => ImagePart {
            description: arch.describe(),
            image_size: arch.image_size,
            operations: Vec::new(),
            loader: Box::new(ResNetImage { checkpoint, arch, dim, precision: options.precision }),
        },
    }
}

/// A ResNet of CLIP's in a checkpoint.
struct ResNetImage {
    checkpoint: Arc<Checkpoint>,
    arch: ResNetArch,
    dim: usize,
    precision: Precision,
}

impl BuildImage for ResNetImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let network =
            ResNet::load(device, &self.checkpoint, &self.arch, self.dim, self.precision.of_pixels())?;
        Ok(ImageTower { network: Box::new(network), head: None })
    }
}

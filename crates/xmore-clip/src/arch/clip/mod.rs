//! CLIP in the forms it is published in: open_clip's and transformers' folders, and single files by OpenAI or open_clip's training.

mod config;
mod resnet;
mod text;
mod vit;
pub(super) mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointKind};
use crate::device::{Build, Device, ImageTower, Place, Placed, TextTower};
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;
use crate::options::LoadOptions;
use crate::preprocess::Preprocess;
use crate::tokenizer::{ClipTokenizer, FileTokenizer, Tokenizer, TokenizerOptions};

use super::shared::preprocessor_config;
use super::{Architecture, ConfigForm, Facts, Found, Opened, TRANSFORMERS_CONFIG};
use config::{ClipArch, VisionArch, infer, read_open_clip, read_transformers};
use resnet::ResNet;
use text::ClipText;
use vit::Vit;
use weights::{Naming, Weights};

/// CLIP's row of the table. It takes what no other does; its errors say what is missing for a CLIP model.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "clip",
    summary: "CLIP's ViT or ResNet and its text transformer: open_clip's and transformers' folders, single checkpoint files",
    detect: |_| Ok(true),
    open: |found, options| match found {
        Found::File(checkpoint) => Clip::open_file(*checkpoint, options),
        Found::Folder(dir, form) => Clip::open_folder(&dir, form, options),
    },
};

/// Weights in an open_clip folder, in order of preference.
const OPEN_CLIP_WEIGHTS: &[&str] = &[
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_model.safetensors.index.json",
];
/// Weights in a transformers folder, in order of preference.
const TRANSFORMERS_WEIGHTS: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
const TOKENIZER: &str = "tokenizer.json";

/// A checkpoint and what it holds.
struct Clip {
    checkpoint: Arc<Checkpoint>,
    naming: Naming,
    precision: Precision,
    arch: ClipArch,
    /// `tokenizer.json`, where it is to be used instead of the built-in vocabulary.
    tokenizer: Option<PathBuf>,
}

impl Clip {
    /// Opens a folder.
    fn open_folder(dir: &Path, form: ConfigForm, options: &LoadOptions) -> Result<Opened> {
        let config = form.file_name();
        let path = dir.join(config);
        let (arch, candidates) = match form {
            ConfigForm::OpenClip => (read_open_clip(&path, options.quick_gelu)?, OPEN_CLIP_WEIGHTS),
            ConfigForm::Transformers => (read_transformers(&path, options.quick_gelu)?, TRANSFORMERS_WEIGHTS),
        };
        let Some(weights) = candidates.iter().find(|file| dir.join(file).is_file()) else {
            return Err(ClipError::MissingFile {
                dir: dir.to_owned(),
                file: candidates.join(" or "),
                named_by: None,
            });
        };
        let checkpoint = Checkpoint::open(dir.join(weights))?;
        let own_vocabulary =
            form == ConfigForm::Transformers || arch.text.vocabulary != ClipTokenizer::VOCABULARY;
        let tokenizer = Some(dir.join(TOKENIZER)).filter(|path| path.is_file() && own_vocabulary);
        let mut files = vec![config.to_owned()];
        files.extend(checkpoint.files().map(file_name));
        let mut beside = vec![(*weights).to_owned(), preprocessor_config::FILE.to_owned()];
        beside.extend(tokenizer.iter().map(|path| file_name(path)));
        Self::opened(checkpoint, arch, tokenizer, files, beside, options)
    }

    /// Opens a single checkpoint file, whose tensors' shapes give the sizes.
    fn open_file(checkpoint: Checkpoint, options: &LoadOptions) -> Result<Opened> {
        let weights = Weights::new(&checkpoint);
        if weights.naming == Naming::Transformers {
            let message =
                format!("transformers' weights need their {TRANSFORMERS_CONFIG}: give the folder instead");
            return Err(ClipError::checkpoint(checkpoint.path(), message));
        }
        // OpenAI published TorchScript archives, and trained with QuickGELU.
        let quick_gelu = options.quick_gelu.unwrap_or(checkpoint.kind() == CheckpointKind::TorchScript);
        let arch = infer(&weights, quick_gelu)?;
        let files = checkpoint.files().map(file_name).collect();
        Self::opened(checkpoint, arch, None, files, Vec::new(), options)
    }

    fn opened(
        checkpoint: Checkpoint,
        arch: ClipArch,
        tokenizer: Option<PathBuf>,
        files: Vec<String>,
        beside: Vec<String>,
        options: &LoadOptions,
    ) -> Result<Opened> {
        let weights = Weights::new(&checkpoint);
        let naming = weights.naming;
        let shape = weights.shape("logit_scale").unwrap_or_default().to_vec();
        let logit_scale = weights.tensor("logit_scale", if shape == [1] { &[1] } else { &[] })?[0].exp();
        let facts = Facts {
            dim: arch.dim,
            logit_scale,
            logit_bias: 0.0,
            preprocess: Preprocess::new(arch.image_size(), arch.preprocess.clone()),
            towers: arch.describe(),
            context_length: arch.text.context_length,
            files,
            beside,
        };
        let precision = options.precision;
        let loader = Self { checkpoint: Arc::new(checkpoint), naming, precision, arch, tokenizer };
        let place = Place::open(options)?;
        Ok(Opened { facts, gpu: place.gpu_name(), loader: Box::new(Placed { build: loader, place }) })
    }

    fn weights(&self) -> Weights<'_> {
        Weights { checkpoint: &self.checkpoint, naming: self.naming, precision: self.precision }
    }
}

impl Build for Clip {
    fn image<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let weights = self.weights();
        Ok(match &self.arch.vision {
            VisionArch::Vit(vit) => {
                let head = weights.projection(device, "visual.proj", vit.sizes.width, self.arch.dim)?;
                ImageTower { network: Box::new(Vit::load(device, &weights, vit)?), head: Some(head) }
            }
            VisionArch::ResNet(resnet) => {
                let network = ResNet::load(device, &weights, resnet, self.arch.dim)?;
                ImageTower { network: Box::new(network), head: None }
            }
        })
    }

    fn text<D: Device>(&self, device: &D) -> Result<TextTower<D>> {
        let (weights, text) = (self.weights(), &self.arch.text);
        let head = weights.projection(device, "text_projection", text.sizes.width, self.arch.dim)?;
        let network = ClipText::load(device, &self.checkpoint, &weights, text)?;
        Ok(TextTower { network: Box::new(network), head: Some(head) })
    }

    fn tokenizer(&self) -> Result<Box<dyn Tokenizer>> {
        let text = &self.arch.text;
        match &self.tokenizer {
            Some(path) => {
                Ok(Box::new(FileTokenizer::load(path, &TokenizerOptions::new(text.context_length))?))
            }
            None if text.vocabulary == ClipTokenizer::VOCABULARY => {
                Ok(Box::new(ClipTokenizer::new(text.context_length)))
            }
            None => Err(ClipError::config(
                self.checkpoint.path(),
                format!(
                    "the text tower knows {} tokens, CLIP's own vocabulary has {}; put a {TOKENIZER} beside the weights",
                    text.vocabulary,
                    ClipTokenizer::VOCABULARY
                ),
            )),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

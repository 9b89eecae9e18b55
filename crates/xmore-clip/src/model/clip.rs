//! Loading CLIP's own checkpoints: open_clip's and transformers' folders, and single files by OpenAI or open_clip's training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointKind};
use crate::config::arch::{ClipArch, VisionArch};
use crate::config::{CONFIG_FILE, infer, read_open_clip, read_transformers};
use crate::error::{ClipError, Result};
use crate::nn::linear::Precision;
use crate::preprocess::Preprocess;
use crate::tokenizer::Tokenizer;
use crate::towers::ImageTower;
use crate::towers::clip_text::ClipText;
use crate::towers::head::Head;
use crate::towers::resnet::ResNet;
use crate::towers::vit::Vit;
use crate::weights::{Naming, Weights};

use super::{Facts, ImageEncoder, LoadOptions, Source, TextEncoder};

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
const TRANSFORMERS_CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// transformers' preprocessing, beside its configuration.
const PREPROCESSOR: &str = "preprocessor_config.json";
/// Size of CLIP's own vocabulary, which is on board.
const CLIP_VOCABULARY: usize = 49408;

/// A checkpoint and what it holds.
pub(super) struct ClipSource {
    checkpoint: Arc<Checkpoint>,
    naming: Naming,
    precision: Precision,
    arch: ClipArch,
    /// `tokenizer.json`, where it is to be used instead of the vocabulary on board.
    tokenizer: Option<PathBuf>,
}

impl ClipSource {
    /// Opens a folder.
    pub(super) fn open_folder(dir: &Path, options: &LoadOptions) -> Result<(Self, Facts)> {
        let open_clip = dir.join(CONFIG_FILE).is_file();
        let (config, candidates) = if open_clip {
            (CONFIG_FILE, OPEN_CLIP_WEIGHTS)
        } else {
            (TRANSFORMERS_CONFIG, TRANSFORMERS_WEIGHTS)
        };
        if !dir.join(config).is_file() {
            return Err(ClipError::MissingFile {
                dir: dir.to_owned(),
                file: format!("{CONFIG_FILE} (or transformers' {TRANSFORMERS_CONFIG})"),
                hint: "a model folder has one of them beside its weights; a single .pt file is given by its own path"
                    .into(),
            });
        }
        let read = if open_clip { read_open_clip } else { read_transformers };
        let arch = read(&dir.join(config), options.quick_gelu)?;
        let Some(weights) = candidates.iter().find(|file| dir.join(file).is_file()) else {
            return Err(ClipError::MissingFile {
                dir: dir.to_owned(),
                file: candidates.join(" or "),
                hint: "complete the folder, for example by `xmore model fetch`".into(),
            });
        };
        let checkpoint = Checkpoint::open(dir.join(weights))?;
        let tokenizer = Some(dir.join(TOKENIZER))
            .filter(|path| path.is_file() && (!open_clip || arch.text.vocabulary != CLIP_VOCABULARY));
        let mut files = vec![config.to_owned()];
        files.extend(checkpoint.files().map(file_name));
        let mut beside = vec![(*weights).to_owned(), PREPROCESSOR.to_owned()];
        beside.extend(tokenizer.iter().map(|path| file_name(path)));
        Self::new(checkpoint, arch, tokenizer, files, beside, options)
    }

    /// Opens a single checkpoint file, whose architecture its shapes tell.
    pub(super) fn open_file(path: &Path, options: &LoadOptions) -> Result<(Self, Facts)> {
        let checkpoint = Checkpoint::open(path)?;
        let weights = Weights::new(&checkpoint);
        if weights.naming == Naming::Transformers {
            let message =
                format!("transformers' weights need their {TRANSFORMERS_CONFIG}: give the folder instead");
            return Err(ClipError::checkpoint(path, message));
        }
        // OpenAI published TorchScript archives, and trained with QuickGELU.
        let quick_gelu = options.quick_gelu.unwrap_or(checkpoint.kind() == CheckpointKind::TorchScript);
        let arch = infer(&weights, quick_gelu)?;
        let files = checkpoint.files().map(file_name).collect();
        Self::new(checkpoint, arch, None, files, Vec::new(), options)
    }

    fn new(
        checkpoint: Checkpoint,
        arch: ClipArch,
        tokenizer: Option<PathBuf>,
        files: Vec<String>,
        beside: Vec<String>,
        options: &LoadOptions,
    ) -> Result<(Self, Facts)> {
        let weights = Weights::new(&checkpoint);
        let naming = weights.naming;
        let shape = weights.shape("logit_scale").unwrap_or_default().to_vec();
        let logit_scale = weights.tensor("logit_scale", if shape == [1] { &[1] } else { &[] })?[0].exp();
        let facts = Facts {
            dim: arch.dim,
            logit_scale,
            preprocess: Preprocess::new(arch.image_size(), arch.preprocess.clone()),
            towers: arch.describe(),
            context_length: arch.text.context_length,
            files,
            beside,
        };
        let precision = options.precision;
        Ok((Self { checkpoint: Arc::new(checkpoint), naming, precision, arch, tokenizer }, facts))
    }

    fn weights(&self) -> Weights<'_> {
        Weights { checkpoint: &self.checkpoint, naming: self.naming, precision: self.precision }
    }
}

impl Source for ClipSource {
    fn image(&self) -> Result<ImageEncoder> {
        let weights = self.weights();
        let (tower, head): (Box<dyn ImageTower>, _) = match &self.arch.vision {
            VisionArch::Vit(vit) => {
                let head = weights.projection("visual.proj", vit.sizes.width, self.arch.dim)?;
                (Box::new(Vit::load(&weights, vit)?), Some(Head::projection(head)))
            }
            VisionArch::ResNet(resnet) => (Box::new(ResNet::load(&weights, resnet, self.arch.dim)?), None),
        };
        Ok(ImageEncoder { tower, head })
    }

    fn text(&self) -> Result<TextEncoder> {
        let (weights, text) = (self.weights(), &self.arch.text);
        let head = weights.projection("text_projection", text.sizes.width, self.arch.dim)?;
        let tower = ClipText::load(Arc::clone(&self.checkpoint), &weights, text)?;
        Ok(TextEncoder { tower: Box::new(tower), head: Head::projection(head), vocabulary: text.vocabulary })
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        let text = &self.arch.text;
        match &self.tokenizer {
            Some(path) => Tokenizer::load(path, text.context_length),
            None if text.vocabulary == CLIP_VOCABULARY => Ok(Tokenizer::clip(text.context_length)),
            None => Err(ClipError::config(
                self.checkpoint.path(),
                format!(
                    "the text tower knows {} tokens, CLIP's own vocabulary has {CLIP_VOCABULARY}; put a {TOKENIZER} \
                     beside the weights",
                    text.vocabulary
                ),
            )),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

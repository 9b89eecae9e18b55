//! The flags of `xmore eval`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use xmore::Method;
use xmore_eval::registry::Suite;
use xmore_eval::{DatasetFormat, EvalMethod, EvalOptions};
use xmore_files::is_standard_output;

use crate::error::Result;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::folders::FolderArgs;
use crate::flags::model::QueryModelChoice;
use crate::flags::retrieval::RetrievalArgs;
use crate::flags::skips::SkipArgs;
use crate::flags::values::probability;
use crate::messages::tell;

/// Measure the methods' accuracy on labeled photos
///
/// A dataset is a folder with one sub-folder for each class, a table (.csv, .tsv, .jsonl) with columns for image paths and labels, CoOp's split_zhou_*.json, tars with
/// .cls members as CLIP_benchmark has them, or a folder of WordNet ids. Every image counts: one that cannot be read is wrong.
/// If none of a dataset can be read, or more cannot than --max-skipped allows, the exit status is 3.
///
/// Embeddings are kept, so that another run on the same images encodes nothing.
#[derive(Clone, Debug, Args)]
pub(crate) struct EvalArgs {
    /// Datasets: their paths, or with --data-root their names
    #[arg(value_name = "DATASET", required_unless_present_any = ["suite", "named"])]
    pub(super) datasets: Vec<PathBuf>,
    /// Datasets by name, separated by commas, such as DTD or imagenet1k
    #[arg(long = "dataset", value_delimiter = ',', value_name = "NAMES", conflicts_with = "datasets")]
    pub(super) named: Vec<String>,
    /// Datasets of one of the paper's tables: paper-table1, paper-table2 or paper-k
    #[arg(long, value_name = "SUITE", conflicts_with_all = ["datasets", "named"], requires = "data_root")]
    pub(super) suite: Option<Suite>,
    /// Folder that datasets known by name are in, laid out as CoOp has them
    #[arg(long, aliases = ["data_root", "dataset-root", "dataset_root"], value_name = "DIR")]
    pub(super) data_root: Option<PathBuf>,
    /// Layout of a dataset given by its path: auto, folder, table, coop, webdataset, imagenet or aircraft
    #[arg(long, default_value_t, value_name = "FORMAT", help_heading = "Data")]
    pub(super) dataset_format: DatasetFormat,
    /// The split, where there are several [default: test, else val]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(super) split: Option<String>,
    /// Folder that image paths are relative to [default: as the layout has it]
    #[arg(long, alias = "image_root", value_name = "DIR", help_heading = "Data")]
    pub(super) image_root: Option<PathBuf>,
    /// Column of a table that names the images, or its number from 1 [default: image_path, file_name or another usual name]
    #[arg(long, alias = "image_column", value_name = "NAME", help_heading = "Data")]
    pub(super) image_column: Option<String>,
    /// Column of a table with the labels, or its number [default: label, class or another usual name]
    #[arg(long, alias = "label_column", value_name = "NAME", help_heading = "Data")]
    pub(super) label_column: Option<String>,
    /// File of class names: any form that --labels-file of classify takes, or a WordNet id and a name in each line
    ///
    /// Numbered classes take them in their order. Classes that have names take prompts and synonyms from the file by name; names too, where
    /// there are as many. Prompts of a class's own are used by every method but those with CoOp's prompts, also by templates and
    /// dataset-prompts.
    #[arg(long, aliases = ["class_names", "classnames"], value_name = "FILE", help_heading = "Data")]
    pub(super) class_names: Option<PathBuf>,
    #[command(flatten)]
    pub(super) folders: FolderArgs,
    #[command(flatten)]
    pub(super) skips: SkipArgs,
    #[command(flatten)]
    pub(super) retrieval: RetrievalArgs,
    /// Methods, separated by commas, or `all` [default: those that classify has]
    ///
    /// zero-shot, templates (80 prompts), dataset-prompts (the dataset's own), coop (--coop), tda, captions, equal, xmore, xmore-kernel,
    /// xmore-stream, coop-xmore and coop-xmore-stream (X-MoRe with CoOp's prompts for image and captions, --coop).
    /// tda, xmore-stream and coop-xmore-stream depend on the order of the images.
    #[arg(long, value_delimiter = ',', value_parser = methods, value_name = "LIST")]
    pub(super) methods: Vec<Wanted>,
    /// Other retrievals to measure beside, separated by commas: unsorted, image-to-text
    #[arg(long, value_delimiter = ',', value_parser = variant, value_name = "LIST")]
    pub(super) variants: Vec<WantedVariant>,
    /// File with a prompt a line, for dataset-prompts
    #[arg(long, value_name = "FILE")]
    pub(super) prompts: Option<PathBuf>,
    /// Checkpoint of CoOp (model.pth.tar-50) with context vectors, for coop, coop-xmore and coop-xmore-stream
    #[arg(long, value_name = "FILE")]
    pub(super) coop: Option<PathBuf>,
    /// Orders of the images that stream methods are measured over
    #[arg(long, default_value_t = EvalOptions::default().orders, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) seeds: u64,
    /// Seed of orders and bootstrap samples
    #[arg(long, default_value_t = EvalOptions::default().seed, value_name = "N")]
    pub(super) seed: u64,
    /// Bootstrap samples for the intervals
    #[arg(long, default_value_t = EvalOptions::default().samples, value_name = "N", value_parser = samples)]
    pub(super) bootstrap: usize,
    /// Also measure with answers less confident than this withheld
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(super) abstain_below: Option<f64>,
    /// Fit a calibration on these photos, for each method that classify has, and write it: for --calibration of classify, serve and eval
    ///
    /// A temperature (Guo et al. 2017), which makes probabilities say how often answers are right; the answers stay. Ten photos are the least,
    /// some hundred are better. What is measured here is on the photos that are fitted on: measure on others with --calibration.
    #[arg(long, value_name = "FILE", conflicts_with = "skip_existing", help_heading = "Calibration")]
    pub(super) fit: Option<PathBuf>,
    /// With --fit, also find the least score of answers of which this share is right, with a probability of 95 %
    #[arg(long, value_name = "P", requires = "fit", value_parser = precision, help_heading = "Calibration")]
    pub(super) target_precision: Option<f64>,
    /// Measure with what --fit wrote for the same model, memory and options, beside the figures without it
    #[arg(long, value_name = "FILE", conflicts_with = "fit", help_heading = "Calibration")]
    pub(super) calibration: Option<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub(super) format: EvalFormat,
    /// Also write the results as JSON, in CLIP_benchmark's schema: a folder, or a .json or .jsonl file
    ///
    /// A folder gets a file for each dataset and method, a .jsonl file a line: each is an object as `clip_benchmark build` reads it. A .json
    /// file has the object if there is one result, else a list of objects, of one dataset. {dataset}, {model}, {pretrained}, {method},
    /// {language} and {task} in a file's name are replaced.
    #[arg(short, long, value_name = "FILE|DIR", help_heading = "Output")]
    pub(super) output: Option<PathBuf>,
    /// Take results from --output where they are there, with the same settings, instead of measuring again
    ///
    /// Lines of other datasets in a .jsonl file are kept.
    #[arg(long, alias = "skip_existing", requires = "output", help_heading = "Output")]
    pub(super) skip_existing: bool,
    /// Write each image's answers: .csv, else JSON lines
    #[arg(long, alias = "per_image", value_name = "FILE", help_heading = "Output")]
    pub(super) per_image: Option<PathBuf>,
    /// Write a report as one HTML page
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) html: Option<PathBuf>,
    /// Folder for embeddings [default: eval-cache in XMORE_HOME]
    #[arg(long, alias = "cache_dir", value_name = "DIR", help_heading = "Output")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Keep no embeddings, and use none from before
    #[arg(long, alias = "no_cache", help_heading = "Output")]
    pub(super) no_cache: bool,
    #[command(flatten)]
    pub(super) model: QueryModelChoice,
    #[command(flatten)]
    pub(super) ignored: IgnoredArgs,
}

impl EvalArgs {
    /// What depends on a dataset's layout is checked where it is read. The seed and the bootstrap samples are of whatever statistics there
    /// are.
    const NO_EFFECT: &[NoEffect<Self>] = &[
        NoEffect {
            flags: &[&["dataset_format", "image_root", "image_column", "label_column"]],
            when: |args| args.suite.is_some(),
            because: "with --suite, whose datasets are laid out as CoOp has them",
        },
        NoEffect {
            flags: &[&["data_root"]],
            when: |args| !args.datasets.is_empty() && args.datasets.iter().all(|path| path.exists()),
            because: "on datasets given by their paths",
        },
        NoEffect {
            flags: &[&["prompts"]],
            when: |args| !args.measures(|method| method == EvalMethod::DatasetPrompts),
            because: "without the method dataset-prompts",
        },
        NoEffect {
            flags: &[&["coop"]],
            when: |args| !args.measures(EvalMethod::needs_coop),
            because: "without a method that needs it: coop, coop-xmore or coop-xmore-stream",
        },
        NoEffect {
            flags: &[&["seeds"]],
            when: |args| !args.measures(EvalMethod::depends_on_order) || !args.names_methods(),
            because: "without a method that depends on the order of the images, which --methods has to name",
        },
        NoEffect {
            flags: &[&["variants"]],
            when: |args| args.retrieval.memory.is_none(),
            because: "without --memory",
        },
        NoEffect {
            flags: &[&["variants"]],
            when: |args| !args.measures(EvalMethod::needs_memory),
            because: "without a method that uses captions",
        },
        NoEffect {
            flags: &[&["templates"]],
            when: |args| {
                let one = args.retrieval.templates.len() == 1;
                !args.measures(|method| match method {
                    EvalMethod::DatasetPrompts => false,
                    EvalMethod::Each(Method::Templates) => !one,
                    method => !method.needs_coop(),
                })
            },
            because: "on methods that have prompts of their own",
        },
        NoEffect {
            flags: &[&["caption_template"]],
            when: |args| {
                !args.measures(|method| method.needs_memory() && method != EvalMethod::Each(Method::Kernel))
            },
            because: "without a method that classifies captions one by one",
        },
        NoEffect { flags: &[&["cache_dir"]], when: |args| args.no_cache, because: "with --no-cache" },
        NoEffect {
            flags: &[&["skip_existing"]],
            when: |args| args.output.as_deref().is_some_and(is_standard_output),
            because: "on standard output",
        },
    ];

    /// That no flag is given that would have no effect. Those of clip_benchmark that mean nothing here are only told of.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        self.retrieval.check(given)?;
        given.check(Self::NO_EFFECT, self)?;
        if let Some(flag) = given.first(&["batch_size", "num_workers"]) {
            tell!("{flag} is taken from clip_benchmark's command lines and has no effect here");
        }
        Ok(())
    }

    /// Whether methods are named; a suite measures all of them.
    fn names_methods(&self) -> bool {
        !self.methods.is_empty() || self.suite.is_some()
    }

    /// Whether one of the methods that are asked for, or may be measured where none are, is such a one.
    fn measures(&self, is_such: impl Fn(EvalMethod) -> bool) -> bool {
        self.methods.is_empty()
            || self.methods.iter().any(|wanted| match wanted {
                Wanted::All => true,
                Wanted::One(method) => is_such(*method),
            })
    }
}

/// Flags of clip_benchmark that have no meaning here, so that its command lines paste in.
#[derive(Clone, Debug, Args)]
pub(super) struct IgnoredArgs {
    #[arg(long = "batch_size", hide = true)]
    batch_size: Option<u64>,
    #[arg(long = "num_workers", hide = true)]
    num_workers: Option<u64>,
    #[arg(long = "language", hide = true, value_parser = ["en"])]
    language: Option<String>,
    #[arg(long = "task", hide = true, value_parser = ["zeroshot_classification"])]
    task: Option<String>,
}

/// What --methods names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Whatever the dataset and the other flags allow.
    All,
    One(EvalMethod),
}

fn methods(name: &str) -> Result<Wanted, xmore_eval::EvalError> {
    if name == "all" { Ok(Wanted::All) } else { name.parse().map(Wanted::One) }
}

/// What --variants names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantedVariant {
    Unsorted,
    ImageToText,
}

fn variant(name: &str) -> Result<WantedVariant, String> {
    match name {
        "unsorted" => Ok(WantedVariant::Unsorted),
        "image-to-text" => Ok(WantedVariant::ImageToText),
        "unnormalized" => Err(
            "the authors' re-ranking without normalization needs the captions' norms; a memory stores unit vectors, so they are lost"
                .to_owned(),
        ),
        "rerank-model" => Err("name the other model with --rerank-model".to_owned()),
        _ => Err("there are unsorted and image-to-text".to_owned()),
    }
}

fn precision(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|p: &f64| *p > 0.0 && *p < 1.0);
    value.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

fn samples(text: &str) -> Result<usize, String> {
    let value = text.parse().ok().filter(|n| (100..=1_000_000).contains(n));
    value.ok_or_else(|| "expected a number from 100 to 1000000".to_owned())
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum EvalFormat {
    /// For people
    #[default]
    Table,
    /// The same as Markdown tables
    Markdown,
    /// A row for each dataset and method
    Csv,
    /// CLIP_benchmark's objects, one for each dataset and method
    Json,
}

//! The flags of `xmore classify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use xmore::{AnswerOptions, Method, Scores};

use crate::error::Result;
use crate::flags::calibration::CalibrationArgs;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::folders::FolderArgs;
use crate::flags::labels::LabelArgs;
use crate::flags::model::QueryModelChoice;
use crate::flags::output::Format;
use crate::flags::retrieval::RetrievalArgs;
use crate::flags::skips::SkipArgs;
use crate::flags::values::{cosine, method_parser, nonzero, probability, scores_parser};

#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    /// Photos, or folders of them
    #[arg(required = true, value_name = "IMAGES")]
    pub(super) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) folders: FolderArgs,
    #[command(flatten)]
    pub(super) labels: LabelArgs,
    /// Column of --labels-file that has the labels [default: label, class, name or the like]
    #[arg(long, value_name = "NAME", requires = "labels_file")]
    pub(super) labels_column: Option<String>,
    #[command(flatten)]
    pub(super) retrieval: RetrievalArgs,
    /// How the answer is made [default: xmore-kernel with a memory where it is possible, else xmore; zero-shot without]
    #[arg(long, value_parser = method_parser(), value_name = "METHOD")]
    pub(super) method: Option<Method>,
    /// What scores are
    #[arg(long, value_parser = scores_parser(), default_value = Scores::default().name(), value_name = "KIND")]
    pub(super) scores: Scores,
    /// Labels shown for each photo
    #[arg(long, default_value_t = nonzero(AnswerOptions::new(Method::ZeroShot).top), value_name = "N")]
    pub(super) top: NonZeroUsize,
    /// Least score of a best label to be the answer; below it the photo shows none of the labels
    ///
    /// Softmax scores add up to 1, so one of them is high even if the photo shows none; see --min-similarity.
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(super) min_score: Option<f64>,
    /// Least similarity of photo and best label for it to be the answer; below it the photo shows none of the labels
    ///
    /// The cosine of their embeddings, which no other label changes. With CLIP's models 0.2 to 0.3 is a good match and unrelated pairs have
    /// 0.1 to 0.2; other models have other ranges: look at the similarities of photos you know.
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub(super) min_similarity: Option<f32>,
    #[command(flatten)]
    pub(super) calibration: CalibrationArgs,
    /// Also show both modalities' answers, their confidences and the captions
    #[arg(long)]
    pub(super) explain: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) skips: SkipArgs,
    #[command(flatten)]
    pub(super) model: QueryModelChoice,
}

impl ClassifyArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[
        NoEffect {
            flags: &[FolderArgs::FLAGS],
            when: |args| args.images.iter().all(|path| path.is_file()),
            because: "on files that are named themselves: it is for folders",
        },
        NoEffect {
            flags: &[RetrievalArgs::CAPTION_FLAGS, RetrievalArgs::PAIR_FLAGS],
            when: |args| !args.shows_evidence() && args.method.is_some_and(|method| !method.needs_memory()),
            because: "on a method that uses no captions, without --explain or --format json",
        },
        NoEffect {
            flags: &[RetrievalArgs::CAPTION_FLAGS],
            when: |args| {
                !args.shows_evidence() && args.method == Some(Method::Kernel) && args.retrieval.is_local()
            },
            because: "on xmore-kernel, which reads all captions near a photo, without --explain or --format json",
        },
        NoEffect {
            flags: &[&["templates"]],
            when: |args| {
                !args.shows_evidence()
                    && args.method == Some(Method::Templates)
                    && args.retrieval.templates.len() == 1
            },
            because: "on the method templates, which has 80 prompts of its own, unless several are given",
        },
        NoEffect {
            flags: &[CalibrationArgs::FLAGS],
            when: |args| args.scores == Scores::Sigmoid,
            because: "on sigmoid scores: a calibration is of distributions over the labels",
        },
    ];

    /// Whether the captions are shown, whatever the method makes of them.
    pub(super) fn shows_evidence(&self) -> bool {
        self.explain || matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// That no flag is given that would have no effect.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        self.retrieval.check(given)?;
        given.check(Self::NO_EFFECT, self)
    }
}

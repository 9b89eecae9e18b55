//! The memory, how captions are retrieved from it, and the prompts, as every classifying command takes them.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use xmore::{DEFAULT_TEMPLATE, Ranking, RetrievalOptions, Template, XmoreError};
use xmore_memory::retriever::Location;

use super::effect::{Given, NoEffect};
use super::filter::FilterArgs;
use super::remote::{IfUnreachableArg, RemoteArgs, is_on_this_machine};
use super::values::cosine;
use crate::error::CliError;

/// Above this cosine two images are taken for copies of one another.
pub(crate) const SAME_IMAGE: f32 = RetrievalOptions::SAME_IMAGE;
/// Above this cosine two captions are taken for one another.
const SAME_CAPTION: f32 = 0.94;

/// Retrieval and prompts.
#[derive(Clone, Args)]
pub(crate) struct RetrievalArgs {
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
    /// Text with `{}` that retrieved captions are classified inside of, such as the `a_photo_of_a {}` of the paper's authors
    ///
    /// Captions are encoded here then, each once. xmore-kernel, search and ranking use the captions themselves. The default is `{}`, the bare
    /// caption, but in the suites of `eval` the authors' text.
    #[arg(long, value_name = "TEXT", value_parser = template, env = "XMORE_CAPTION_TEMPLATE", help_heading = "Retrieval")]
    pub(crate) caption_template: Option<Template>,
    /// Model that searches the memory's images, if another than --model (added by `xmore memory embed`)
    #[arg(long, value_name = "NAME", env = "XMORE_SEARCH_MODEL", help_heading = "Retrieval")]
    pub(crate) search_model: Option<String>,
    /// Model that chooses among the captions found, if another than --model
    #[arg(long, value_name = "NAME", env = "XMORE_RERANK_MODEL", help_heading = "Retrieval")]
    pub(crate) rerank_model: Option<String>,
    #[arg(
        long,
        help = drop_query_duplicates_help(),
        value_name = "COSINE",
        require_equals = true,
        value_parser = cosine,
        env = "XMORE_DROP_QUERY_DUPLICATES",
        help_heading = "Retrieval"
    )]
    drop_query_duplicates: Option<Option<f32>>,
    #[arg(
        long,
        help = deduplicate_help(),
        value_name = "COSINE",
        require_equals = true,
        value_parser = cosine,
        env = "XMORE_DEDUPLICATE",
        help_heading = "Retrieval"
    )]
    deduplicate: Option<Option<f32>>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// What to do if the remote index of --memory cannot be reached
    #[arg(long, value_enum, default_value_t, env = "XMORE_IF_UNREACHABLE", help_heading = "Retrieval")]
    pub(crate) if_unreachable: IfUnreachableArg,
}

impl fmt::Debug for RetrievalArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A remote index's URL may hold a password.
        let memory = self.memory.as_deref().map(Location::shown);
        f.debug_struct("RetrievalArgs").field("memory", &memory).finish_non_exhaustive()
    }
}

fn drop_query_duplicates_help() -> String {
    format!(
        "Leave out pairs whose image is more similar to the photo than this: the photo itself, or copies of it [{SAME_IMAGE} without a \
         value]"
    )
}

fn deduplicate_help() -> String {
    format!(
        "Leave out captions more similar than this to one that is kept already [{SAME_CAPTION} without a value]"
    )
}

impl RetrievalArgs {
    /// Flags that say how captions are chosen.
    pub(crate) const CAPTION_FLAGS: &[&str] =
        &["k", "neighbors", "search_model", "rerank_model", "deduplicate", "caption_template"];
    /// Flags that say which pairs are looked at.
    pub(crate) const PAIR_FLAGS: &[&str] = &["drop_query_duplicates", "caption_filter", "rows"];

    const NO_EFFECT: &[NoEffect<Self>] = &[
        NoEffect {
            flags: &[Self::CAPTION_FLAGS, Self::PAIR_FLAGS, RemoteArgs::FLAGS, &["if_unreachable"]],
            when: |args| args.memory.is_none(),
            because: "without --memory",
        },
        NoEffect {
            flags: &[RemoteArgs::FLAGS, &["if_unreachable"]],
            when: |args| args.is_local(),
            because: "on a memory of this machine: it is for remote indexes",
        },
    ];

    /// That none of these flags is given without an effect.
    pub(crate) fn check(&self, given: &Given) -> Result<(), CliError> {
        given.check(Self::NO_EFFECT, self)
    }

    /// Whether the pairs are on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.memory.as_deref().is_some_and(is_on_this_machine)
    }

    /// The prompts.
    pub(crate) fn templates(&self) -> Result<Vec<Template>, XmoreError> {
        self.templates.iter().map(Template::new).collect()
    }

    /// How captions are retrieved.
    pub(crate) fn options(&self) -> RetrievalOptions {
        RetrievalOptions {
            neighbors: self.neighbors,
            k: self.k.largest(),
            query_duplicates_above: self.drop_query_duplicates.map(|above| above.unwrap_or(SAME_IMAGE)),
            near_duplicates_above: self.deduplicate.map(|above| above.unwrap_or(SAME_CAPTION)),
            ranking: Ranking::TwoStages,
        }
    }
}

fn template(text: &str) -> Result<Template, XmoreError> {
    Template::new(text)
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

//! `xmore memory search`: the pairs nearest to a photo or a text, here or with a remote index.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use xmore::{Encoder, NamedModel, OpenPairs, encode_files};
use xmore_clip::Embeddings;
use xmore_memory::SearchOptions;
use xmore_memory::retriever::Location;
use xmore_memory::store::Modality;

use crate::error::{CliError, Result};
use crate::flags::effect::{Given, NoEffect};
use crate::flags::filter::FilterArgs;
use crate::flags::model::QueryModelChoice;
use crate::flags::output::Format;
use crate::flags::remote::{RemoteArgs, is_on_this_machine};
use crate::messages::images::{tell_other_orientation, tell_partly_seen_queries};
use crate::messages::pairs::{tell_damaged_codes, tell_gpu};
use crate::messages::tell;
use crate::output::csv::CsvOutput;
use crate::output::table::{add_row, table, trimmed};
use crate::output::{print, print_json, print_json_line};

#[derive(Args)]
pub(crate) struct SearchArgs {
    /// The memory: a folder or a remote index's URL
    #[arg(value_name = "DIR|URL", env = "XMORE_MEMORY")]
    memory: String,
    #[command(flatten)]
    query: QueryArgs,
    /// What is compared with the query: the pairs' images or their captions
    #[arg(long = "in", value_enum, default_value_t)]
    modality: SearchIn,
    /// Number of pairs
    #[arg(short, long, default_value_t = 10, visible_alias = "num_images", value_name = "N")]
    n: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    model: QueryModelChoice,
}

impl SearchArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[
        NoEffect {
            flags: &[RemoteArgs::FLAGS],
            when: |args| is_on_this_machine(&args.memory),
            because: "on a memory of this machine: it is for remote indexes",
        },
        NoEffect {
            flags: &[&["orientation", "resize_mode", "decode"]],
            when: |args| args.query.image.is_none(),
            because: "on a text",
        },
    ];

    /// That no flag is given that would have no effect.
    pub(super) fn check(&self, given: &Given) -> Result<()> {
        given.check(Self::NO_EFFECT, self)
    }
}

impl fmt::Debug for SearchArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A remote index's URL may hold a password.
        f.debug_struct("SearchArgs").field("memory", &Location::shown(&self.memory)).finish_non_exhaustive()
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct QueryArgs {
    /// Photo to search with
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Text to search with
    #[arg(long)]
    text: Option<String>,
}

/// What a search compares with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SearchIn {
    #[default]
    Images,
    Captions,
}

/// A pair that was found.
#[derive(Serialize)]
struct Row {
    id: u64,
    similarity: f32,
    caption: String,
    image_path: String,
}

pub(super) fn run(args: &SearchArgs) -> Result<()> {
    let pairs =
        OpenPairs::open(&args.memory, &args.remote.options())?.search_on(args.model.encoder.device)?;
    tell_gpu(&pairs);
    let allowed = args.filter.allowed(&pairs)?;
    let model = args.model.open_for(pairs.identity())?;
    if args.query.image.is_some() {
        tell_other_orientation(&model, Some(&pairs));
    }
    let rows = match (pairs.memory(), pairs.remote()) {
        (Some(memory), _) => {
            let set = (&model as &dyn Encoder).embedding_set(memory)?;
            let query = encode(&model, &args.query)?;
            let modality = match args.modality {
                SearchIn::Images => Modality::Image,
                SearchIn::Captions => Modality::Text,
            };
            let options =
                SearchOptions { n: args.n, rows: args.filter.rows.clone(), allowed: allowed.as_ref() };
            let found = set.search_with(modality, query.as_slice(), &options)?;
            let hits = found.hits.into_iter().next().unwrap_or_default();
            let rows = hits.into_iter().map(|hit| {
                let (caption, image_path) =
                    (memory.caption(hit.id)?.to_owned(), memory.image_path(hit.id)?.to_owned());
                Ok(Row { id: hit.id, similarity: hit.similarity, caption, image_path })
            });
            rows.collect::<Result<Vec<_>>>()?
        }
        (None, Some(index)) => {
            if args.modality == SearchIn::Captions || args.filter.rows.is_some() {
                let message = "a remote index is searched by its images and without a range of ids: --in captions and --rows need a memory on this machine";
                return Err(CliError::Usage(message.to_owned()));
            }
            (&model as &dyn Encoder).check_remote(index)?;
            let query = encode(&model, &args.query)?;
            let answer = index.nearest_images(query.as_slice(), query.dim(), args.n)?.into_iter().next();
            let answer = answer.unwrap_or_default();
            if let Some(note) = &answer.note {
                tell!("{note}");
            }
            let rows = answer.pairs.into_iter().map(|n| Row {
                id: n.id,
                similarity: n.similarity,
                caption: n.caption,
                image_path: n.image_path,
            });
            rows.collect()
        }
        (None, None) => Vec::new(),
    };
    tell_damaged_codes(&pairs);
    if rows.len() < args.n {
        tell!("{} pairs, fewer than the {} asked for: no more match", rows.len(), args.n);
    }
    show(&rows, args.format)
}

fn encode(model: &NamedModel, query: &QueryArgs) -> Result<Embeddings> {
    match (&query.image, &query.text) {
        (Some(image), _) => {
            let mut encoded = encode_files(model, std::slice::from_ref(image), &mut |_| {})?;
            tell_partly_seen_queries(encoded.partly_seen, model);
            match encoded.failed.pop() {
                Some((_, error)) => Err(error.into()),
                None => Ok(encoded.embeddings),
            }
        }
        (None, text) => Ok(model.encode_texts(&[text.as_deref().unwrap_or_default()])?.embeddings),
    }
}

fn show(rows: &[Row], format: Format) -> Result<()> {
    match format {
        Format::Json => print_json(&rows),
        Format::Jsonl => rows.iter().try_for_each(print_json_line),
        Format::Csv => {
            let mut csv = CsvOutput::new();
            csv.row(["id", "similarity", "caption", "image_path"])?;
            for row in rows {
                let (id, similarity) = (row.id.to_string(), row.similarity.to_string());
                csv.row([&id, &similarity, &row.caption, &row.image_path])?;
            }
            csv.flush()
        }
        Format::Table => {
            let mut table = table(&["id", "similarity", "caption", "image"], &["id", "similarity"]);
            for row in rows {
                let (id, similarity) = (row.id.to_string(), format!("{:.3}", row.similarity));
                add_row(&mut table, [&id, &similarity, &row.caption, &row.image_path]);
            }
            print(&trimmed(&table))
        }
    }
}

//! `xmore serve`: the HTTP API and the web page.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;
use xmore::{Encoder, NamedModel, OpenPairs};
use xmore_memory::retriever::Location;
use xmore_server::{ApiKey, Limits, PairsSource, ServeOptions, ServedModels};

use crate::error::{CliError, Result};
use crate::flags::calibration::CalibrationArgs;
use crate::flags::effect::{Given, NoEffect};
use crate::flags::model::QueryModelChoice;
use crate::flags::retrieval::RetrievalArgs;
use crate::flags::values::{nonzero, nonzero_u64};
use crate::messages::images::tell_other_orientation;
use crate::messages::pairs::{tell_gpu, tell_if_unreachable};
use crate::messages::tell;

/// Serve an HTTP API and a web page over a model and a memory
///
/// The page is at /, the API's description at /docs. clip-retrieval's clients find its back end here too: /knn-service, /metadata,
/// /indices-list. SIGTERM or Ctrl-C ends the server when all requests that were taken are answered; SIGHUP opens a memory that has
/// grown again.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    retrieval: RetrievalArgs,
    #[command(flatten)]
    model: QueryModelChoice,
    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        default_value_t = ServeOptions::default().addr,
        env = "XMORE_ADDR",
        help_heading = "Access"
    )]
    addr: SocketAddr,
    /// Key that callers must send; several are allowed, separated by commas
    ///
    /// As `Authorization: Bearer KEY`, as `X-Api-Key: KEY`, or as the password in a URL. Better given as XMORE_API_KEY: other users of this
    /// machine can read command lines.
    #[arg(
        long,
        value_name = "KEY",
        value_delimiter = ',',
        env = "XMORE_API_KEY",
        hide_env_values = true,
        help_heading = "Access"
    )]
    api_key: Vec<ApiKey>,
    /// Serve other machines without a key
    #[arg(long, env = "XMORE_ALLOW_REMOTE", help_heading = "Access")]
    allow_remote: bool,
    /// Origin whose pages may ask, such as `https://example.org`, or * for any (CORS)
    #[arg(
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        env = "XMORE_ALLOW_ORIGIN",
        help_heading = "Access"
    )]
    allow_origin: Vec<String>,
    /// Name by which a server on loopback may be asked, beside localhost: behind a proxy
    #[arg(
        long,
        value_name = "HOST",
        value_delimiter = ',',
        env = "XMORE_ALLOW_HOST",
        help_heading = "Access"
    )]
    allow_host: Vec<String>,
    /// Fetch images from URLs that callers name, from the public internet only
    #[arg(long, env = "XMORE_FETCH_URLS", help_heading = "Access")]
    fetch_urls: bool,
    /// Folder of label sets: NAME.txt, .csv, .tsv, .json or .jsonl, in any form that --labels-file of classify takes
    #[arg(long, value_name = "DIR", env = "XMORE_LABEL_SETS")]
    label_sets: Option<PathBuf>,
    /// Let callers save and remove label sets there
    #[arg(long, env = "XMORE_SAVE_LABEL_SETS", requires = "label_sets")]
    save_label_sets: bool,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// What is told on standard error: off, error, warn, info, or debug, which tells of each request
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "XMORE_LOG_LEVEL")]
    log_level: LevelFilter,
    /// Form of what is told
    #[arg(long, value_enum, default_value_t, env = "XMORE_LOG_FORMAT")]
    log_format: LogFormat,
}

impl ServeArgs {
    const NO_EFFECT: &[NoEffect<Self>] = &[NoEffect {
        flags: &[&["decode"]],
        when: |_| true,
        because: "on a server: the processor decodes images as they come",
    }];

    /// That no flag is given that would have no effect.
    pub(crate) fn check(&self, given: &Given) -> Result<()> {
        given.check(Self::NO_EFFECT, self)?;
        self.retrieval.check(given)
    }
}

/// How much is taken.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Images or texts that one pass of the encoder takes
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().max_batch, env = "XMORE_MAX_BATCH")]
    max_batch: NonZeroUsize,
    /// Images or texts that may wait for the next pass; past it the answer is 429
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().queue, env = "XMORE_QUEUE")]
    queue: usize,
    /// MiB of one request
    #[arg(long, value_name = "MIB", default_value_t = LimitArgs::default().max_body, env = "XMORE_MAX_BODY")]
    max_body: NonZeroUsize,
    /// MiB of all requests that are being received or answered
    #[arg(long, value_name = "MIB", default_value_t = LimitArgs::default().max_buffered, env = "XMORE_MAX_BUFFERED")]
    max_buffered: NonZeroUsize,
    /// Megapixels of one image
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = LimitArgs::default().max_pixels, env = "XMORE_MAX_PIXELS")]
    max_pixels: NonZeroU64,
    /// Labels of one request
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().max_labels, env = "XMORE_MAX_LABELS")]
    max_labels: usize,
    /// Labels times prompts of one request
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().max_prompts, env = "XMORE_MAX_PROMPTS")]
    max_prompts: usize,
    /// Images or texts of one request
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().max_inputs, env = "XMORE_MAX_INPUTS")]
    max_inputs: NonZeroUsize,
    /// KiB of one text, label or prompt
    #[arg(long, value_name = "KIB", default_value_t = LimitArgs::default().max_text, env = "XMORE_MAX_TEXT")]
    max_text: NonZeroUsize,
    /// MiB of label embeddings that are kept
    #[arg(long, value_name = "MIB", default_value_t = LimitArgs::default().label_cache, env = "XMORE_LABEL_CACHE")]
    label_cache: usize,
    /// Connections at the same time; where more come, those without a request are closed first
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().max_connections, env = "XMORE_MAX_CONNECTIONS")]
    max_connections: NonZeroUsize,
    /// Connections from one address; behind a reverse proxy, all come from the proxy's
    #[arg(long, value_name = "N", default_value_t = LimitArgs::default().max_connections_per_address, env = "XMORE_MAX_CONNECTIONS_PER_ADDRESS")]
    max_connections_per_address: NonZeroUsize,
    /// Seconds from a received request to its answer
    #[arg(long, value_name = "SECONDS", default_value_t = LimitArgs::default().timeout, env = "XMORE_TIMEOUT")]
    timeout: NonZeroU64,
    /// Seconds that a request's head or body may take to arrive
    #[arg(long, value_name = "SECONDS", default_value_t = LimitArgs::default().receive_timeout, env = "XMORE_RECEIVE_TIMEOUT")]
    receive_timeout: NonZeroU64,
    /// Seconds that a stop waits for answers
    #[arg(long, value_name = "SECONDS", default_value_t = LimitArgs::default().drain_timeout, env = "XMORE_DRAIN_TIMEOUT")]
    drain_timeout: NonZeroU64,
}

impl Default for LimitArgs {
    /// The server's own limits in the units of the flags.
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_batch: nonzero(limits.max_batch),
            queue: limits.queue,
            max_body: nonzero(limits.body_bytes >> 20),
            max_buffered: nonzero(limits.buffered_bytes >> 20),
            max_pixels: nonzero_u64(limits.pixels / 1_000_000),
            max_labels: limits.labels,
            max_prompts: limits.prompts,
            max_inputs: nonzero(limits.inputs),
            max_text: nonzero(limits.text_bytes >> 10),
            label_cache: limits.label_cache_bytes >> 20,
            max_connections: nonzero(limits.connections),
            max_connections_per_address: nonzero(limits.connections_per_address),
            timeout: nonzero_u64(limits.timeout.as_secs()),
            receive_timeout: nonzero_u64(limits.receive_timeout.as_secs()),
            drain_timeout: nonzero_u64(limits.drain.as_secs()),
        }
    }
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.max_batch = self.max_batch.get();
        limits.queue = self.queue;
        limits.body_bytes = self.max_body.get() << 20;
        limits.buffered_bytes = self.max_buffered.get() << 20;
        limits.pixels = self.max_pixels.get().saturating_mul(1_000_000);
        limits.labels = self.max_labels;
        limits.prompts = self.max_prompts;
        limits.inputs = self.max_inputs.get();
        limits.text_bytes = self.max_text.get() << 10;
        limits.label_cache_bytes = self.label_cache << 20;
        limits.connections = self.max_connections.get();
        limits.connections_per_address = self.max_connections_per_address.get();
        limits.timeout = Duration::from_secs(self.timeout.get());
        limits.receive_timeout = Duration::from_secs(self.receive_timeout.get());
        limits.drain = Duration::from_secs(self.drain_timeout.get());
        limits
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    if args.retrieval.k.0.len() != 1 {
        return Err(CliError::Usage(
            "serve takes one number of captions with -k; requests may set another".to_owned(),
        ));
    }
    let options = options(args);
    options.check()?;
    log(args);
    let (models, pairs) = served(args)?;
    let what = match (&models.pairs, models.classify.identity()) {
        (Some(pairs), model) => format!("model {model}, memory {}", Location::shown(&pairs.location)),
        (None, model) => format!("model {model}, no memory: zero-shot only"),
    };
    xmore_server::run(models, pairs, options, |addr| {
        tell!("listening on http://{addr} ({what})");
    })?;
    Ok(())
}

fn options(args: &ServeArgs) -> ServeOptions {
    let mut options = ServeOptions::default();
    options.addr = args.addr;
    options.api_keys.clone_from(&args.api_key);
    options.allow_remote = args.allow_remote;
    options.origins.clone_from(&args.allow_origin);
    options.hosts.clone_from(&args.allow_host);
    options.label_sets.clone_from(&args.label_sets);
    options.save_label_sets = args.save_label_sets;
    options.fetch_urls = args.fetch_urls;
    options.limits = args.limits.limits();
    options
}

/// Opens the pairs, which tell their model, and the models.
fn served(args: &ServeArgs) -> Result<(ServedModels, Option<Arc<OpenPairs>>)> {
    let flags = &args.retrieval;
    flags.options().check()?;
    let source = flags.memory.clone().map(|location| PairsSource {
        location,
        remote: flags.remote.options(),
        device: args.model.encoder.device,
        caption_filter: flags.filter.caption_filter.clone(),
        rows: flags.filter.rows.clone(),
        if_unreachable: flags.if_unreachable.into(),
    });
    let pairs = source.as_ref().map(PairsSource::open).transpose()?.and_then(tell_if_unreachable);
    if let Some(pairs) = pairs.as_deref() {
        tell_gpu(pairs);
    }
    let model = args.model.decoding_by_cpu();
    let classify = model.open_for(pairs.as_deref().and_then(OpenPairs::identity))?;
    tell_other_orientation(&classify, pairs.as_deref());
    let encoder = |model: NamedModel| Arc::new(model) as Arc<dyn Encoder>;
    let models = ServedModels {
        classify: Arc::new(classify),
        search: model.open_other(&flags.search_model, source.is_some())?.map(encoder),
        rerank: model.open_other(&flags.rerank_model, source.is_some())?.map(encoder),
        pairs: source,
        retrieval: flags.options(),
        templates: flags.templates()?,
        caption_template: flags.caption_template.clone(),
        calibration: args.calibration.read()?,
    };
    Ok((models, pairs))
}

fn log(args: &ServeArgs) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(args.log_level);
    // Only once for a process, and nothing has logged before.
    let _ = match args.log_format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

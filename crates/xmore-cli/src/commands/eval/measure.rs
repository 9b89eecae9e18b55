//! Measuring one dataset after another with the same model and memory.

use serde_json::{Value, json};
use xmore::{
    Calibration, Classifier, LabelFile, Method, MethodCalibration, RetrievalError, Template, XmoreError,
};
use xmore_eval::{
    CoopContext, Dataset, DatasetFormat, EmbeddedDataset, EmbeddingCache, EvalError, EvalMethod, EvalOptions,
    EvalReport, OtherPrompts, Variant, evaluate,
};
use xmore_files::{Exclude, escape_for_terminal, path_to_text, read_input};
use xmore_memory::retriever::Location;

use super::args::{EvalArgs, Wanted, WantedVariant};
use super::calibrate;
use super::encode::encode_dataset;
use super::entry::Entry;
use super::results::Fresh;
use super::sections::memory_warning;
use super::targets::Target;
use crate::error::{CliError, Result};
use crate::fallback::{is_tolerated, prepare_kernel};
use crate::flags::retrieval::SAME_IMAGE;
use crate::messages::images::tell_partly_seen_queries;
use crate::messages::{counted, labels, tell};
use crate::progress::{bar, bar_from};
use crate::setup::Setup;

/// Most bytes of prompts that are read.
const MAX_PROMPTS_BYTES: u64 = 16 << 20;
/// Sub-folders without images that are named; the rest are counted.
const SHOWN_CLASSES: usize = 10;

/// Model, memory and choices, for all datasets.
pub(super) struct Session<'a> {
    args: &'a EvalArgs,
    setup: &'a Setup,
    cache: EmbeddingCache,
    coop: Option<CoopContext>,
    prompts: Vec<Template>,
    settings: Value,
    calibration: Option<Calibration>,
}

/// A dataset that is ready to be measured.
pub(super) struct Prepared {
    dataset: Dataset,
    methods: Vec<EvalMethod>,
    calibrations: Vec<MethodCalibration>,
}

impl<'a> Session<'a> {
    pub(super) fn new(args: &'a EvalArgs, setup: &'a Setup) -> Result<Self> {
        for wanted in &args.methods {
            if let Wanted::One(method) = wanted
                && method.needs_memory()
                && args.retrieval.memory.is_none()
            {
                return Err(XmoreError::MethodNeedsMemory { method: method.name() }.into());
            }
        }
        let cache = match (&args.cache_dir, args.no_cache) {
            (_, true) => EmbeddingCache::none(),
            (Some(dir), false) => EmbeddingCache::at(dir),
            (None, false) => EmbeddingCache::on_disk()?,
        };
        let prompts = match &args.prompts {
            Some(path) => templates(path)?,
            None => Vec::new(),
        };
        if let Some(path) = &args.class_names {
            labels::tell_notes(path, &LabelFile::read(path, None)?);
        }
        let coop = args.coop.as_deref().map(CoopContext::read).transpose()?;
        if let Some(coop) = &coop {
            coop.check(&setup.model)?;
        }
        let remote = setup.pipeline.pairs().filter(|pairs| pairs.remote().is_some());
        if let (Some(index), true) = (remote, args.variants.contains(&WantedVariant::ImageToText)) {
            let location = index.location().into_owned();
            return Err(XmoreError::from(RetrievalError::RemoteRanking { location }).into());
        }
        let method = &args.retrieval;
        let settings = json!({
            "model": setup.model.fingerprint(),
            "orientation": setup.model.preprocess().orientation(),
            "memory": method.memory.as_deref().map(Location::shown),
            "pairs": setup.pipeline.pairs().and_then(|pairs| pairs.count()),
            "k": method.k.0,
            "neighbors": method.neighbors,
            "templates": method.templates,
            "search_model": method.search_model,
            "rerank_model": method.rerank_model,
            "drop_query_duplicates": method.options().query_duplicates_above,
            "deduplicate": method.options().near_duplicates_above,
            "caption_filter": method.filter.caption_filter.as_ref().map(|regex| regex.as_str()),
            "rows": method.filter.rows.as_ref().map(|rows| [rows.start, rows.end]),
            "methods": args.methods.iter().map(|wanted| match wanted {
                Wanted::All => "all",
                Wanted::One(method) => method.name(),
            }).collect::<Vec<_>>(),
            "variants": args.variants.iter().map(|variant| format!("{variant:?}")).collect::<Vec<_>>(),
            "prompts": args.prompts.as_deref().map(path_to_text),
            "coop": args.coop.as_deref().map(path_to_text),
            "seeds": args.seeds,
            "seed": args.seed,
            "bootstrap": args.bootstrap,
            "abstain_below": args.abstain_below,
            "split": args.split,
        });
        // Only where they are given: results from before these flags were there stay comparable.
        let mut settings = settings;
        if let Some(template) = method.caption_template.as_ref().filter(|template| !template.is_bare()) {
            settings["caption_template"] = template.to_string().into();
        }
        if args.dataset_format != DatasetFormat::Auto {
            settings["dataset_format"] = args.dataset_format.to_string().into();
        }
        if let Some(root) = &args.image_root {
            settings["image_root"] = path_to_text(root).into();
        }
        for (key, column) in [("image_column", &args.image_column), ("label_column", &args.label_column)] {
            if let Some(column) = column {
                settings[key] = column.as_str().into();
            }
        }
        if let Some(mode) = setup.model.preprocess().other_resize_mode() {
            settings["resize_mode"] = mode.name().into();
        }
        if args.folders.include_hidden {
            settings["include_hidden"] = true.into();
        }
        if !args.folders.exclude.is_empty() {
            settings["exclude"] = args.folders.exclude.iter().map(Exclude::as_str).collect();
        }
        if let Some(path) = &args.class_names {
            settings["class_names"] = json!(path);
        }
        let calibration = args.calibration.as_deref().map(Calibration::read).transpose()?;
        if let Some(calibration) = &calibration {
            let of = |fitted: &MethodCalibration| {
                let min_score = fitted.threshold.map(|threshold| threshold.min_score);
                json!({"method": fitted.method.name(), "temperature": fitted.temperature, "min_score": min_score})
            };
            settings["calibration"] = calibration.methods().iter().map(of).collect();
        }
        Ok(Self { args, setup, cache, coop, prompts, settings, calibration })
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        self.setup.model.name()
    }

    /// All that the results depend on, besides the dataset.
    pub(super) fn settings(&self) -> &Value {
        &self.settings
    }

    /// The results as they are written.
    pub(super) fn entries(&self, report: &EvalReport) -> Vec<Entry> {
        Entry::of(report, self.model(), &self.settings)
    }

    /// Lists a dataset's images, and finds out what is to be measured on it.
    pub(super) fn prepare(&self, target: &Target) -> Result<Prepared> {
        let dataset = target.read()?;
        for note in &dataset.notes {
            tell!("{}: {note}", dataset.name);
        }
        if let Some(first) = dataset.skipped.first() {
            tell!("{}: {} left out of the list, such as {first}", dataset.name, dataset.skipped.len());
        }
        tell_if_numbers(&dataset);
        let methods = self.methods(&dataset)?;
        if self.args.fit.is_some() {
            calibrate::check_methods(&methods, &dataset)?;
        }
        let calibrations = match &self.calibration {
            Some(calibration) => calibrate::of_methods(self.args, self.setup, calibration, &methods)?,
            None => Vec::new(),
        };
        if let Some(warning) = calibrations.iter().find_map(|fitted| fitted.label_warning(&dataset.labels)) {
            tell!("warning: {warning}");
        }
        Ok(Prepared { dataset, methods, calibrations })
    }

    /// Encodes a dataset's images, unless they are kept from before, and measures every method.
    pub(super) fn measure(&self, prepared: Prepared) -> Result<(EvalReport, Fresh)> {
        let Prepared { dataset, methods, calibrations } = prepared;
        let progress = bar(dataset.images.len() as u64, "images");
        // In parallel, so that both towers load at the same time.
        let (encoded, embedded) = rayon::join(
            || {
                encode_dataset(&self.setup.pipeline, &self.cache, &dataset, &mut |done| {
                    progress.set_position(done as u64);
                })
            },
            || self.classifier(&dataset, &methods),
        );
        progress.finish_and_clear();
        let ((queries, images), (classifier, prompts)) = (encoded?, embedded?);
        let damaged = self.cache.take_damaged();
        if let Some(first) = damaged.first() {
            let (count, first) = (damaged.len(), first.display());
            let were =
                if count == 1 { "file of kept embeddings was" } else { "files of kept embeddings were" };
            tell!("{count} {were} damaged and made again, the first {first}");
        }
        for (_, error) in images.failed.iter().take(10) {
            tell!("counted as wrong: {error}");
        }
        if images.failed.len() > 10 {
            tell!("counted as wrong: {} more that could not be read", images.failed.len() - 10);
        }
        tell_partly_seen_queries(images.partly_seen, &self.setup.model);
        let kept = dataset.images.len() - images.encoded;
        if kept > 0 {
            tell!("{}: {kept} of {} embeddings kept from before", dataset.name, dataset.images.len());
        }
        let options = EvalOptions {
            variants: self.variants(&methods),
            methods,
            k: self.args.retrieval.k.main(),
            sweep: self.args.retrieval.k.0.clone(),
            orders: self.args.seeds,
            seed: self.args.seed,
            samples: self.args.bootstrap,
            abstain_below: self.args.abstain_below,
            keep_samples: self.args.fit.is_some(),
            calibrations,
            ..EvalOptions::default()
        };
        let data = EmbeddedDataset { dataset: &dataset, queries, kept: images.kept };
        let steps = bar_from(0, 0, "evaluated");
        let mut tell = |done: usize, total: usize| {
            steps.set_length(total as u64);
            steps.set_position(done as u64);
        };
        let measured = match evaluate(&data, &classifier, &prompts, &options, &mut tell) {
            Err(EvalError::Xmore(error)) if is_tolerated(&self.setup.pipeline, &error) => {
                let (classifier, prompts) = (classifier.with_retrieval(None), prompts.with_retrieval(None));
                evaluate(&data, &classifier, &prompts, &options, &mut tell)
            }
            other => other,
        };
        steps.finish_and_clear();
        let (report, details) = measured?;
        for note in report.notes.iter().cloned().chain(memory_warning(&report)) {
            tell!("{note}");
        }
        if !dataset.empty_classes.is_empty() {
            tell!("{}: {}", dataset.name, without_images(&dataset.empty_classes));
        }
        if !dataset.left_out.is_empty() {
            tell!("{}: {}", dataset.name, dataset.left_out);
        }
        Ok((report, Fresh { dataset, details }))
    }

    /// The methods asked for; of all those that are possible here.
    fn methods(&self, dataset: &Dataset) -> Result<Vec<EvalMethod>> {
        let possible = |method: &EvalMethod| match method {
            EvalMethod::DatasetPrompts => !self.dataset_prompts(dataset).is_empty(),
            method if method.needs_coop() && self.coop.is_none() => false,
            EvalMethod::Each(Method::Kernel) => self.setup.pipeline.allows(Method::Kernel),
            method => !method.needs_memory() || self.args.retrieval.memory.is_some(),
        };
        if self.args.methods.is_empty() {
            return Ok(EvalMethod::all()
                .filter(possible)
                .filter(|method| !method.depends_on_order())
                .collect());
        }
        let mut methods = Vec::new();
        for wanted in &self.args.methods {
            match wanted {
                Wanted::All => methods.extend(EvalMethod::all().filter(possible)),
                Wanted::One(method) => methods.push(*method),
            }
        }
        let without_prompts = |method: &&EvalMethod| {
            (method.needs_coop() || **method == EvalMethod::DatasetPrompts) && !possible(method)
        };
        if let Some(method) = methods.iter().find(without_prompts) {
            let (method, dataset) = (method.name(), Some(dataset.name.clone()));
            return Err(EvalError::PromptsNotSetUp { method, dataset }.into());
        }
        if let (Some(retrieval), true) =
            (self.setup.pipeline.retrieval(), methods.contains(&EvalMethod::Each(Method::Kernel)))
        {
            retrieval.check_kernel()?;
        }
        let mut seen = std::collections::HashSet::new();
        methods.retain(|method| seen.insert(*method));
        Ok(methods)
    }

    /// The prompts given, else the dataset's own.
    fn dataset_prompts<'b>(&'b self, dataset: &'b Dataset) -> &'b [Template] {
        if self.prompts.is_empty() { &dataset.prompts } else { &self.prompts }
    }

    fn classifier(&self, dataset: &Dataset, methods: &[EvalMethod]) -> Result<(Classifier, OtherPrompts)> {
        let (model, names) = (&*self.setup.model, &dataset.labels);
        let retrieval = self.setup.pipeline.retrieval().cloned();
        let templates = self.args.retrieval.templates()?;
        let with_templates_method = methods.contains(&EvalMethod::Each(Method::Templates));
        labels::tell_own_prompts(names, &templates, with_templates_method);
        labels::tell_warnings(&names.warnings(model, &templates)?);
        let embed = |templates: &[Template]| self.cache.labels(model, names, templates);
        let own = embed(&templates)?;
        let templates = match (with_templates_method, templates.len()) {
            (false, _) => None,
            (true, 1) => Some(embed(&Template::imagenet())?),
            (true, _) => Some(own.clone()),
        };
        let dataset_prompts = self.dataset_prompts(dataset);
        let prompts = OtherPrompts {
            dataset: match methods.contains(&EvalMethod::DatasetPrompts) && !dataset_prompts.is_empty() {
                true => Some(embed(dataset_prompts)?),
                false => None,
            },
            coop: match &self.coop {
                Some(coop) if methods.iter().any(|method| method.needs_coop()) => {
                    let prompts = coop.embed(model, names)?;
                    Some(Classifier::from_embeddings(model, names.clone(), prompts, None, retrieval.clone()))
                }
                _ => None,
            },
        };
        let mut classifier = Classifier::from_embeddings(model, names.clone(), own, templates, retrieval);
        if methods.contains(&EvalMethod::Each(Method::Kernel)) {
            classifier = prepare_kernel(&self.setup.pipeline, classifier.with_open_gate())?;
        }
        Ok((classifier, prompts))
    }

    fn searches_remote_index(&self) -> bool {
        self.setup.pipeline.pairs().is_some_and(|pairs| pairs.remote().is_some())
    }

    /// The variants asked for, and one that keeps the queries' near-duplicates if the flags drop them, or drops them if the flags keep them; a
    /// remote index is searched only once.
    fn variants(&self, methods: &[EvalMethod]) -> Vec<Variant> {
        if !methods.iter().any(|method| method.needs_memory()) {
            return Vec::new();
        }
        let asked = self.args.variants.iter().map(|variant| match variant {
            WantedVariant::Unsorted => Variant::Unsorted,
            WantedVariant::ImageToText => Variant::ImageToText,
        });
        let leakage = match self.args.retrieval.options().query_duplicates_above {
            Some(_) => Some(Variant::WithQueryDuplicates),
            None if self.searches_remote_index() => None,
            None => Some(Variant::WithoutQueryDuplicates(SAME_IMAGE)),
        };
        leakage.into_iter().chain(asked).collect()
    }
}

/// Warns of labels that say nothing to a text encoder.
fn tell_if_numbers(dataset: &Dataset) {
    let names = dataset.labels.names();
    let is_number = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if names.iter().all(is_number) {
        tell!(
            "warning: {}: all {} labels are numbers, such as {}, which say nothing of the images; --class-names FILE names them",
            dataset.name,
            names.len(),
            names.first().map_or("", String::as_str)
        );
    }
}

fn without_images(folders: &[String]) -> String {
    let shown: Vec<_> = folders.iter().take(SHOWN_CLASSES).map(|name| escape_for_terminal(name)).collect();
    let more = match folders.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let count = counted(folders.len() as u64, "folder");
    format!("{count} without images, so no class: {}{more}", shown.join(", "))
}

fn templates(path: &std::path::Path) -> Result<Vec<Template>> {
    let io = |reason| CliError::Io { action: "read", path: path.to_owned(), reason };
    let bytes = read_input(path, MAX_PROMPTS_BYTES).map_err(io)?;
    let text =
        String::from_utf8(bytes).map_err(|e| io(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let templates: Vec<Template> = lines.map(Template::new).collect::<Result<_, XmoreError>>()?;
    if templates.is_empty() {
        return Err(CliError::Usage(format!("{}: holds no prompt", path.display())));
    }
    Ok(templates)
}

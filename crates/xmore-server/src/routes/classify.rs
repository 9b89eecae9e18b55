//! `POST /v1/classify`: labels for images, and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xmore::{
    Answer, AnswerOptions, LabelList, Labels, Method, MethodCalibration, RetrievalOptions, Scores, Template,
    XmoreError,
};

use super::queries::{answer, check_text, inputs, one_or_many};
use super::{Item, Timings};
use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::app::{App, Shared};
use crate::batcher::{Done, LabelSpec, Output, Task};
use crate::input::{Call, ImageInput, LabelsSchema, Parameters, encode_values};
use crate::options::Limits;
use crate::snapshot::Snapshot;

/// Most pairs that one request may look at.
const MAX_NEIGHBORS: usize = 4_096;

/// Most labels of all images together in an explained answer: some 10 MB.
const MAX_EXPLAINED: usize = 100_000;

/// Images and how to classify them.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ClassifyRequest)]
pub(crate) struct ClassifyBody {
    /// One image.
    #[serde(default)]
    image: Option<ImageInput>,
    /// Several images.
    #[serde(default, deserialize_with = "crate::input::list")]
    images: Option<Vec<ImageInput>>,
    /// At least two different labels, some or all with prompts or synonyms of their own.
    #[serde(default)]
    #[schema(value_type = Option<LabelsSchema>)]
    pub(crate) labels: Option<LabelList>,
    /// A saved label set instead.
    #[serde(default)]
    label_set: Option<String>,
    /// How the answer is made: zero-shot, templates, captions, equal, xmore or xmore-kernel; the default is in /v1/info.
    #[serde(default)]
    pub(crate) method: Option<String>,
    /// What scores are: softmax, the default, one distribution over the labels; or sigmoid, each label's probability by itself, with models that were
    /// trained so (SigLIP's) and the methods zero-shot and templates.
    #[serde(default)]
    scores: Option<String>,
    /// Captions kept for each image (K).
    #[serde(default)]
    #[schema(minimum = 1)]
    pub(crate) k: Option<usize>,
    /// Nearest pairs among which the captions are chosen; at least k.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 4096)]
    neighbors: Option<usize>,
    /// Prompts with `{}` where the label goes; several are averaged. A label's own prompts are used instead.
    #[serde(default, deserialize_with = "crate::input::list")]
    pub(crate) templates: Option<Vec<String>>,
    /// Labels in the answer, best first.
    #[serde(default)]
    #[schema(minimum = 1)]
    top: Option<usize>,
    /// Least score of the best label to be the answer; below it `label` is null. Softmax scores add up to 1, so one of them is high
    /// even if the image shows none of the labels; see `min_similarity`.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_score: Option<f64>,
    /// Least similarity of the image and the best label for it to be the answer; below it `label` is null. The cosine of their
    /// embeddings, which no other label changes: with CLIP's models 0.2 to 0.3 is a good match, other models have other ranges.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 1)]
    pub(crate) min_similarity: Option<f32>,
    /// Also answer with both modalities' distributions and the captions.
    #[serde(default)]
    pub(crate) explain: bool,
    /// Also answer with the image's embedding, which can be sent instead of the image the next time.
    #[serde(default)]
    return_embedding: bool,
}

impl Parameters for ClassifyBody {
    const LISTS: &'static [(&'static str, bool)] = &[("labels", true), ("templates", false)];
    const NUMBERS: &'static [&'static str] = &["k", "neighbors", "top"];
    const DECIMALS: &'static [&'static str] = &["min_score", "min_similarity"];
    const FLAGS: &'static [&'static str] = &["explain", "return_embedding"];
    const STRINGS: &'static [&'static str] = &["label_set", "method", "scores"];

    fn images(&mut self) -> Vec<ImageInput> {
        one_or_many(&mut self.image, &mut self.images)
    }
}

/// Answers to all images.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClassifyResponse {
    /// The classifying model.
    model: String,
    /// How the answers were made.
    method: &'static str,
    /// Captions that were to be kept.
    k: usize,
    /// The labels, in the order given.
    labels: Vec<String>,
    /// What the model cannot make of the labels: those that it cannot tell apart, does not know, or cuts.
    warnings: Vec<String>,
    /// Which opening of the memory was asked.
    generation: u64,
    /// Whether scores are calibrated, where the server has a calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<CalibrationUse>,
    /// One for each image, in the order given.
    results: Vec<Item<Classified>>,
    /// How long it took.
    timings_ms: Timings,
}

/// What a request's scores are calibrated with, or why they are not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CalibrationUse {
    /// Whether the scores are calibrated; an image's own `calibrated` is false where the method found no captions for it.
    applied: bool,
    /// The temperature; null where they are not.
    temperature: Option<f64>,
    /// Least score of the best label to be the answer, unless the request has `min_score`; null where none was fitted.
    min_score: Option<f64>,
    /// Why they are not calibrated, or what speaks against it.
    note: Option<String>,
}

impl CalibrationUse {
    fn of(fitted: &Result<&MethodCalibration, XmoreError>, scores: Scores, labels: &Labels) -> Self {
        let unused = |note| Self { applied: false, temperature: None, min_score: None, note: Some(note) };
        match (fitted, scores) {
            (_, Scores::Sigmoid) => unused("a calibration is of softmax scores".to_owned()),
            (Ok(fitted), Scores::Softmax) => Self {
                applied: true,
                temperature: Some(fitted.temperature),
                min_score: fitted.threshold.map(|threshold| threshold.min_score),
                note: fitted.label_warning(labels),
            },
            (Err(error), Scores::Softmax) => unused(error.to_string()),
        }
    }
}

/// One image's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Classified {
    #[serde(flatten)]
    answer: Answer,
    /// Little-endian f32 in base64: the unit embeddings by each model in use, one after another. Where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<String>,
}

/// Classify images, choosing between labels.
///
/// As JSON, as a form with files named `image`, or as an image's bytes with the parameters in the query string.
#[utoipa::path(post, path = "/v1/classify", tag = "xmore",
    request_body(content(
        (ClassifyBody = "application/json"), (super::ImageForm<ClassifyBody> = "multipart/form-data"), (super::ImageBytes = "image/*"),
        (super::ImageBytes = "application/octet-stream"))),
    params(
        ("labels" = Option<String>, Query, description = "With an image as the body: labels between commas, or one each"),
        ("label_set" = Option<String>, Query), ("method" = Option<String>, Query), ("scores" = Option<String>, Query), ("k" = Option<usize>, Query),
        ("neighbors" = Option<usize>, Query), ("templates" = Option<String>, Query, description = "A prompt; may be repeated"),
        ("top" = Option<usize>, Query), ("min_score" = Option<f64>, Query), ("min_similarity" = Option<f32>, Query),
        ("explain" = Option<bool>, Query), ("return_embedding" = Option<bool>, Query)),
    responses((status = 200, body = ClassifyResponse), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn classify(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<ClassifyResponse>, ApiError> {
    let call = Call::<ClassifyBody>::receive(&app, request).await?;
    let (body, images, deadline) = (&call.parameters, call.images, call.deadline);
    if images.is_empty() {
        return Err(ApiError::invalid("no image: send `image` or `images`"));
    }
    let snapshot = app.batcher.snapshot();
    let method = match &body.method {
        Some(name) => name.parse::<Method>()?,
        None => default_method(&snapshot),
    };
    if method.needs_memory() && snapshot.pairs().is_none() {
        return Err(XmoreError::MethodNeedsMemory { method: method.name() }.into());
    }
    if method == Method::Kernel && !snapshot.allows_kernel() {
        return Err(ApiError::new(
            ErrorCode::NeedsMemory,
            "method xmore-kernel needs a memory with images by the classifying model; method xmore does not",
        ));
    }
    let scores = body.scores.as_deref().map_or(Ok(Scores::default()), str::parse)?;
    scores.check(&**snapshot.pipeline.encoder(), method)?;
    let options = retrieval(&app, body)?;
    let top = match body.top {
        Some(0) => return Err(ApiError::new(ErrorCode::InvalidParameter, "top is 0; at least 1 is needed")),
        top => top.unwrap_or(5),
    };
    check_range("min_score", body.min_score, 0.0)?;
    check_range("min_similarity", body.min_similarity.map(f64::from), -1.0)?;
    let templates = templates(&app, body)?;
    let spec = spec(&app, body, method, &templates)?;
    let labels = spec.labels.names().to_vec();
    if body.explain && images.len() * labels.len() > MAX_EXPLAINED {
        let message = format!(
            "{} images times {} labels; at most {MAX_EXPLAINED} are explained at once",
            images.len(),
            labels.len()
        );
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    let prepared = app.batcher.prepare(spec, call.caller, deadline).await?;
    // A remote index does not answer, and zero-shot answers are allowed.
    let method = match method {
        Method::Kernel if !prepared.classifier.is_kernel_prepared() => Method::ZeroShot,
        method => method,
    };
    let task = Task::Classify {
        classifier: prepared.classifier.clone(),
        snapshot: prepared.snapshot.clone(),
        options,
    };
    let (models, pipeline) = (&app.batcher.models, &prepared.snapshot.pipeline);
    let fitted = models.calibration_for(pipeline, method, &templates, options);
    let form = AnswerOptions {
        scores,
        top,
        explain: body.explain,
        min_score: body.min_score,
        min_similarity: body.min_similarity,
        ..AnswerOptions::new(method)
    };
    let form = match &fitted {
        Some(Ok(fitted)) => form.calibrated(fitted),
        _ => form,
    };
    let calibration =
        fitted.as_ref().map(|fitted| CalibrationUse::of(fitted, scores, prepared.classifier.labels()));
    let classified = |done: Done| -> Result<Classified, ApiError> {
        let Output::Evidence(evidence) = &done.output else {
            return Err(ApiError::internal(&"a classification without evidence"));
        };
        let embedding = body.return_embedding.then(|| encode_values(&done.embedding));
        let answer = Answer::new(evidence, prepared.classifier.labels(), &form)?;
        Ok(Classified { answer, embedding })
    };
    let inputs = inputs(&app, images, deadline).await;
    let (results, timings_ms) = answer(&app, inputs, &task, deadline, classified).await?;
    Ok(Json(ClassifyResponse {
        model: app.batcher.models.name().to_owned(),
        method: method.name(),
        k: options.k,
        labels,
        warnings: prepared.classifier.warnings().iter().map(ToString::to_string).collect(),
        generation: prepared.snapshot.generation,
        calibration,
        results,
        timings_ms,
    }))
}

/// The method where none is named: the best that is possible.
pub(crate) fn default_method(snapshot: &Snapshot) -> Method {
    match (snapshot.pairs(), snapshot.allows_kernel()) {
        (None, _) => Method::ZeroShot,
        (Some(_), true) => Method::Kernel,
        (Some(_), false) => Method::Xmore,
    }
}

fn retrieval(app: &App, body: &ClassifyBody) -> Result<RetrievalOptions, ApiError> {
    let defaults = app.batcher.models.retrieval;
    let k = body.k.unwrap_or(defaults.k);
    let neighbors = body.neighbors.unwrap_or_else(|| defaults.neighbors.max(k));
    if neighbors > MAX_NEIGHBORS {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!("{neighbors} neighbors for k = {k}; at most {MAX_NEIGHBORS} are looked at"),
        ));
    }
    let options = RetrievalOptions { k, neighbors, ..defaults };
    options.check()?;
    Ok(options)
}

/// Checks that a threshold is between `least` and 1.
fn check_range(name: &str, threshold: Option<f64>, least: f64) -> Result<(), ApiError> {
    match threshold.filter(|value| !(least..=1.0).contains(value)) {
        None => Ok(()),
        Some(value) => {
            let message = format!("{name} is {value}; expected {least} to 1");
            Err(ApiError::new(ErrorCode::InvalidParameter, message))
        }
    }
}

/// The request's prompts, else the server's.
fn templates(app: &App, body: &ClassifyBody) -> Result<Vec<Template>, ApiError> {
    match &body.templates {
        Some(templates) if templates.is_empty() => {
            Err(ApiError::new(ErrorCode::InvalidParameter, "templates is an empty list"))
        }
        Some(templates) => Ok(templates.iter().map(Template::new).collect::<Result<_, _>>()?),
        None => Ok(app.batcher.models.templates.clone()),
    }
}

/// Labels and prompts, checked.
fn spec(
    app: &App,
    body: &ClassifyBody,
    method: Method,
    templates: &[Template],
) -> Result<LabelSpec, ApiError> {
    let limits = &app.options.limits;
    let labels = match (&body.labels, &body.label_set) {
        (Some(labels), None) => {
            check_count(labels.0.len(), limits)?;
            Arc::new(Labels::with_prompts(labels.0.iter().cloned())?)
        }
        (None, Some(name)) => app.label_sets.read(name)?,
        _ => return Err(ApiError::invalid("give either `labels` or `label_set`")),
    };
    check_count(labels.names().len(), limits)?;
    match (method, templates.len()) {
        (Method::Templates, 1) => check_prompts(&labels, &Template::imagenet(), limits)?,
        _ => check_prompts(&labels, templates, limits)?,
    }
    let templates = templates.iter().map(ToString::to_string).collect();
    Ok(LabelSpec { labels, templates, kind: method.into() })
}

fn check_count(labels: usize, limits: &Limits) -> Result<(), ApiError> {
    if labels > limits.labels {
        let message = format!("{labels} labels; at most {} are taken", limits.labels);
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    Ok(())
}

/// There are not too many prompts, no text is longer than is read, nor are all prompts together longer than a request.
fn check_prompts(all: &Labels, templates: &[Template], limits: &Limits) -> Result<(), ApiError> {
    let (each, most) = (templates.len(), limits.prompts);
    let own: usize = all.own_prompts().iter().map(Vec::len).sum();
    let labels: Vec<&String> = all
        .names()
        .iter()
        .zip(all.own_prompts())
        .filter(|(_, own)| own.is_empty())
        .map(|(name, _)| name)
        .collect();
    if labels.len() * each + own > most {
        let message = format!(
            "{} labels times {each} prompts, and {own} of labels' own; at most {most} are encoded for one request",
            labels.len()
        );
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    for name in all.names().iter().chain(all.synonyms().iter().flatten()) {
        check_text(name, limits)?;
    }
    let mut bytes = 0usize;
    for (label, own) in all.own_prompts().iter().enumerate().filter(|(_, own)| !own.is_empty()) {
        // A prompt may contain the label many times.
        for prompt in own {
            check_text(prompt, limits)?;
        }
        for prompt in all.prompts(label, &[]) {
            check_text(&prompt, limits)?;
            bytes += prompt.len();
        }
    }
    let longest = labels.iter().max_by_key(|label| label.len()).map_or("", |label| label.as_str());
    let all_labels: usize = labels.iter().map(|label| label.len()).sum();
    for template in templates {
        check_text(&template.to_string(), limits)?;
        if template.prompt_len(longest.len()) > limits.text_bytes {
            let message = format!("a template with a label in it has more than {} bytes", limits.text_bytes);
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        let (text, places) = (template.prompt_len(0), template.prompt_len(1) - template.prompt_len(0));
        bytes += text * labels.len() + places * all_labels;
    }
    if bytes > limits.body_bytes {
        let message =
            format!("labels times templates are {bytes} bytes; at most {} are read", limits.body_bytes);
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    Ok(())
}

//! Saved label sets: list, read, save, remove.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xmore::{LabelList, Labels};

use crate::api_error::{ApiError, ErrorBody};
use crate::app::{App, Shared};
use crate::input::{LabelsSchema, from_json};

/// A label set in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedSet {
    name: String,
    /// How many labels it has.
    labels: usize,
}

/// All label sets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedSets {
    label_sets: Vec<ListedSet>,
}

/// A label set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LabelSet {
    name: String,
    labels: Vec<String>,
    /// The labels' own prompts, for those that have some.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    prompts: BTreeMap<String, Vec<String>>,
    /// The labels' further names, for those that have some.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    synonyms: BTreeMap<String, Vec<String>>,
}

impl LabelSet {
    fn new(name: String, labels: &Labels) -> Self {
        let by_label = |texts: &[Vec<String>]| {
            let all = labels.names().iter().cloned().zip(texts.iter().cloned());
            all.filter(|(_, texts)| !texts.is_empty()).collect()
        };
        let (prompts, synonyms) = (by_label(labels.own_prompts()), by_label(labels.synonyms()));
        Self { name, labels: labels.names().to_vec(), prompts, synonyms }
    }
}

/// A label set to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelSetBody {
    /// At least two different labels, some or all with prompts or synonyms of their own.
    #[schema(value_type = LabelsSchema)]
    labels: LabelList,
}

pub(crate) fn listed(app: &App) -> Result<Vec<ListedSet>, ApiError> {
    let sets = app.label_sets.list()?;
    Ok(sets.into_iter().map(|(name, labels)| ListedSet { name, labels }).collect())
}

/// List the saved label sets.
#[utoipa::path(get, path = "/v1/label-sets", tag = "label sets", responses((status = 200, body = ListedSets)))]
pub(crate) async fn list(State(app): State<Shared>) -> Result<Json<ListedSets>, ApiError> {
    Ok(Json(ListedSets { label_sets: listed(&app)? }))
}

/// Read a label set.
#[utoipa::path(get, path = "/v1/label-sets/{name}", tag = "label sets", params(("name" = String, Path)),
    responses((status = 200, body = LabelSet), (status = "4XX", body = ErrorBody)))]
pub(crate) async fn read(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<LabelSet>, ApiError> {
    let labels = app.label_sets.read(&name)?;
    Ok(Json(LabelSet::new(name, &labels)))
}

/// Save a label set, or replace it; where that is switched on.
#[utoipa::path(put, path = "/v1/label-sets/{name}", tag = "label sets", params(("name" = String, Path)),
    request_body = LabelSetBody,
    responses((status = 200, body = LabelSet), (status = "4XX", body = ErrorBody)))]
pub(crate) async fn save(
    State(app): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<LabelSet>, ApiError> {
    let (parts, body) = request.into_parts();
    let received = app.budget.receive(&parts, body, &app.options.limits).await?;
    let LabelSetBody { labels } = from_json(&received.bytes)?;
    let (of_set, sets) = (name.clone(), app.clone());
    let labels = app.files.run(app.deadline(), move || sets.label_sets.save(&of_set, labels)).await??;
    Ok(Json(LabelSet::new(name, &labels)))
}

/// Remove a label set; where that is switched on.
#[utoipa::path(delete, path = "/v1/label-sets/{name}", tag = "label sets", params(("name" = String, Path)),
    responses((status = 200, body = ListedSets), (status = "4XX", body = ErrorBody)))]
pub(crate) async fn remove(
    State(app): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<ListedSets>, ApiError> {
    let sets = app.clone();
    app.files.run(app.deadline(), move || sets.label_sets.remove(&name)).await??;
    Ok(Json(ListedSets { label_sets: listed(&app)? }))
}

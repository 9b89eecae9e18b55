//! The demo's result on standard output as JSON.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use xmore_files::path_to_text;

use super::findings::{Figures, Findings, SHOWN, Tally, tally};
use crate::error::Result;

/// All figures of the findings.
#[derive(Serialize)]
pub(super) struct Json<'a> {
    splits: usize,
    seed: u64,
    pairs: usize,
    labels: usize,
    /// Over all splits.
    queries: usize,
    skipped: &'a [String],
    model: &'a str,
    k: usize,
    neighbors: usize,
    methods: Figures,
    /// With memories without any pair whose caption is a query's.
    methods_without_own_captions: Option<Figures>,
    /// Queries whose very caption is in memory.
    queries_with_own_caption: usize,
    /// The method whose answers are compared with zero-shot's in `changed`.
    changed_by: &'static str,
    changed: Tally,
    k_sweep: Vec<BySize>,
    neighbor_sweep: Vec<BySize>,
    report: Cow<'a, str>,
}

/// Figures for one K, or for one number of neighbors.
#[derive(Serialize)]
struct BySize {
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbors: Option<usize>,
    methods: Figures,
}

impl<'a> Json<'a> {
    pub(super) fn of(findings: &'a Findings, report: &'a Path) -> Result<Self> {
        let of_k = |(k, methods)| BySize { k: Some(k), neighbors: None, methods };
        let of_neighbors = |(n, methods)| BySize { k: None, neighbors: Some(n), methods };
        Ok(Json {
            splits: findings.runs.len(),
            seed: findings.seed,
            pairs: findings.set.pairs.len(),
            labels: findings.set.labels.names().len(),
            queries: findings.queries(),
            skipped: &findings.set.skipped,
            model: &findings.model.name,
            k: findings.k,
            neighbors: findings.neighbors,
            methods: findings.figures(),
            methods_without_own_captions: findings.strict_figures(),
            queries_with_own_caption: findings.own_captions(),
            changed_by: SHOWN.name(),
            changed: tally(&findings.changes()?),
            k_sweep: findings.sweep().into_iter().map(of_k).collect(),
            neighbor_sweep: findings.neighbor_sweep().into_iter().map(of_neighbors).collect(),
            report: path_to_text(report),
        })
    }
}

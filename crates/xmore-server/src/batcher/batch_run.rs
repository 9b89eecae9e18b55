//! One batch of jobs: decoded, encoded, searched and classified together. A batch changes no bit of any answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use xmore::{Embeddings, Encoder, Pixels, RetrievalOptions, XmoreError};
use xmore_clip::ClipError;
use xmore_files::image::ImageError;

use super::job::{Done, Input, Job, Output, Task};
use super::large::LARGE;
use crate::api_error::ApiError;
use crate::served_models::ServedModels;
use crate::snapshot::Snapshot;
use crate::times::Times;

/// What a batch needs beside its jobs.
pub(super) struct BatchRun<'a> {
    pub(super) models: &'a ServedModels,
    /// Pixels of one image.
    pub(super) max_pixels: u64,
}

/// A job of the batch, with a row for each different encoder once it is encoded.
struct Running {
    job: Job,
    rows: Vec<Option<Vec<f32>>>,
    truncated: bool,
    failed: Option<ApiError>,
    /// Whether its image is for [`LargeImages`](super::large::LargeImages) to decode.
    is_large: bool,
    output: Option<Output>,
}

impl Running {
    /// Whether it has not failed and is answered in this batch.
    fn is_ready(&self) -> bool {
        self.failed.is_none() && !self.is_large
    }
}

impl BatchRun<'_> {
    /// Answers all jobs but those whose images are large; returns how long each stage took, and these.
    pub(super) fn run(&self, jobs: Vec<Job>) -> (Times, Vec<Job>) {
        let encoders = self.models.encoders();
        let begin = Instant::now();
        let mut running: Vec<Running> = jobs.into_iter().map(|job| self.begin(job, encoders.len())).collect();
        let mut times = Times::default();
        for (index, encoder) in encoders.iter().enumerate() {
            self.encode_images(&mut running, index, *encoder, &mut times);
            self.encode_texts(&mut running, index, *encoder, &mut times);
        }
        self.classify(&mut running, &mut times);
        self.search(&mut running, &mut times);
        let mut large = Vec::new();
        for Running { job, rows, truncated, failed, is_large, output } in running {
            if is_large {
                large.push(job);
                continue;
            }
            let times = Times {
                queue: begin.saturating_duration_since(job.queued).saturating_sub(job.decoded_in),
                decode: times.decode + job.decoded_in,
                ..times
            };
            let embedding: Vec<f32> = rows.into_iter().flatten().flatten().collect();
            let result = match (failed, output) {
                (Some(error), _) => Err(error),
                (None, output) => Ok(Done {
                    output: output.unwrap_or(Output::Embedding),
                    embedding: embedding.into(),
                    truncated,
                    times,
                }),
            };
            job.answer(result);
        }
        (times, large)
    }

    /// Takes embeddings that a job brings.
    fn begin(&self, mut job: Job, encoders: usize) -> Running {
        let mut rows = vec![None; encoders];
        match (&mut job.input, &job.task) {
            (Input::Rows(given), _) => rows = std::mem::take(given).into_iter().map(Some).collect(),
            (Input::Row(given), Task::Search { snapshot, modality, .. }) => {
                if let Ok((_, index)) = snapshot.embedding_set(*modality) {
                    rows[index] = Some(std::mem::take(given));
                }
            }
            _ => {}
        }
        Running { job, rows, truncated: false, failed: None, is_large: false, output: None }
    }

    fn encode_images(&self, running: &mut [Running], index: usize, encoder: &dyn Encoder, times: &mut Times) {
        let begin = Instant::now();
        let most = self.max_pixels.min(LARGE);
        let decoded: Vec<(usize, Option<Result<Pixels, XmoreError>>)> = running
            .par_iter()
            .enumerate()
            .filter_map(|(i, running)| match &running.job.input {
                Input::Image(bytes) if running.is_ready() && running.job.task.needs(index) => {
                    // Decoding may wait for memory; the caller may have given up meanwhile.
                    if running.job.reply.is_closed() {
                        return Some((i, None));
                    }
                    let name = Path::new("image");
                    let loaded = encoder.load(bytes, name, most);
                    Some((i, Some(loaded.map(|loaded| loaded.pixels))))
                }
                _ => None,
            })
            .collect();
        let (mut at, mut pixels) = (Vec::new(), Vec::new());
        for (i, result) in decoded {
            match result {
                None => running[i].failed = Some(ApiError::timeout()),
                Some(Ok(image)) => {
                    at.push(i);
                    pixels.push(image);
                }
                // By its header: nothing was decoded.
                Some(Err(error)) if most < self.max_pixels && has_too_many_pixels(&error) => {
                    running[i].is_large = true;
                }
                Some(Err(error)) => running[i].failed = Some(error.into()),
            }
        }
        for (i, running) in running.iter_mut().enumerate() {
            if let Input::Decoded(images) = &mut running.job.input
                && let Some(image) = images.get_mut(index).and_then(Option::take)
            {
                at.push(i);
                pixels.push(image);
            }
        }
        times.decode += begin.elapsed();
        if at.is_empty() {
            return;
        }
        let begin = Instant::now();
        let encoded = encoder.embed_images(&pixels).map_err(ApiError::from);
        put(running, index, &at, encoded);
        times.encode += begin.elapsed();
    }

    fn encode_texts(&self, running: &mut [Running], index: usize, encoder: &dyn Encoder, times: &mut Times) {
        let (mut at, mut texts) = (Vec::new(), Vec::new());
        for (i, running) in running.iter().enumerate() {
            if let (Input::Text(text), true) = (&running.job.input, running.job.task.needs(index)) {
                at.push(i);
                texts.push(text.as_str());
            }
        }
        if at.is_empty() {
            return;
        }
        let begin = Instant::now();
        // One by one, so that it is known which were cut; rows are the same to the bit.
        let encoded: Result<Vec<_>, _> = texts.par_iter().map(|text| encoder.embed_texts(&[text])).collect();
        match encoded {
            Ok(encoded) => {
                for (&i, text) in at.iter().zip(encoded) {
                    running[i].rows[index] = Some(text.embeddings.row(0).to_vec());
                    running[i].truncated |= text.truncated > 0;
                }
            }
            Err(error) => put(running, index, &at, Err(error.into())),
        }
        times.encode += begin.elapsed();
    }

    /// Jobs with the same labels, pairs and retrieval, but for the number of captions, go together.
    fn classify(&self, running: &mut [Running], times: &mut Times) {
        let mut waiting: Vec<usize> = ready(running, |task| matches!(task, Task::Classify { .. }));
        while let Some(&first) = waiting.first() {
            let Task::Classify { classifier, snapshot, options } = running[first].job.task.clone() else {
                return;
            };
            let alike = |i: &usize| match &running[*i].job.task {
                Task::Classify { classifier: c, snapshot: s, options: o } => {
                    Arc::ptr_eq(c, &classifier)
                        && Arc::ptr_eq(s, &snapshot)
                        && RetrievalOptions { k: options.k, ..*o } == options
                }
                _ => false,
            };
            let (group, rest): (Vec<usize>, Vec<usize>) = waiting.iter().partition(|i| alike(i));
            waiting = rest;
            let k_of = |running: &Running| match &running.job.task {
                Task::Classify { options, .. } => options.k,
                _ => 0,
            };
            let mut ks: Vec<usize> = group.iter().map(|&i| k_of(&running[i])).collect();
            ks.sort_unstable();
            ks.dedup();
            let most = ks.last().copied().unwrap_or_default();
            let evidence = (|| {
                let queries = self.queries(running, &group, &snapshot);
                let retrieval = snapshot.retrieval(RetrievalOptions { k: most, ..options })?;
                let with_pairs = match retrieval {
                    Some(retrieval) => classifier.over(retrieval).evidence_timed(&queries, &ks),
                    None => classifier.evidence_timed(&queries, &ks),
                };
                match with_pairs {
                    Err(error) if snapshot.is_tolerated(&error) => {
                        classifier.with_retrieval(None).evidence_timed(&queries, &ks)
                    }
                    other => other,
                }
            })();
            snapshot.log_damaged_codes();
            match evidence {
                Ok((evidence, stages)) => {
                    times.search += stages.search;
                    times.ensemble += stages.ensemble;
                    for (&i, at_ks) in group.iter().zip(evidence) {
                        let k = k_of(&running[i]);
                        let chosen = ks.iter().zip(at_ks).find(|(other, _)| **other == k);
                        running[i].output = chosen.map(|(_, evidence)| Output::Evidence(Box::new(evidence)));
                    }
                }
                Err(error) => fail(running, &group, &ApiError::from(error)),
            }
        }
    }

    fn search(&self, running: &mut [Running], times: &mut Times) {
        let mut waiting: Vec<usize> = ready(running, |task| matches!(task, Task::Search { .. }));
        while let Some(&first) = waiting.first() {
            let Task::Search { snapshot, modality, .. } = running[first].job.task.clone() else { return };
            let count = |i: usize| match &running[i].job.task {
                Task::Search { snapshot: s, modality: m, n }
                    if Arc::ptr_eq(s, &snapshot) && *m == modality =>
                {
                    Some(*n)
                }
                _ => None,
            };
            let (group, rest): (Vec<usize>, Vec<usize>) = waiting.iter().partition(|&&i| count(i).is_some());
            waiting = rest;
            let most = group.iter().filter_map(|&i| count(i)).max().unwrap_or_default();
            let begin = Instant::now();
            let found = (|| {
                let (set, index) = snapshot.embedding_set(modality)?;
                let rows = self.rows(running, &group, index);
                let options = snapshot.pipeline.search_options(most);
                Ok::<_, ApiError>(set.search_with(modality, rows.as_slice(), &options)?.hits)
            })();
            times.search += begin.elapsed();
            snapshot.log_damaged_codes();
            match found {
                Ok(found) => {
                    for (&i, mut hits) in group.iter().zip(found) {
                        hits.truncate(match &running[i].job.task {
                            Task::Search { n, .. } => *n,
                            _ => 0,
                        });
                        running[i].output = Some(Output::Hits(hits));
                    }
                }
                Err(error) => fail(running, &group, &error),
            }
        }
    }

    /// Rows of a group by one encoder.
    fn rows(&self, running: &[Running], group: &[usize], index: usize) -> Embeddings {
        let dim = self.models.dims()[index];
        let rows = group.iter().filter_map(|&i| running[i].rows[index].as_deref());
        Embeddings::new(rows.flatten().copied().collect(), dim)
    }

    fn queries(&self, running: &[Running], group: &[usize], snapshot: &Snapshot) -> xmore::Queries {
        let encoders = 0..self.models.encoders().len();
        snapshot.pipeline.queries(encoders.map(|index| self.rows(running, group, index)).collect())
    }
}

/// Whether an image was refused by its header alone, for its size.
fn has_too_many_pixels(error: &XmoreError) -> bool {
    matches!(error, XmoreError::Clip(ClipError::Image { source: ImageError::TooManyPixels { .. }, .. }))
}

/// Jobs of a kind that are answered in this batch.
fn ready(running: &[Running], kind: impl Fn(&Task) -> bool) -> Vec<usize> {
    let of_kind = |running: &Running| running.is_ready() && kind(&running.job.task);
    running.iter().enumerate().filter(|(_, running)| of_kind(running)).map(|(i, _)| i).collect()
}

fn put(running: &mut [Running], index: usize, at: &[usize], rows: Result<Embeddings, ApiError>) {
    match rows {
        Ok(rows) => {
            for (&i, row) in at.iter().zip(rows.rows()) {
                running[i].rows[index] = Some(row.to_vec());
            }
        }
        Err(error) => fail(running, at, &error),
    }
}

fn fail(running: &mut [Running], at: &[usize], error: &ApiError) {
    for &i in at {
        running[i].failed = Some(error.clone());
    }
}

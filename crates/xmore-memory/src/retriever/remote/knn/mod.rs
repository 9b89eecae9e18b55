//! clip-retrieval's `/knn-service`: its own index, its own metadata, no caption embeddings.
//!
//! The contract as of clip-retrieval 2.45: a JSON object is posted, an array of rows comes back in the order of the
//! index. Rows past `num_images` have an id and a similarity only, so as many images as results are asked for. The
//! optional `aesthetic_score` is left out, since `null` in its place is an error. Numbers that are missing come as a
//! bare `NaN`.

mod address;
mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;

pub(super) use self::address::KIND;
pub use self::address::KnnAddress;
use self::rows::Row;
use super::http::{Client, parse};
use super::json::null_for_non_numbers;
use super::retry::Retry;
use super::{Neighbor, Neighbors, RemoteOptions, Retriever, check_queries, for_each_query, sort};
use crate::error::{MemoryError, Result};
use crate::retriever::RemoteError;
use crate::store::ModelIdentity;

/// Rows asked for first and, where fewer pairs came back than wanted, once more: the method's authors do the same.
const ROWS: [usize; 2] = [200, 1000];
/// No more rows are asked for.
const MAX_ROWS: usize = 16_384;

/// A clip-retrieval back end.
pub struct Knn {
    client: Client,
    url: String,
    index: Option<String>,
    options: RemoteOptions,
}

/// What is posted to `/knn-service`.
#[derive(Serialize)]
struct Request<'a> {
    embedding_input: &'a [f32],
    modality: &'static str,
    num_images: usize,
    num_result_ids: usize,
    indice_name: Option<&'a str>,
    deduplicate: bool,
    use_safety_model: bool,
    use_violence_detector: bool,
}

impl Knn {
    /// Checks that the service is there and has the index; without a name, its first one is searched.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`]; [`RemoteError::Refused`] for an unknown index or another kind of server.
    pub fn open(address: &KnnAddress, options: &RemoteOptions) -> Result<Knn> {
        let KnnAddress { url, index } = address;
        let client = Client::new(address.to_string(), url, options);
        let retry = Retry::of_search(options);
        let known: Vec<String> =
            client.call(&format!("{url}/indices-list"), None, retry, |text| parse(&text))?;
        match index {
            Some(name) if !known.contains(name) => return Err(client.remote(unknown_index(name, &known))),
            None if known.is_empty() => return Err(client.remote("the service has no index")),
            _ => {}
        }
        Ok(Knn { client, url: url.clone(), index: index.clone(), options: options.clone() })
    }

    fn ask(&self, query: &[f32], n: usize) -> Result<Neighbors> {
        let mut answer = Neighbors::default();
        let mut asked = 0;
        for rows in ROWS {
            let rows = rows.max(n.saturating_mul(rows / ROWS[0])).min(MAX_ROWS);
            if rows <= asked {
                break;
            }
            let found = match self.rows(query, rows) {
                Ok(found) => found,
                // A refusal of more rows does not take away those that came.
                Err(MemoryError::Remote(RemoteError::Refused { .. })) if asked > 0 => break,
                Err(error) => return Err(error),
            };
            asked = rows;
            answer = from_rows(found, n, rows);
            if answer.missing == 0 {
                break;
            }
        }
        Ok(answer)
    }

    fn rows(&self, query: &[f32], rows: usize) -> Result<Vec<Row>> {
        let request = Request {
            embedding_input: query,
            modality: "image",
            num_images: rows,
            num_result_ids: rows,
            indice_name: self.index.as_deref(),
            deduplicate: false,
            use_safety_model: false,
            use_violence_detector: false,
        };
        let body = serde_json::to_vec(&request).map_err(|e| self.client.remote(e.to_string()))?;
        let url = format!("{}/knn-service", self.url);
        let read = |text: Vec<u8>| parse(&null_for_non_numbers(&text));
        self.client.call(&url, Some(&body), Retry::of_search(&self.options), read).map_err(|error| match error {
            MemoryError::Remote(RemoteError::Refused { location, reason }) if reason.starts_with("HTTP 500") => {
                let dim = query.len();
                let reason = format!(
                    "{reason}; the likely cause is an index of another model, whose embedding length is not {dim}: \
                     use the model that the index was made with"
                );
                RemoteError::Refused { location, reason }.into()
            }
            other => other,
        })
    }
}

impl Retriever for Knn {
    fn location(&self) -> Cow<'_, str> {
        self.client.location().into()
    }

    fn pairs(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn identity(&self) -> Option<&ModelIdentity> {
        None
    }

    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Neighbors>> {
        check_queries(queries, dim, None)?;
        for_each_query(queries, dim, self.options.parallel, |query| match n {
            0 => Ok(Neighbors::default()),
            n => self.ask(query, n),
        })
    }
}

/// The `n` best of the rows that came when `asked` were wanted.
fn from_rows(rows: Vec<Row>, n: usize, asked: usize) -> Neighbors {
    let came = rows.len();
    let mut without_caption = 0;
    let mut seen = HashSet::new();
    let mut neighbors = Vec::new();
    for row in rows {
        let (Some(id), Some(similarity)) = (row.id, row.similarity) else { continue };
        if !seen.insert(id) {
            continue;
        }
        match row.caption {
            Some(caption) => neighbors.push(Neighbor {
                id,
                similarity,
                caption,
                image_path: row.url.or(row.image_path).unwrap_or_default(),
                text_embedding: None,
            }),
            None => without_caption += 1,
        }
    }
    sort(&mut neighbors);
    neighbors.truncate(n);
    let found = neighbors.len();
    let note = (found < n).then(|| {
        let without = match without_caption {
            0 => String::new(),
            count => format!(", {count} of them without a caption"),
        };
        format!(
            "{found} pairs instead of {n}: {came} of {asked} rows came{without}; the index may hold no more, or the \
             service filters what it finds"
        )
    });
    Neighbors { pairs: neighbors, missing: n - found, note }
}

fn unknown_index(name: &str, known: &[String]) -> String {
    const SHOWN: usize = 20;
    let scored = known.iter().map(|k| (strsim::normalized_damerau_levenshtein(name, k), k));
    let near = scored.filter(|(score, _)| *score > 0.5).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = near.map(|(_, near)| format!("did you mean {near:?}? ")).unwrap_or_default();
    let shown = known.iter().take(SHOWN).map(|k| format!("{k:?}")).collect::<Vec<_>>().join(", ");
    let more = if known.len() > SHOWN { format!(" and {} more", known.len() - SHOWN) } else { String::new() };
    format!("the service has no index {name:?}; {hint}it has {shown}{more}")
}

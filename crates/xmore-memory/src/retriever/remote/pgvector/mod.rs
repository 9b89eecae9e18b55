//! Pairs in a table of PostgreSQL with the pgvector extension: made, filled and searched by this crate.
//!
//! Tested with PostgreSQL 16.2 and pgvector 0.6.2. A table has the columns `id` (the pair's row in the memory, primary
//! key), `image_embedding` and `caption_embedding` (`vector`), `caption` and `image_path`, and a comment that names the
//! model. Every row is compared: the search is exact, unless the table has been given an approximate index on the table. The connection
//! is not encrypted.

mod address;
mod connection;
mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row};

pub(super) use self::address::KIND;
pub use self::address::PgvectorAddress;
use self::connection::{Attempt, Server, attempt_error};
use super::label::{Label, incomplete, other_model};
use super::retry::{AttemptError, Retry};
use super::upload::{PairMetadata, Sent, Target};
use super::{IndexKind, Neighbor, Neighbors, RemoteOptions, Retriever, check_queries, for_each_query, sort};
use crate::error::{MemoryError, Result};
#[cfg(doc)]
use crate::retriever::RemoteError;
use crate::store::{Memory, ModelIdentity};

/// Most values of a vector.
const DIM_MAX: usize = 16_000;
/// Longest vector that stays in its row, where a scan of the table finds it fastest: rows have to fit a page of 8 kB.
const DIM_IN_ROW: usize = 1_536;
/// Most rows of one answer.
const ROWS_MAX: usize = 16_384;
/// Most characters of a table's comment that are read.
const COMMENT_MAX: i32 = 65_536;

/// A value of a statement, with its type.
type Value = (Box<dyn ToSql + Sync + Send>, Type);

/// A table that holds a memory's pairs.
pub struct Pgvector {
    server: Server,
    /// Its quoted name.
    table: String,
    name: String,
    model: ModelIdentity,
    /// Pairs announced by the upload that was the last to be finished, or when the table was made.
    announced: AtomicU64,
    /// Pairs that were there when last counted.
    pairs: AtomicU64,
    parallel: usize,
    search: Retry,
    upload: Retry,
}

impl Pgvector {
    /// Opens a table that [`create`](Self::create) made, for searching or for going on with an upload.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`]; [`RemoteError::Refused`] if there is no such table, or it is something else.
    pub fn open(address: &PgvectorAddress, options: &RemoteOptions) -> Result<Pgvector> {
        let server = Server::new(address, options)?;
        let Some(comment) = describe(&server, address, Retry::of_search(options))? else {
            return Err(server.remote(format!(
                "the database has no table {:?}: make one by uploading a memory to it",
                address.table_name()
            )));
        };
        Self::opened(server, address, &comment, options)
    }

    /// Makes an empty table for a model's embeddings, or opens it if it is there already. `pairs` is how many
    /// are to be uploaded, so that searches can tell when an upload was not finished.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`RemoteError::Refused`] too for a table of another model, for embeddings longer than pgvector
    /// takes, where the extension is missing and cannot be made, and for [`IndexKind::Auto`].
    pub fn create(
        address: &PgvectorAddress,
        model: &ModelIdentity,
        pairs: u64,
        index: IndexKind,
        options: &RemoteOptions,
    ) -> Result<Pgvector> {
        let server = Server::new(address, options)?;
        if model.dim == 0 || model.dim > DIM_MAX {
            let dim = model.dim;
            return Err(server.remote(format!("embeddings have 1 to {DIM_MAX} values there, not {dim}")));
        }
        if index == IndexKind::Auto {
            return Err(server.remote(
                "PostgreSQL chooses no index of vectors by itself: upload with exact search, and make an index on \
                 image_embedding with vector_ip_ops by its own tools if scans are too slow",
            ));
        }
        let retry = Retry::of_upload(options);
        let comment = match describe(&server, address, retry)? {
            Some(comment) => comment,
            None => {
                let label = Label::new(model, pairs).to_json().map_err(|e| server.remote(e))?;
                let made =
                    server.run(retry, |client| make(client, address.sql_table(), model.dim, label.clone()));
                // Another process may have made it at the same time.
                match (describe(&server, address, retry)?, made) {
                    (Some(comment), _) => comment,
                    (None, Err(error)) => return Err(error),
                    (None, Ok(())) => return Err(server.remote("the table that was made does not appear")),
                }
            }
        };
        let name = table_name(address);
        if let Ok(label) = Label::read(&comment)
            && let Some(reason) = other_model(&name, &label.model, model)
        {
            return Err(server.remote(reason));
        }
        Self::opened(server, address, &comment, options)
    }

    fn opened(
        server: Server,
        address: &PgvectorAddress,
        comment: &str,
        options: &RemoteOptions,
    ) -> Result<Pgvector> {
        let name = table_name(address);
        let label = Label::read(comment)
            .map_err(|reason| server.remote(format!("{name} {reason}; choose another table")))?;
        let opened = Pgvector {
            server,
            table: address.sql_table(),
            name,
            model: label.model,
            announced: label.pairs.into(),
            pairs: 0.into(),
            parallel: options.parallel,
            search: Retry::of_search(options),
            upload: Retry::of_upload(options),
        };
        opened.pairs()?;
        Ok(opened)
    }

    /// What the table has of some pairs, `None` for ids that are not there.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] or [`RemoteError::Refused`].
    pub fn metadata(&self, ids: &[u64]) -> Result<Vec<Option<PairMetadata>>> {
        let statement = format!(
            "SELECT id, left(caption, $2), left(image_path, $2) FROM {} WHERE id = ANY($1)",
            self.table
        );
        let mut known = HashMap::new();
        for ids in ids.chunks(ROWS_MAX) {
            let wanted: Vec<i64> = ids.iter().filter_map(|id| i64::try_from(*id).ok()).collect();
            let values = || -> Vec<Value> {
                let most = rows::TEXT_MAX as i32;
                vec![(Box::new(wanted.clone()), Type::INT8_ARRAY), (Box::new(most), Type::INT4)]
            };
            known.extend(self.rows(&statement, values, ids.len(), self.search, |row| {
                Ok((id(row)?, PairMetadata { caption: get(row, 1)?, image_path: get(row, 2)? }))
            })?);
        }
        Ok(ids.iter().map(|id| known.get(id).cloned()).collect())
    }

    /// The rows of an answer, of which there are to be no more than `most`.
    fn rows<T: Send + 'static>(
        &self,
        statement: &str,
        values: impl Fn() -> Vec<Value>,
        most: usize,
        retry: Retry,
        read: impl Fn(&Row) -> Attempt<T> + Send + Copy + 'static,
    ) -> Result<Vec<T>> {
        self.server.run(retry, |client| {
            let (statement, values) = (statement.to_owned(), values());
            async move { select(&client, &statement, values, most, read).await }
        })
    }

    fn ask(&self, query: &[f32], n: usize, ids: Option<&Range<u64>>) -> Result<Neighbors> {
        let dim = query.len();
        let among = if ids.is_some() { "WHERE id >= $3 AND id < $4" } else { "" };
        let statement = format!(
            "SELECT id, -(image_embedding <#> $1::vector), caption, image_path, vector_send(caption_embedding) \
             FROM {} {among} ORDER BY image_embedding <#> $1::vector, id LIMIT $2",
            self.table
        );
        let values = || -> Vec<Value> {
            let mut values: Vec<Value> =
                vec![(Box::new(query.to_vec()), Type::FLOAT4_ARRAY), (Box::new(n as i64), Type::INT8)];
            values.extend(ids.into_iter().flat_map(bounds));
            values
        };
        let mut neighbors = self.rows(&statement, values, n, self.search, move |row| neighbor(row, dim))?;
        sort(&mut neighbors);
        let pairs = self.pairs.load(Ordering::Relaxed);
        let found = neighbors.len();
        let incomplete = incomplete("table", pairs, self.announced.load(Ordering::Relaxed));
        // How many there are in a range is not known without counting them.
        let expected = match ids {
            None => usize::try_from(pairs).map_or(n, |pairs| pairs.min(n)),
            Some(_) => found,
        };
        let missing = expected.saturating_sub(found);
        let note =
            incomplete.or_else(|| (missing > 0).then(|| format!("{found} pairs instead of {expected}")));
        Ok(Neighbors { pairs: neighbors, missing, note })
    }

    fn count_rows(&self, ids: Option<&Range<u64>>, retry: Retry) -> Result<u64> {
        let among = if ids.is_some() { "WHERE id >= $1 AND id < $2" } else { "" };
        let statement = format!("SELECT count(*) FROM {} {among}", self.table);
        let counts = self.rows(&statement, || ids.into_iter().flat_map(bounds).collect(), 1, retry, id)?;
        counts.first().copied().ok_or_else(|| self.server.remote("it answers a count with nothing"))
    }
}

impl Retriever for Pgvector {
    fn location(&self) -> Cow<'_, str> {
        self.server.location().into()
    }

    fn pairs(&self) -> Result<Option<u64>> {
        let pairs = self.count_rows(None, self.search)?;
        self.pairs.store(pairs, Ordering::Relaxed);
        Ok(Some(pairs))
    }

    fn identity(&self) -> Option<&ModelIdentity> {
        Some(&self.model)
    }

    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Neighbors>> {
        self.nearest_images_in(queries, dim, n, None)
    }

    fn filters_rows(&self) -> bool {
        true
    }

    fn nearest_images_in(
        &self,
        queries: &[f32],
        dim: usize,
        n: usize,
        rows: Option<Range<u64>>,
    ) -> Result<Vec<Neighbors>> {
        check_queries(queries, dim, self.identity())?;
        if n > ROWS_MAX {
            return Err(self
                .server
                .remote(format!("{n} neighbors are more than the {ROWS_MAX} that are read for one query")));
        }
        for_each_query(queries, dim, self.parallel, |query| match n {
            0 => Ok(Neighbors::default()),
            n => self.ask(query, n, rows.as_ref()),
        })
    }
}

impl Target for Pgvector {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn model(&self) -> &ModelIdentity {
        &self.model
    }

    fn remote(&self, reason: String) -> MemoryError {
        self.server.remote(reason)
    }

    fn count(&self, ids: Option<Range<u64>>) -> Result<u64> {
        self.count_rows(ids.as_ref(), self.upload)
    }

    fn metadata(&self, ids: &[u64]) -> Result<Vec<Option<PairMetadata>>> {
        Pgvector::metadata(self, ids)
    }

    fn kept_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        rows::kept_text(text)
    }

    fn rows_of_request(&self, dim: usize) -> u64 {
        rows::rows_of_request(dim)
    }

    fn parallel(&self) -> usize {
        self.parallel
    }

    /// One `COPY`, which is done as a whole or not at all.
    fn send(&self, memory: &Memory, range: Range<u64>) -> Result<Sent> {
        let most = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let there = format!("SELECT id FROM {} WHERE id >= $1 AND id < $2", self.table);
        let copy = format!(
            "COPY {} (id, image_embedding, caption_embedding, caption, image_path) FROM STDIN (FORMAT binary)",
            self.table
        );
        // What is there is asked again for each attempt: one whose answer was lost may have done its work.
        let mut sent = Sent::default();
        let mut broken = None;
        self.upload.run(self.server.location(), || {
            let present = self.server.attempt(|client| {
                let (there, values) = (there.clone(), bounds(&range).into());
                async move { select(&client, &there, values, most, id).await }
            })?;
            let present: HashSet<u64> = present.into_iter().collect();
            let batch = match rows::batch(memory, range.clone(), &present) {
                Ok(batch) => batch,
                Err(error) => {
                    broken = Some(error);
                    return Ok(());
                }
            };
            sent = batch.sent;
            if batch.sent.rows == 0 {
                return Ok(());
            }
            self.server.attempt(|client| {
                let (copy, body) = (copy.clone(), batch.body.clone());
                async move { copy_in(&client, &copy, body).await }
            })
        })?;
        broken.map_or(Ok(sent), Err)
    }

    /// What is there now is what there is to be.
    fn finish(&self, present: u64) -> Result<()> {
        if self.announced.load(Ordering::Relaxed) != present {
            let label = Label::new(&self.model, present).to_json().map_err(|e| self.server.remote(e))?;
            let statement = comment(&self.table, &label);
            self.server.run(self.upload, |client| {
                let statement = statement.clone();
                async move { client.batch_execute(&statement).await.map_err(|e| attempt_error(&e)) }
            })?;
            self.announced.store(present, Ordering::Relaxed);
        }
        self.pairs.store(present, Ordering::Relaxed);
        Ok(())
    }
}

/// The table, for messages.
fn table_name(address: &PgvectorAddress) -> String {
    format!("table {:?}", address.table_name())
}

/// The comment of the table, empty if it has none; `None` if there is no such table.
fn describe(server: &Server, address: &PgvectorAddress, retry: Retry) -> Result<Option<String>> {
    const STATEMENT: &str = "SELECT coalesce(left(obj_description(to_regclass($1)::oid, 'pg_class'), $2), '') \
        WHERE to_regclass($1) IS NOT NULL";
    let found = server.run(retry, |client| {
        let values: Vec<Value> =
            vec![(Box::new(address.sql_table()), Type::TEXT), (Box::new(COMMENT_MAX), Type::INT4)];
        async move { select(&client, STATEMENT, values, 1, |row| get::<String>(row, 0)).await }
    })?;
    Ok(found.into_iter().next())
}

/// Makes the extension if need be, and the table with its comment, as a whole.
async fn make(client: Arc<Client>, table: String, dim: usize, label: String) -> Attempt<()> {
    const EXTENSION: &str = "SELECT extversion FROM pg_extension WHERE extname = 'vector'";
    let known = select(&client, EXTENSION, Vec::new(), 1, |row| get::<String>(row, 0)).await?;
    if known.is_empty() {
        client.batch_execute("CREATE EXTENSION IF NOT EXISTS vector").await.map_err(|e| match attempt_error(&e) {
            AttemptError::Permanent(reason) => AttemptError::Permanent(format!(
                "{reason}. The pgvector extension is not in this database: its owner makes it with CREATE EXTENSION vector"
            )),
            other => other,
        })?;
    }
    let storage = match dim {
        // By default a vector of 2 kB is kept apart from its row, which makes scans slower.
        ..=DIM_IN_ROW => format!("ALTER TABLE {table} ALTER COLUMN image_embedding SET STORAGE PLAIN;"),
        _ => String::new(),
    };
    // Several statements of one request are one transaction.
    let statements = format!(
        "CREATE TABLE {table} (id bigint PRIMARY KEY, image_embedding vector({dim}) NOT NULL, \
         caption_embedding vector({dim}) NOT NULL, caption text NOT NULL, image_path text NOT NULL); {storage} {}",
        comment(&table, &label)
    );
    client.batch_execute(&statements).await.map_err(|e| attempt_error(&e))
}

/// The statement that gives a table its comment.
fn comment(table: &str, label: &str) -> String {
    format!("COMMENT ON TABLE {table} IS {}", escape_literal(label))
}

async fn select<T>(
    client: &Client,
    statement: &str,
    values: Vec<Value>,
    most: usize,
    read: impl Fn(&Row) -> Attempt<T>,
) -> Attempt<Vec<T>> {
    let values = values.iter().map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone()));
    let rows = client.query_typed_raw(statement, values).await.map_err(|e| attempt_error(&e))?;
    let mut rows = pin!(rows);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(|e| attempt_error(&e))? {
        if found.len() == most {
            return Err(AttemptError::Permanent(format!(
                "it answers with more than {most} rows, the most that were asked for"
            )));
        }
        found.push(read(&row)?);
    }
    Ok(found)
}

async fn copy_in(client: &Client, statement: &str, body: Bytes) -> Attempt<()> {
    let sink = client.copy_in(statement).await.map_err(|e| attempt_error(&e))?;
    let mut sink = pin!(sink);
    sink.send(body).await.map_err(|e| attempt_error(&e))?;
    sink.finish().await.map(|_| ()).map_err(|e| attempt_error(&e))
}

/// Both ends of a range of ids. No id is greater than PostgreSQL's greatest.
fn bounds(ids: &Range<u64>) -> [Value; 2] {
    [ids.start, ids.end].map(|id| -> Value { (Box::new(i64::try_from(id).unwrap_or(i64::MAX)), Type::INT8) })
}

/// A value of a row.
fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Attempt<T> {
    row.try_get(column).map_err(|e| attempt_error(&e))
}

/// The first value of a row, a number that is not negative.
fn id(row: &Row) -> Attempt<u64> {
    let id: i64 = get(row, 0)?;
    u64::try_from(id)
        .map_err(|_| AttemptError::Permanent(format!("it answers with {id}, which is no id and no count")))
}

fn neighbor(row: &Row, dim: usize) -> Attempt<Neighbor> {
    let id = id(row)?;
    let similarity = get::<f64>(row, 1)? as f32;
    let embedding: &[u8] = get(row, 4)?;
    let text_embedding = rows::read_vector(embedding, dim);
    if !similarity.is_finite() || text_embedding.is_none() {
        return Err(AttemptError::Permanent(format!(
            "row {id} has similarity {similarity} and a caption embedding of {} bytes, of which one is not usable",
            embedding.len()
        )));
    }
    Ok(Neighbor { id, similarity, caption: get(row, 2)?, image_path: get(row, 3)?, text_embedding })
}

//! Milvus's two HTTP interfaces, as of 2.3: which calls there are, how they answer, which refusals pass.
//!
//! | port | interface | used for |
//! |---|---|---|
//! | 19530 | RESTful API v1 | description, search, upsert, metadata, drop; reads are of bounded staleness (seconds) |
//! | 9091 | management API | a collection with ids of our own, its index, loading, flushing; strongly consistent counts |
//!
//! v1 can make a collection too, but only one whose ids the server chooses, which cannot be uploaded twice without
//! doubling rows.

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::http::{Client, parse};
use super::super::retry::{AttemptError, Retry};
use super::super::{IndexKind, RemoteOptions};
use super::MilvusAddress;
use crate::error::{MemoryError, Result};

/// Names of the fields of a collection.
pub(super) const ID: &str = "id";
pub(super) const VECTOR: &str = "vector";
pub(super) const CAPTION: &str = "caption";
pub(super) const IMAGE_PATH: &str = "image_path";
pub(super) const TEXT_EMBEDDING: &str = "text_embedding";

/// Most bytes of a VarChar.
pub(super) const TEXT_MAX: usize = 65_535;
/// Most rows of one answer.
pub(super) const ROWS_MAX: usize = 16_384;

// Of schema.proto.
const INT64: u32 = 5;
const VARCHAR: u32 = 21;
const FLOAT_VECTOR: u32 = 101;
/// Of common.proto: the level of collections that is used where a client asks for none.
const STRONG: u32 = 0;

/// A collection on a server.
pub(super) struct Api {
    main: Client,
    management: Client,
    url: String,
    management_url: String,
    pub collection: String,
    pub search: Retry,
    pub upload: Retry,
}

/// What the server tells of a collection.
#[derive(Debug, Deserialize)]
pub(super) struct Description {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    load: String,
    #[serde(default)]
    indexes: Vec<Value>,
}

impl Description {
    pub fn is_loaded(&self) -> bool {
        self.load == "LoadStateLoaded"
    }

    pub fn is_loading(&self) -> bool {
        self.load == "LoadStateLoading"
    }

    pub fn has_index(&self) -> bool {
        !self.indexes.is_empty()
    }
}

/// A pair as a search finds it.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub id: Whole,
    #[serde(default)]
    pub distance: Option<f32>,
    #[serde(default)]
    pub caption: Option<String>,
    #[serde(default)]
    pub image_path: Option<String>,
    #[serde(default)]
    pub text_embedding: Option<String>,
}

/// A whole number, which Milvus writes as a string unless told otherwise.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Whole {
    Number(u64),
    Text(String),
}

impl Whole {
    pub fn value(&self) -> Option<u64> {
        match self {
            Whole::Number(value) => Some(*value),
            Whole::Text(text) => text.parse().ok(),
        }
    }
}

impl Api {
    /// Does not talk to the server yet.
    pub fn new(address: &MilvusAddress, options: &RemoteOptions) -> Api {
        let MilvusAddress { host, port, management, collection } = address;
        let name = address.to_string();
        let management_name = format!("{name} (its management API, on port {management})");
        let url = format!("http://{host}:{port}/v1/vector");
        let management_url = format!("http://{host}:{management}/api/v1");
        Api {
            main: Client::new(name, &url, options),
            management: Client::new(management_name, &management_url, options),
            url,
            management_url,
            collection: collection.clone(),
            search: Retry::of_search(options),
            upload: Retry::of_upload(options),
        }
    }

    pub fn location(&self) -> &str {
        self.main.location()
    }

    /// The collection, for messages.
    pub fn name(&self) -> String {
        format!("collection {:?}", self.collection)
    }

    /// An error about what the server said.
    pub fn remote(&self, reason: impl Into<String>) -> MemoryError {
        self.main.remote(reason)
    }

    /// `None` if there is no such collection.
    pub fn describe(&self, retry: Retry) -> Result<Option<Description>> {
        let url = format!("{}/collections/describe?collectionName={}", self.url, self.collection);
        self.main.call(&url, None, retry, |text| match read_v1(&text) {
            Ok(description) => Ok(Some(description)),
            Err(Refused { code: NOT_FOUND, .. }) => Ok(None),
            Err(refused) => Err(refused.into()),
        })
    }

    /// Makes the collection; one that is the same already is no error.
    pub fn create(&self, description: &str, dim: usize) -> Result<()> {
        let text = |name| {
            let length = json!([{"key": "max_length", "value": TEXT_MAX.to_string()}]);
            json!({"name": name, "data_type": VARCHAR, "type_params": length})
        };
        let vector = json!([{"key": "dim", "value": dim.to_string()}]);
        let schema = json!({
            "name": self.collection,
            "description": description,
            "autoID": false,
            "fields": [
                {"name": ID, "is_primary_key": true, "autoID": false, "data_type": INT64},
                {"name": VECTOR, "data_type": FLOAT_VECTOR, "type_params": vector},
                text(CAPTION),
                text(IMAGE_PATH),
                text(TEXT_EMBEDDING),
            ],
        });
        self.manage("collection", json!({"schema": schema, "shards_num": 1, "consistency_level": STRONG}))
    }

    /// Makes the index of the image embeddings; one that is the same already is no error.
    pub fn create_index(&self, index: IndexKind) -> Result<()> {
        let kind = match index {
            IndexKind::Flat => "FLAT",
            IndexKind::Auto => "AUTOINDEX",
        };
        let params = json!([
            {"key": "metric_type", "value": "IP"}, {"key": "index_type", "value": kind}, {"key": "params", "value": "{}"},
        ]);
        self.manage("index", json!({"field_name": VECTOR, "index_name": VECTOR, "extra_params": params}))
    }

    /// Asks for the collection to be searchable, which takes a moment.
    pub fn load(&self) -> Result<()> {
        self.manage("collection/load", json!({}))
    }

    /// Asks for what was inserted to be written to the object store.
    pub fn flush(&self) -> Result<()> {
        self.manage("persist", json!({"collection_names": [self.collection]}))
    }

    /// Number of rows with ids of a range (all if `None`): all that were inserted before this call.
    pub fn count(&self, ids: Option<Range<u64>>, retry: Retry) -> Result<u64> {
        let expr = ids.map(|ids| format!("{ID} >= {} and {ID} < {}", ids.start, ids.end)).unwrap_or_default();
        let body =
            self.of_collection(json!({"expr": expr, "output_fields": ["count(*)"]}), "collection_name")?;
        let url = format!("{}/query", self.management_url);
        self.management.call(&url, Some(&body), retry, |text| {
            let answer: Value = read_management(&text)?;
            let count = answer.pointer("/fields_data/0/Field/Scalars/Data/LongData/data/0");
            count.and_then(Value::as_u64).ok_or_else(|| AttemptError::Permanent(unexpected("count", &text)))
        })
    }

    /// Number of rows that a search sees, which may lag behind by seconds.
    pub fn visible(&self, retry: Retry) -> Result<u64> {
        // A limit of 0 is none at all, without which nothing is counted.
        let filter = format!("{ID} >= 0");
        let rows: Vec<std::collections::HashMap<String, Whole>> =
            self.v1("query", json!({"filter": filter, "limit": 0, "outputFields": ["count(*)"]}), retry)?;
        let count = rows.first().and_then(|row| row.get("count(*)")).and_then(Whole::value);
        count.ok_or_else(|| self.remote("a count of its rows has no number in it"))
    }

    /// The nearest rows of a query, `[dim]`.
    pub fn nearest(&self, query: &[f32], n: usize) -> Result<Vec<Found>> {
        let fields = [ID, CAPTION, IMAGE_PATH, TEXT_EMBEDDING];
        self.v1("search", json!({"vector": query, "limit": n, "outputFields": fields}), self.search)
    }

    /// The rows of some ids, in any order; at most [`ROWS_MAX`].
    pub fn rows(&self, ids: &[u64], retry: Retry) -> Result<Vec<Found>> {
        let fields = [ID, CAPTION, IMAGE_PATH];
        let filter = format!("{ID} in {ids:?}");
        self.v1("query", json!({"filter": filter, "limit": ROWS_MAX, "outputFields": fields}), retry)
    }

    /// Inserts rows, or replaces those that are there. `body` is the whole request.
    pub fn upsert(&self, body: &[u8]) -> Result<()> {
        let url = format!("{}/upsert", self.url);
        self.main.call(&url, Some(body), self.upload, |text| {
            read_v1::<Value>(&text).map(|_| ()).map_err(|refused| refused.into())
        })
    }

    pub fn drop_collection(&self) -> Result<()> {
        self.v1("collections/drop", json!({}), self.search).map(|_: Value| ())
    }

    fn v1<T: DeserializeOwned>(&self, path: &str, request: Value, retry: Retry) -> Result<T> {
        let body = self.of_collection(request, "collectionName")?;
        let url = format!("{}/{path}", self.url);
        self.main.call(&url, Some(&body), retry, |text| read_v1(&text).map_err(AttemptError::from))
    }

    fn manage(&self, path: &str, request: Value) -> Result<()> {
        let body = self.of_collection(request, "collection_name")?;
        let url = format!("{}/{path}", self.management_url);
        self.management.call(&url, Some(&body), self.upload, |text| read_management(&text).map(|_| ()))
    }

    /// A request's body with the collection's name in it.
    fn of_collection(&self, mut request: Value, key: &str) -> Result<Vec<u8>> {
        request[key] = self.collection.as_str().into();
        to_json(&request).map_err(|e| self.remote(e))
    }
}

pub(super) fn to_json(value: &impl Serialize) -> std::result::Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|e| e.to_string())
}

fn unexpected(what: &str, text: &[u8]) -> String {
    format!("its answer has no {what}: {}", super::super::http::shown(text))
}

/// Milvus's "collection not found".
const NOT_FOUND: i64 = 100;

/// A refusal in an answer of status 200, as all of Milvus's are.
struct Refused {
    code: i64,
    message: String,
}

impl From<Refused> for AttemptError {
    fn from(refused: Refused) -> AttemptError {
        let message = match refused.code {
            i64::MIN => refused.message,
            code => format!("the server refuses: {} (code {code})", refused.message.trim()),
        };
        match refused.code {
            // Not ready, unavailable, too many requests, rate limits; a collection that is not loaded yet; channels and
            // nodes that are away: a server that starts or is busy.
            1 | 2 | 4 | 8 | 9 | 101 | 103 | 500..=503 | 901..=905 => AttemptError::Transient(message, None),
            // No such collection, invalid parameters, what the RESTful layer refuses, what is no answer at all.
            i64::MIN | NOT_FOUND | 1100..=1199 | 1800..=1899 => AttemptError::Permanent(message),
            // Anything else happens while parts of a server start, and otherwise too.
            _ => AttemptError::Failed(message),
        }
    }
}

/// `{"code": 200, "data": …}`, or `{"code": …, "message": …}`. Later versions say 0 for 200.
fn read_v1<T: DeserializeOwned>(text: &[u8]) -> std::result::Result<T, Refused> {
    #[derive(Deserialize)]
    struct Head {
        code: i64,
        #[serde(default)]
        message: String,
    }
    #[derive(Deserialize)]
    struct Body<T> {
        data: T,
    }
    let nonsense = |_| Refused { code: i64::MIN, message: unexpected("data", text) };
    let head: Head = serde_json::from_slice(text).map_err(nonsense)?;
    match head.code {
        0 | 200 => serde_json::from_slice(text).map(|body: Body<T>| body.data).map_err(nonsense),
        code => Err(Refused { code, message: head.message }),
    }
}

/// A protocol buffer as JSON; its status is in `status`, or is all of it.
fn read_management(text: &[u8]) -> std::result::Result<Value, AttemptError> {
    let answer: Value = parse(text)?;
    if !answer.is_object() {
        return Err(AttemptError::Permanent(unexpected("status", text)));
    }
    let status = answer.get("status").unwrap_or(&answer);
    let number = |key| status.get(key).and_then(Value::as_i64).filter(|code| *code != 0);
    match number("code").or_else(|| number("error_code")) {
        None => Ok(answer),
        Some(code) => {
            let message = status.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
            Err(Refused { code, message }.into())
        }
    }
}

//! A memory's rows as Milvus takes them, and what it gives back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use serde::Serialize;

use super::super::Neighbor;
use super::super::upload::Sent;
use super::rest::{Found, TEXT_MAX};
use crate::error::Result;
use crate::store::Memory;

/// Bytes of a request that holds rows: larger ones are no faster.
const REQUEST_BYTES: usize = 4 << 20;
const REQUEST_ROWS_MAX: usize = 1000;

/// A request of rows.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The request's body.
    pub body: Vec<u8>,
    /// What is in it.
    pub sent: Sent,
}

#[derive(Serialize)]
struct Row<'a> {
    id: u64,
    vector: &'a [f32],
    caption: &'a str,
    image_path: &'a str,
    text_embedding: &'a str,
}

/// How many rows of `dim` values make a request.
pub(super) fn rows_of_request(dim: usize) -> u64 {
    // A float16 value as a decimal number, as base64, and the rest of a row.
    let row = dim * 13 + encoded_len(dim) + 400;
    (REQUEST_BYTES / row).clamp(1, REQUEST_ROWS_MAX) as u64
}

/// Length of a text embedding as the server keeps it.
pub(super) fn encoded_len(dim: usize) -> usize {
    (dim * size_of::<f16>()).div_ceil(3) * 4
}

/// The request that upserts the pairs `from..to` of a memory.
pub(super) fn batch(memory: &Memory, collection: &str, from: u64, to: u64) -> Result<Batch> {
    let mut batch = Batch::default();
    let mut vector = vec![0.0; memory.dim()];
    // Names of collections need no escapes.
    batch.body.extend_from_slice(format!("{{\"collectionName\":\"{collection}\",\"data\":[").as_bytes());
    for id in from..to {
        memory.text_embedding(id, &mut vector)?;
        let finite = vector.iter().all(|v| v.is_finite());
        let text_embedding = encode(&vector);
        memory.image_embedding(id, &mut vector)?;
        if !finite || vector.iter().any(|v| !v.is_finite()) {
            batch.sent.skipped += 1;
            continue;
        }
        let (caption, caption_cut) = cut(memory.caption(id)?);
        let (image_path, path_cut) = cut(memory.image_path(id)?);
        batch.sent.changed += u64::from(caption_cut) + u64::from(path_cut);
        if batch.sent.rows > 0 {
            batch.body.push(b',');
        }
        let row = Row { id, vector: &vector, caption, image_path, text_embedding: &text_embedding };
        // Numbers and texts always can be written, and memory is all that is written to.
        let _ = serde_json::to_writer(&mut batch.body, &row);
        batch.sent.rows += 1;
    }
    batch.body.extend_from_slice(b"]}");
    Ok(batch)
}

/// The text if the server takes it, else as much of it as it takes.
pub(super) fn cut(text: &str) -> (&str, bool) {
    if text.len() <= TEXT_MAX { (text, false) } else { (&text[..text.floor_char_boundary(TEXT_MAX)], true) }
}

/// Base64 of float16 values, little-endian: exact for what a memory holds.
fn encode(embedding: &[f32]) -> String {
    let bytes: Vec<u8> = embedding.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// A unit embedding, `[dim]`, if it is one.
fn decode(text: &str, dim: usize) -> Option<Vec<f32>> {
    if text.len() != encoded_len(dim) {
        return None;
    }
    let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == dim * size_of::<f16>())?;
    let values = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
    let values: Vec<f32> = values.collect();
    values.iter().all(|v| v.is_finite()).then_some(values)
}

/// A found row as a neighbor; `None` if it lacks its caption or its similarity.
pub(super) fn neighbor(found: Found, dim: usize) -> Option<Neighbor> {
    Some(Neighbor {
        id: found.id.value()?,
        similarity: found.distance.filter(|d| d.is_finite())?,
        caption: found.caption?,
        image_path: found.image_path.unwrap_or_default(),
        text_embedding: found.text_embedding.and_then(|text| decode(&text, dim)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::store::{MemoryWriter, ModelIdentity};

    proptest! {
        #[test]
        fn caption_embeddings_come_back_to_the_bit(values in prop::collection::vec(-1.0f32..1.0, 1..70)) {
            let stored: Vec<f32> = values.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
            let text = encode(&stored);
            prop_assert_eq!(text.len(), encoded_len(stored.len()));
            prop_assert_eq!(decode(&text, stored.len()), Some(stored));
        }

        #[test]
        fn any_text_is_an_embedding_or_none(text in "[A-Za-z0-9+/=\u{e9}]{0,12}", dim in 0usize..5) {
            if let Some(values) = decode(&text, dim) {
                prop_assert_eq!(values.len(), dim);
                prop_assert!(values.iter().all(|v| v.is_finite()));
            }
        }
    }

    #[test]
    fn embeddings_that_are_none_are_not_taken() {
        assert_eq!(decode(&encode(&[1.0, 0.5]), 3), None);
        assert_eq!(decode("####", 1), None);
        let infinite = STANDARD.encode(f16::INFINITY.to_le_bytes());
        assert_eq!(decode(&infinite, 1), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelIdentity::new("m", "00", 2);
        let mut writer = MemoryWriter::create(dir.path(), model).unwrap();
        let long = "é".repeat(40_000);
        writer.push("a \"b\".jpg", "a\u{0}\n\"c\"", &[0.6, 0.8], &[1.0, 0.0]).unwrap();
        writer.push("b.jpg", &long, &[0.1, 0.2], &[0.0, 1.0]).unwrap();
        writer.finish().unwrap();
        let memory = Memory::open(dir.path()).unwrap();
        let batch = batch(&memory, "pairs", 0, 2).unwrap();
        assert_eq!((batch.sent.rows, batch.sent.skipped, batch.sent.changed), (2, 0, 1));
        let request: Value = serde_json::from_slice(&batch.body).unwrap();
        assert_eq!(request["collectionName"], "pairs");
        let rows = request["data"].as_array().unwrap();
        assert_eq!(
            (&rows[0]["caption"], &rows[0]["image_path"]),
            (&"a\u{0}\n\"c\"".into(), &"a \"b\".jpg".into())
        );
        // What is sent is the stored float16 value, exactly.
        let sent = rows[0]["vector"][0].as_f64().unwrap() as f32;
        assert_eq!(sent, f16::from_f32(0.6).to_f32());
        assert_eq!(rows[1]["caption"].as_str().unwrap().len(), TEXT_MAX - 1);
        assert_eq!(decode(rows[1]["text_embedding"].as_str().unwrap(), 2), Some(vec![0.0, 1.0]));
    }

    #[test]
    fn requests_have_rows_of_a_few_megabytes() {
        assert_eq!((rows_of_request(1), rows_of_request(65_536)), (1000, 4));
        let dir = tempfile::tempdir().unwrap();
        let model = ModelIdentity::new("m", "00", 512);
        let mut writer = MemoryWriter::create(dir.path(), model).unwrap();
        let rows = rows_of_request(512);
        for i in 0..rows {
            let row: Vec<f32> = (0..512).map(|j| ((i * 512 + j) as f32).sin() / 16.0).collect();
            writer.push("photos/0001.jpg", "a caption as long as most", &row, &row).unwrap();
        }
        writer.finish().unwrap();
        let batch = batch(&Memory::open(dir.path()).unwrap(), "pairs", 0, rows).unwrap();
        assert_eq!(batch.sent.rows, rows);
        assert!((REQUEST_BYTES * 3 / 4..=REQUEST_BYTES).contains(&batch.body.len()), "{}", batch.body.len());
    }
}

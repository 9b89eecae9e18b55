//! A memory's rows in the binary form of PostgreSQL's `COPY`, and vectors as pgvector writes them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::upload::Sent;
use crate::error::Result;
use crate::store::Memory;

/// What a `COPY` in binary form begins with: its signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
const TRAILER: i16 = -1;
/// Columns of a row.
const COLUMNS: i16 = 5;
/// Most bytes of a text; what is longer is cut.
pub(super) const TEXT_MAX: usize = 65_535;
/// Bytes of a request that holds rows, but for texts longer than most.
const REQUEST_BYTES: usize = 4 << 20;
const REQUEST_ROWS_MAX: usize = 1000;

/// How many rows of `dim` values make a request. Texts of the greatest length make it larger, by 131 kB a row.
pub(super) fn rows_of_request(dim: usize) -> u64 {
    (REQUEST_BYTES / (2 * vector_len(dim) + 400)).clamp(1, REQUEST_ROWS_MAX) as u64
}

/// A request's rows.
pub(super) struct Batch {
    /// As `COPY` takes them.
    pub body: Bytes,
    /// What is in it.
    pub sent: Sent,
}

/// The pairs of a range but those that are there.
pub(super) fn batch(memory: &Memory, range: Range<u64>, there: &HashSet<u64>) -> Result<Batch> {
    let mut sent = Sent::default();
    let mut body = BytesMut::from(HEADER);
    let (mut image, mut caption) = (vec![0.0; memory.dim()], vec![0.0; memory.dim()]);
    for id in range.filter(|id| !there.contains(id)) {
        memory.image_embedding(id, &mut image)?;
        memory.text_embedding(id, &mut caption)?;
        if image.iter().chain(&caption).any(|v| !v.is_finite()) {
            sent.skipped += 1;
            continue;
        }
        body.put_i16(COLUMNS);
        body.put_i32(size_of::<i64>() as i32);
        body.put_u64(id);
        put_vector(&mut body, &image);
        put_vector(&mut body, &caption);
        for text in [memory.caption(id)?, memory.image_path(id)?] {
            let kept = kept_text(text);
            sent.changed += u64::from(kept != text);
            body.put_i32(kept.len() as i32);
            body.put_slice(kept.as_bytes());
        }
        sent.rows += 1;
    }
    body.put_i16(TRAILER);
    Ok(Batch { body: body.freeze(), sent })
}

/// A text as PostgreSQL takes it: without zero characters, which it has none of, and not too long.
pub(super) fn kept_text(text: &str) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(TEXT_MAX)];
    match text.contains('\0') {
        // As long as it was.
        true => text.replace('\0', " ").into(),
        false => text.into(),
    }
}

fn vector_len(dim: usize) -> usize {
    4 + dim * size_of::<f32>()
}

/// A field that holds a vector: its length, its number of values, two bytes of nothing, its values.
fn put_vector(to: &mut BytesMut, values: &[f32]) {
    to.put_i32(vector_len(values.len()) as i32);
    to.put_u16(values.len() as u16);
    to.put_u16(0);
    values.iter().for_each(|value| to.put_f32(*value));
}

/// A vector of `dim` finite values as `vector_send` gives it, if it is one.
pub(super) fn read_vector(bytes: &[u8], dim: usize) -> Option<Vec<f32>> {
    let (head, values) = bytes.split_at_checked(4)?;
    let told = usize::from(u16::from_be_bytes([head[0], head[1]]));
    if told != dim || bytes.len() != vector_len(dim) {
        return None;
    }
    let values: Vec<f32> =
        values.chunks_exact(4).map(|v| f32::from_be_bytes([v[0], v[1], v[2], v[3]])).collect();
    values.iter().all(|v| v.is_finite()).then_some(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{MemoryWriter, ModelIdentity};

    proptest! {
        #[test]
        fn vectors_come_back_to_the_bit(values in prop::collection::vec(-1.0f32..1.0, 1..70)) {
            let mut field = BytesMut::new();
            put_vector(&mut field, &values);
            prop_assert_eq!(read_vector(&field[4..], values.len()), Some(values));
        }

        #[test]
        fn any_bytes_are_a_vector_or_none(bytes in prop::collection::vec(any::<u8>(), 0..24), dim in 0usize..5) {
            if let Some(values) = read_vector(&bytes, dim) {
                prop_assert_eq!(values.len(), dim);
                prop_assert!(values.iter().all(|v| v.is_finite()));
            }
        }
    }

    #[test]
    fn rows_that_are_there_are_left_out_and_texts_are_made_fit() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelIdentity::new("m", "00", 2);
        let mut writer = MemoryWriter::create(dir.path(), model).unwrap();
        writer.push("a.jpg", "a\0c", &[0.6, 0.8], &[1.0, 0.0]).unwrap();
        writer.push("b.jpg", &"é".repeat(40_000), &[0.1, 0.2], &[0.0, 1.0]).unwrap();
        writer.push("c.jpg", "c", &[0.1, 0.2], &[0.0, 1.0]).unwrap();
        writer.finish().unwrap();
        let memory = Memory::open(dir.path()).unwrap();
        let all = batch(&memory, 0..3, &HashSet::new()).unwrap();
        assert_eq!(all.sent, Sent { rows: 3, skipped: 0, changed: 2 });
        assert!(all.body.starts_with(b"PGCOPY\n") && all.body.ends_with(&[0xff, 0xff]));
        let rest = batch(&memory, 0..3, &HashSet::from([0, 1])).unwrap();
        assert_eq!(rest.sent, Sent { rows: 1, skipped: 0, changed: 0 });
        // Two vectors of two values, an id, two texts, and the length of each.
        assert_eq!(rest.body.len(), HEADER.len() + 2 + (4 + 8) + 2 * (4 + 12) + (4 + 1) + (4 + 5) + 2);
        assert_eq!((kept_text("a\0c"), kept_text(&"é".repeat(40_000)).len()), ("a c".into(), TEXT_MAX - 1));
    }

    #[test]
    fn requests_have_rows_of_a_few_megabytes() {
        assert_eq!((rows_of_request(1), rows_of_request(512), rows_of_request(16_000)), (1000, 931, 32));
    }
}

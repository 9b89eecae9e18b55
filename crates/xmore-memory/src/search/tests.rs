//! Tests of search as a whole: against brute force, and for the same bits however it is run.

use proptest::prelude::*;

use super::*;
use crate::error::MemoryError;
use crate::store::{MemoryWriter, ModelIdentity};

/// A memory with the given image rows, in parts of `part_rows`; the text rows are the negated image rows.
fn memory(dim: usize, rows: &[f32], part_rows: u64) -> (tempfile::TempDir, Memory) {
    let dir = tempfile::tempdir().unwrap();
    let model = ModelIdentity::new("test", "0".repeat(64), dim);
    let mut writer = MemoryWriter::create(dir.path(), model).unwrap().with_part_rows(part_rows);
    for image in rows.chunks_exact(dim) {
        let text: Vec<f32> = image.iter().map(|x| -x).collect();
        writer.push("image", "caption", image, &text).unwrap();
    }
    writer.finish().unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    (dir, memory)
}

/// Repeatable values in -1..1 (xorshift).
fn values(count: usize, mut seed: u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn bits(hits: &[Vec<Hit>]) -> Vec<Vec<(u64, u32)>> {
    hits.iter().map(|h| h.iter().map(|h| (h.id, h.similarity.to_bits())).collect()).collect()
}

#[test]
fn results_have_the_same_bits_in_any_batch_part_and_pool() {
    let (dim, rows, n) = (37, 5_000, 20);
    let stored = values(dim * rows, 1);
    let queries = values(dim * 300, 2);
    let (_dir, one_part) = memory(dim, &stored, 1 << 20);
    let expected = bits(&one_part.search_images(&queries, n).unwrap());

    let single: Vec<_> =
        queries.chunks(dim).map(|q| bits(&one_part.search_images(q, n).unwrap()).remove(0)).collect();
    assert_eq!(single, expected);

    let (_dir, many_parts) = memory(dim, &stored, 777);
    assert_eq!(many_parts.primary().parts().len(), 7);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let hits = pool.install(|| many_parts.search_images(&queries, n)).unwrap();
        assert_eq!(bits(&hits), expected, "{threads} threads");
    }
}

#[test]
fn equal_rows_come_in_order_of_id() {
    let (_dir, memory) = memory(2, &[0.0, 1.0, 1.0, 0.0].repeat(500), 64);
    let hits = memory.search_images(&[1.0, 0.0], 300).unwrap().remove(0);
    let expected: Vec<u64> = (0..300).map(|i| 2 * i + 1).collect();
    assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), expected);
    assert!(hits.iter().all(|h| h.similarity == 1.0));
    // The texts are the negated images: 0 and -0 are equal, so the order is that of the ids again.
    let hits = memory.search_texts(&[1.0, 0.0], 3).unwrap().remove(0);
    assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [0, 2, 4]);
}

#[test]
fn the_number_of_hits_is_what_there_is() {
    let (_dir, memory) = memory(3, &values(3 * 10, 3), 4);
    assert_eq!(memory.search_images(&[1.0; 6], 0).unwrap(), [vec![], vec![]]);
    assert_eq!(memory.search_images(&[], 5).unwrap().len(), 0);
    let hits = memory.search_images(&[1.0; 3], usize::MAX).unwrap().remove(0);
    assert_eq!(hits.len(), 10);
    assert!(hits.is_sorted_by(|a, b| a.similarity >= b.similarity));
}

#[test]
fn bad_queries_are_refused() {
    let (_dir, memory) = memory(3, &values(3 * 10, 4), 100);
    let error = memory.search_images(&[0.0; 4], 1).unwrap_err();
    assert!(
        matches!(error, MemoryError::Vector(VectorError::QueryLength { dim: 3, found: 4, .. })),
        "{error}"
    );
    for value in [f32::NAN, f32::INFINITY] {
        for n in [0, 1] {
            let error = memory.search_texts(&[0.0, 0.0, 0.0, 0.0, value, 0.0], n).unwrap_err();
            assert!(
                matches!(error, MemoryError::Vector(VectorError::NotFinite { row: 1, position: 1, .. })),
                "{error}"
            );
        }
    }
}

#[test]
fn a_stored_nan_is_never_found() {
    let (dir, _) = memory(2, &[0.5, 0.5, 1.0, 0.0, 0.25, 0.0], 100);
    let path = dir.path().join("img_emb/img_emb_0000.npy");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 8;
    bytes[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let hits = Memory::open(dir.path()).unwrap().search_images(&[1.0, 0.0], 3).unwrap().remove(0);
    assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [0, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Similarities agree with f64 within `slack`, so the order may differ only between rows closer than twice that.
    #[test]
    fn hits_are_those_of_brute_force_up_to_ties(
        dim in 1usize..70, rows in 1usize..400, count in 1usize..4, n in 1usize..50,
        part_rows in 1u64..500, seed in 1u64..
    ) {
        let (_dir, memory) = memory(dim, &values(dim * rows, seed), part_rows);
        let queries = values(dim * count, seed ^ 0xabcdef);
        let slack = (dim as f64 + 5.0) * f64::from(f32::EPSILON) * dim as f64;
        let mut row = vec![0.0; dim];
        for (query, hits) in queries.chunks(dim).zip(memory.search_images(&queries, n).unwrap()) {
            let exact: Vec<f64> = (0..rows as u64)
                .map(|id| {
                    memory.image_embedding(id, &mut row).unwrap();
                    row.iter().zip(query).map(|(x, q)| f64::from(*x) * f64::from(*q)).sum()
                })
                .collect();
            let mut order: Vec<usize> = (0..rows).collect();
            order.sort_by(|&a, &b| exact[b].total_cmp(&exact[a]).then(a.cmp(&b)));
            prop_assert_eq!(hits.len(), n.min(rows));
            let distinct: std::collections::HashSet<u64> = hits.iter().map(|h| h.id).collect();
            prop_assert_eq!(distinct.len(), hits.len());
            for (hit, &expected) in hits.iter().zip(&order) {
                let found = exact[hit.id as usize];
                prop_assert!((f64::from(hit.similarity) - found).abs() <= slack);
                prop_assert!((found - exact[expected]).abs() <= 2.0 * slack);
            }
        }
    }
}

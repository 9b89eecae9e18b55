//! Search on an NVIDIA GPU finds what the search without one finds, bit for bit. Needs a card: without one nothing is tested, unless
//! `XMORE_REQUIRE_GPU` is set.

#![cfg(feature = "cuda")]

use half::f16;
use xmore_cuda::Device;
use xmore_memory::search::gpu::{GpuOptions, GpuRows};
use xmore_memory::search::{Hit, RowSet, SearchOptions, SearchPart, search};
use xmore_memory::store::{MemoryWriter, ModelIdentity};
use xmore_memory::{Memory, MemoryError, VectorError};

/// The first card; `None` is said, and a failure where a card is required.
fn card() -> Option<Device> {
    match Device::open(0) {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            println!("SKIPPED: no NVIDIA GPU ({error})");
            None
        }
    }
}

/// Repeatable, nearly normal values (xorshift; sums of four uniform ones).
fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

/// Unit rows, `[count, dim]`.
fn units(count: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rows = normal(count * dim, seed);
    for row in rows.chunks_exact_mut(dim) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
    rows
}

fn halves(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&v| f16::from_f32(v)).collect()
}

fn bits(hits: &[Vec<Hit>]) -> Vec<Vec<(u64, u32)>> {
    hits.iter().map(|h| h.iter().map(|h| (h.id, h.similarity.to_bits())).collect()).collect()
}

/// Rows in two parts, with a gap between their ids.
fn two_parts(rows: &[f16], dim: usize) -> [SearchPart<'_>; 2] {
    let first = rows.len() / dim / 3;
    let (a, b) = rows.split_at(first * dim);
    [
        SearchPart { first_id: 5, rows: a, codes: None },
        SearchPart { first_id: 9 + first as u64, rows: b, codes: None },
    ]
}

/// Compares both searches; gives how many queries the card did not decide.
fn compare(
    gpu: &GpuRows,
    parts: &[SearchPart<'_>],
    dim: usize,
    queries: &[f32],
    options: &SearchOptions<'_>,
) -> u64 {
    let expected = search(parts, dim, queries, options).unwrap();
    let found = gpu.search(parts, queries, options).unwrap();
    let (expected, hits) = (bits(&expected.hits), bits(&found.hits));
    for (q, (expected, found)) in expected.iter().zip(&hits).enumerate() {
        assert_eq!(
            found,
            expected,
            "query {q} of {}, dim {dim}, n {}, rows {:?}",
            hits.len(),
            options.n,
            options.rows
        );
    }
    assert_eq!(hits.len(), expected.len());
    found.counts.undecided
}

#[test]
fn hits_have_the_same_bits_for_any_dimension_number_of_hits_and_of_queries() {
    let Some(device) = card() else { return };
    for dim in [512, 384, 768, 100] {
        let rows = 150_000;
        let stored = halves(&units(rows, dim, dim as u64));
        let parts = two_parts(&stored, dim);
        let gpu = GpuRows::new(&device, &parts, dim).unwrap();
        let queries = units(1024, dim, 99 + dim as u64);
        for n in [1, 10, 128, 1000] {
            for count in [1, 2, 3, 8, 9, 64, 65, 200, 1024] {
                // All sizes with one dimension; the larger ones cost the search without a card most.
                if count == 1024 && (dim != 512 || n != 128) {
                    continue;
                }
                let undecided = compare(&gpu, &parts, dim, &queries[..count * dim], &SearchOptions::new(n));
                assert_eq!(undecided, 0, "dim {dim}, n {n}, {count} queries");
            }
        }
    }
}

#[test]
fn cards_without_hopper_s_instructions_find_the_same() {
    let Some(device) = card() else { return };
    for dim in [512, 100] {
        let stored = halves(&units(100_000, dim, 21));
        let parts = two_parts(&stored, dim);
        let options = GpuOptions { keep: true, hopper: false };
        let gpu = GpuRows::with_options(&device, &parts, dim, options).unwrap();
        let queries = units(300, dim, 22);
        for count in [9, 64, 65, 300] {
            for n in [1, 128] {
                assert_eq!(compare(&gpu, &parts, dim, &queries[..count * dim], &SearchOptions::new(n)), 0);
            }
        }
    }
}

#[test]
fn rows_that_are_copied_at_each_search_are_found_as_well() {
    let Some(device) = card() else { return };
    // More than two pieces of 128 MiB, so that both are used again.
    let (dim, rows) = (256, 900_000);
    let stored = halves(&units(rows, dim, 3));
    let parts = two_parts(&stored, dim);
    let options = GpuOptions { keep: false, ..GpuOptions::fastest(&device, rows as u64, dim).unwrap() };
    let gpu = GpuRows::with_options(&device, &parts, dim, options).unwrap();
    assert!(!gpu.are_kept());
    let queries = units(12, dim, 4);
    for count in [1, 12] {
        for n in [1, 128] {
            assert_eq!(compare(&gpu, &parts, dim, &queries[..count * dim], &SearchOptions::new(n)), 0);
        }
    }
    let options = SearchOptions { rows: Some(1000..700_001), ..SearchOptions::new(50) };
    assert_eq!(compare(&gpu, &parts, dim, &queries, &options), 0);
}

#[test]
fn ranges_and_sets_of_rows_are_kept_to() {
    let Some(device) = card() else { return };
    let (dim, rows) = (128, 40_000);
    let stored = halves(&units(rows, dim, 5));
    let parts = two_parts(&stored, dim);
    let gpu = GpuRows::new(&device, &parts, dim).unwrap();
    assert!(gpu.are_kept());
    let queries = units(20, dim, 6);
    for range in
        [0..0, 0..5, 5..6, 0..10_000, 13_337..13_342, 13_338..13_350, 20_000..u64::MAX, 39_990..50_000]
    {
        for count in [2, 20] {
            let options = SearchOptions { rows: Some(range.clone()), ..SearchOptions::new(100) };
            assert_eq!(compare(&gpu, &parts, dim, &queries[..count * dim], &options), 0, "{range:?}");
        }
    }
    let allowed = RowSet::from_fn(50_000, |id| id % 7 == 0);
    compare(
        &gpu,
        &parts,
        dim,
        &queries,
        &SearchOptions { allowed: Some(&allowed), ..SearchOptions::new(10) },
    );
}

#[test]
fn few_rows_ties_and_rows_with_a_nan_are_searched_alike() {
    let Some(device) = card() else { return };
    let dim = 64;
    for rows in [1, 7, 127, 128, 129, 1000, 8192, 8193] {
        let mut stored = halves(&units(rows, dim, 7));
        for (r, row) in stored.chunks_exact_mut(dim).enumerate() {
            if r % 5 == 3 {
                row[r % dim] = f16::NAN;
            }
        }
        // Every other row is one of three.
        let three = halves(&units(3, dim, 8));
        for (r, row) in stored.chunks_exact_mut(dim).enumerate().step_by(2) {
            row.copy_from_slice(&three[r % 3 * dim..][..dim]);
        }
        let parts = [SearchPart { first_id: 0, rows: &stored, codes: None }];
        let gpu = GpuRows::new(&device, &parts, dim).unwrap();
        let queries = units(17, dim, 9);
        for n in [1, 10, 1000, 100_000] {
            for count in [1, 3, 17] {
                compare(&gpu, &parts, dim, &queries[..count * dim], &SearchOptions::new(n));
            }
        }
    }
}

#[test]
fn clusters_that_overflow_lists_and_queries_beyond_f16_are_searched_for_without_the_card() {
    let Some(device) = card() else { return };
    let (dim, rows) = (128, 60_000);
    // All rows are nearly the first: no bound decides which are best.
    let center = units(1, dim, 10);
    let noise = normal(rows * dim, 11);
    let stored: Vec<f32> = (0..rows * dim).map(|i| center[i % dim] + noise[i] * 1e-4).collect();
    let stored = halves(&stored);
    let parts = [SearchPart { first_id: 0, rows: &stored, codes: None }];
    let gpu = GpuRows::new(&device, &parts, dim).unwrap();
    let mut queries = [center.repeat(15), units(2, dim, 12)].concat();
    let undecided = compare(&gpu, &parts, dim, &queries, &SearchOptions::new(10));
    assert!(undecided >= 15, "{undecided}");

    queries[3] = 1e5;
    compare(&gpu, &parts, dim, &queries, &SearchOptions::new(10));
    // A query of zeros ties all rows.
    queries.fill(0.0);
    for count in [1, 17] {
        compare(&gpu, &parts, dim, &queries[..count * dim], &SearchOptions::new(10));
    }
}

#[test]
fn rows_with_an_infinity_and_of_any_size_are_searched_alike() {
    let Some(device) = card() else { return };
    let (dim, rows) = (96, 30_000);
    let mut stored: Vec<f16> = halves(&normal(rows * dim, 13));
    for (r, row) in stored.chunks_exact_mut(dim).enumerate() {
        let scale = f16::from_f32([1.0, 30.0, 1e-4][r % 3]);
        row.iter_mut().for_each(|x| *x *= scale);
    }
    let queries = normal(20 * dim, 14);
    for infinite in [false, true] {
        if infinite {
            stored[12_345] = f16::INFINITY;
        }
        let parts = [SearchPart { first_id: 0, rows: &stored, codes: None }];
        let gpu = GpuRows::new(&device, &parts, dim).unwrap();
        for count in [1, 20] {
            let undecided = compare(&gpu, &parts, dim, &queries[..count * dim], &SearchOptions::new(64));
            assert_eq!(undecided, if infinite { count as u64 } else { 0 });
        }
    }
}

#[test]
fn rows_sorted_by_likeness_do_not_overflow_lists() {
    let Some(device) = card() else { return };
    // 100 groups, one after another: the best rows of a query are all in one place.
    let (dim, rows) = (256, 200_000);
    let centers = units(100, dim, 15);
    let noise = units(rows, dim, 16);
    let stored: Vec<f32> = (0..rows * dim)
        .map(|i| 0.7 * centers[i / dim * 100 / rows * dim + i % dim] + 0.7 * noise[i])
        .collect();
    let stored = halves(&stored);
    let parts = [SearchPart { first_id: 0, rows: &stored, codes: None }];
    let gpu = GpuRows::new(&device, &parts, dim).unwrap();
    for count in [1, 100] {
        assert_eq!(compare(&gpu, &parts, dim, &centers[..count * dim], &SearchOptions::new(128)), 0);
    }
}

#[test]
fn threads_search_the_same_rows_at_once() {
    let Some(device) = card() else { return };
    let (dim, rows) = (128, 50_000);
    let stored = halves(&units(rows, dim, 17));
    let parts = [SearchPart { first_id: 0, rows: &stored, codes: None }];
    let gpu = GpuRows::new(&device, &parts, dim).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (gpu, parts) = (&gpu, &parts);
            scope.spawn(move || {
                for count in [1, 5, 30] {
                    let queries = units(count, dim, 100 + thread);
                    assert_eq!(compare(gpu, parts, dim, &queries, &SearchOptions::new(20)), 0);
                }
            });
        }
    });
}

#[test]
fn a_memory_that_is_searched_on_a_card_finds_the_same_pairs() {
    let Some(device) = card() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (dim, rows) = (48, 3000);
    let mut writer = MemoryWriter::create(dir.path(), ModelIdentity::new("m", String::new(), dim))
        .unwrap()
        .with_part_rows(777);
    let (images, texts) = (units(rows, dim, 18), units(rows, dim, 19));
    for (image, text) in images.chunks_exact(dim).zip(texts.chunks_exact(dim)) {
        writer.push("image", "caption", image, text).unwrap();
    }
    writer.finish().unwrap();
    let without = Memory::open(dir.path()).unwrap();
    let mut with = Memory::open(dir.path()).unwrap();
    with.search_on(&device);
    for count in [1, 40] {
        let queries = units(count, dim, 20);
        assert_eq!(
            bits(&with.search_images(&queries, 25).unwrap()),
            bits(&without.search_images(&queries, 25).unwrap())
        );
        assert_eq!(
            bits(&with.search_texts(&queries, 25).unwrap()),
            bits(&without.search_texts(&queries, 25).unwrap())
        );
    }
    let error = with.search_images(&[f32::NAN; 48], 1).unwrap_err();
    assert!(matches!(error, MemoryError::Vector(VectorError::NotFinite { .. })), "{error}");
}

//! The bounds against exact scores, and coded searches against those that read every row.

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::error::MemoryError;
use crate::search::codes::{self, Codes};
use crate::search::tiles::run_halves;
use crate::search::{Hit, RowSet, SearchOptions, VectorError, exact, search};

/// Repeatable values in -1..1 (xorshift).
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut seed = seed | 1;
    (0..count)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Rows as embeddings are, and every kind that a bound could get wrong.
fn rows(kinds: &[u8], dim: usize, seed: u64) -> Vec<f16> {
    let mut rows = values(kinds.len() * dim, seed);
    for (row, kind) in rows.chunks_exact_mut(dim).zip(kinds) {
        match kind {
            // Nearly the same row many times.
            0..4 => row.iter_mut().enumerate().for_each(|(d, x)| *x = 0.001 * *x + (d % 3) as f32 / 4.0),
            4 => row[0] = 500.0,
            5 => row.fill(0.25),
            6 => row.fill(0.0),
            7 => row.iter_mut().for_each(|x| *x *= 1e-6),
            8 => row.iter_mut().for_each(|x| *x *= 6e4),
            9 => row[dim / 2] = f32::NAN,
            10 => row[dim - 1] = f32::INFINITY,
            11 => row[0] = f32::NEG_INFINITY,
            _ => {}
        }
    }
    rows.into_iter().map(f16::from_f32).collect()
}

fn encoded(rows: &[f16], dim: usize) -> (tempfile::TempDir, Codes) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("codes.bin");
    codes::write(&path, rows, dim).unwrap();
    let codes = Codes::open(&path, rows.len() / dim, dim).unwrap();
    (dir, codes)
}

/// Codes as version 1 of the files had them.
fn encoded_whole(rows: &[f16], dim: usize) -> (tempfile::TempDir, Codes) {
    let (dir, codes) = encoded(rows, dim);
    let path = dir.path().join("codes.bin");
    let mut bytes = std::fs::read(&path).unwrap()[..(HEADER + 4 * dim).next_multiple_of(HEADER)].to_vec();
    bytes[8] = 1;
    bytes[32..36].fill(0);
    for index in 0..codes.blocks() {
        let (mut buffers, kernel) = (BlockBuffers::default(), kernel::best());
        let block = codes.block(index, kernel, buffers.of(codes.groups()).into_iter().next().unwrap());
        for factors in [block.scales, block.errors] {
            bytes.extend(factors.iter().flat_map(|f| f.to_le_bytes()));
        }
        bytes.extend(&block.codes[..dim.next_multiple_of(4) * BLOCK]);
    }
    std::fs::write(&path, bytes).unwrap();
    let codes = Codes::open(&path, rows.len() / dim, dim).unwrap();
    assert!(!codes.has_halves());
    (dir, codes)
}

/// The bits of every row's score, as a search without codes computes it; rows without a score are left out.
fn scores(rows: &[f16], dim: usize, query: &[f32]) -> Vec<Hit> {
    let part = SearchPart { first_id: 0, rows, codes: None };
    let filter = Filter { rows: 0..u64::MAX, allowed: None };
    exact::top_n(&[part], dim, query, rows.len() / dim, &filter).remove(0).into_hits()
}

fn bits(hits: &[Vec<Hit>]) -> Vec<Vec<(u64, u32)>> {
    hits.iter().map(|h| h.iter().map(|h| (h.id, h.similarity.to_bits())).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_score_is_within_its_bounds_and_passes_the_test_of_any_floor_it_reaches(
        kinds in prop::collection::vec(0u8..20, 1..60), dim in 1usize..150, seed: u64,
        size in prop_oneof![Just(1.0f32), 1e-8f32..1e8],
    ) {
        let rows = rows(&kinds, dim, seed);
        let query: Vec<f32> = values(dim, !seed).into_iter().map(|y| y * size).collect();
        let (_dir, codes) = encoded(&rows, dim);
        let digits = Digits::new(&query).unwrap();
        let bounds = Bounds::new(&query, &digits, &codes);
        for hit in scores(&rows, dim, &query) {
            let (block, r) = (hit.id as usize / BLOCK, hit.id as usize % BLOCK);
            let exact: f64 = rows[hit.id as usize * dim..][..dim]
                .iter()
                .zip(&query)
                .map(|(x, y)| x.to_f64() * f64::from(*y))
                .sum();
            for kernel in kernel::available() {
                let (mut high, mut low) = (TileOut::new(), TileOut::new());
                let test = Test { floor: hit.similarity, ..bounds.test };
                let offsets = [digits.high_offset];
                let high_digits = Digits8 { values: &digits.high, offsets: &offsets };
                let mut buffers = BlockBuffers::default();
                let [buffer, _] = buffers.of(codes.groups());
                let factors = codes.block(block, kernel, buffer);
                let some = run_tile(kernel, &[factors], codes.groups(), high_digits, &[test], &mut high);
                let low_digits = Digits8 { values: &digits.low, offsets: &[digits.low_offset] };
                run_tile(kernel, &[factors], codes.groups(), low_digits, &[test], &mut low);
                prop_assert!(some[0] == 1 && high.passed[0] >> r & 1 == 1,
                    "{} drops row {} of kind {}", kernel.name, hit.id, kinds[hit.id as usize]);
                let (mut of_halves, halves) = (TileOut::new(), codes.high(block));
                let test = Test { floor: hit.similarity, ..bounds.test_of_halves };
                run_halves(kernel, halves, codes.groups(), high_digits, &[test], &mut of_halves);
                let upper = test.upper(of_halves.sums[0][r], halves.scales[r], halves.errors[r]);
                prop_assert!(of_halves.passed[0] >> r & 1 == 1 && (upper.is_nan() || upper >= hit.similarity),
                    "{} drops row {} of kind {} by its halves", kernel.name, hit.id, kinds[hit.id as usize]);
                let (lower, upper) = bounds.of(high.sums[0][r], low.sums[0][r], factors.scales[r], factors.errors[r]);
                for score in [f64::from(hit.similarity), exact] {
                    prop_assert!(f64::from(lower) <= score && score <= f64::from(upper),
                        "row {} of kind {}: {} not in {}..{}", hit.id, kinds[hit.id as usize], score, lower, upper);
                }
            }
        }
    }

    /// The same bits with codes for all parts, for some and for none, on every kernel, for any filter.
    #[test]
    fn codes_change_no_bits(
        kinds in prop::collection::vec(0u8..60, 1..900), dim in 1usize..80, count in 1usize..20, n in prop_oneof![1usize..4, 1usize..30],
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..3), without in 0usize..4,
        range in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())), modulus in 0u64..5, seed: u64,
        whole in 0usize..8,
    ) {
        let rows = rows(&kinds, dim, seed);
        let queries = values(dim * count, !seed);
        let mut ends: Vec<usize> = splits.iter().map(|s| s.index(kinds.len() + 1)).chain([kinds.len()]).collect();
        ends.sort_unstable();
        let mut start = 0;
        let parts: Vec<_> = ends.iter().map(|&end| {
            let part = &rows[start * dim..end * dim];
            let first_id = start as u64;
            start = end;
            let codes = if whole == ends.iter().position(|&e| e == end).unwrap() {
                encoded_whole(part, dim)
            } else {
                encoded(part, dim)
            };
            (first_id, part, codes)
        }).collect();
        let part = |i: usize, coded: bool| {
            let (first_id, rows, (_, codes)) = &parts[i];
            SearchPart { first_id: *first_id, rows, codes: coded.then_some(codes) }
        };
        let set = RowSet::from_fn(kinds.len() as u64, |id| modulus < 2 || id % modulus == 0);
        let at = |i: prop::sample::Index| i.index(kinds.len() + 1) as u64;
        let options = SearchOptions {
            n,
            rows: range.map(|(a, b)| at(a).min(at(b))..at(a).max(at(b))),
            allowed: (modulus > 0).then_some(&set),
        };
        let plain: Vec<_> = (0..parts.len()).map(|i| part(i, false)).collect();
        let expected = search(&plain, dim, &queries, &options).unwrap().hits;

        // Brute force: all scores, of which those that may be found are kept.
        for (query, hits) in queries.chunks_exact(dim).zip(&expected) {
            let mut all = scores(&rows, dim, query);
            all.retain(|h| set.contains(h.id) && options.rows.as_ref().is_none_or(|r| r.contains(&h.id)));
            all.truncate(n);
            prop_assert_eq!(&bits(&[all]), &bits(std::slice::from_ref(hits)));
        }
        let mixed: Vec<_> = (0..parts.len()).map(|i| part(i, i != without)).collect();
        let found = search(&mixed, dim, &queries, &options).unwrap();
        prop_assert_eq!(bits(&found.hits), bits(&expected));
        // However few the rows are, and on every kernel.
        let coded: Vec<_> = (0..parts.len()).map(|i| part(i, true)).collect();
        let filter = Filter { rows: options.rows.clone().unwrap_or(0..u64::MAX), allowed: options.allowed };
        let of = |values| CodedQuery { values, digits: Digits::new(values).unwrap() };
        let coded_queries: Vec<_> = queries.chunks_exact(dim).map(of).collect();
        for (kernel, look) in kernel::available().into_iter().flat_map(|k| [(k, When::Pays), (k, When::Always)]) {
            let tops = (0..count).map(|_| Top::new(n)).collect();
            let (tops, _) = top_n_with(kernel, look, &coded, &coded_queries, n, &filter, tops);
            for (top, expected) in tops.into_iter().zip(&expected) {
                let hits = top.unwrap().into_hits();
                prop_assert_eq!(bits(&[hits]), bits(std::slice::from_ref(expected)), "{} {:?}", kernel.name, look);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever a file of codes is damaged, it is refused or the search stays within the rows.
    #[test]
    fn damaged_codes_never_lead_out_of_the_rows(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), head in any::<bool>(), seed: u64,
    ) {
        let (count, dim, n) = (600, 5, 2);
        let rows = rows(&vec![99; count], dim, seed);
        let (dir, _) = encoded(&rows, dim);
        let path = dir.path().join("codes.bin");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = if head { 128 } else { bytes.len() };
        flips.into_iter().for_each(|(at, by)| bytes[at.index(end)] ^= by);
        std::fs::write(&path, bytes).unwrap();
        if let Ok(codes) = Codes::open(&path, count, dim) {
            let part = SearchPart { first_id: 10, rows: &rows, codes: Some(&codes) };
            let found = search(&[part], dim, &values(dim * 3, !seed), &SearchOptions::new(n)).unwrap();
            for hits in found.hits {
                prop_assert!(hits.len() <= n && hits.iter().all(|h| (10..10 + count as u64).contains(&h.id)));
            }
        }
    }
}

#[test]
fn few_rows_are_scored_exactly() {
    let (count, dim, n) = (20_000, 64, 10);
    let rows = rows(&vec![99; count], dim, 7);
    let (_dir, codes) = encoded(&rows, dim);
    let part = SearchPart { first_id: 0, rows: &rows, codes: Some(&codes) };
    let found = search(&[part], dim, &values(dim * 3, 9), &SearchOptions::new(n)).unwrap();
    assert_eq!(found.counts.undecided, 0);
    assert!(found.counts.scored >= 3 * n as u64 && found.counts.scored < 1_000, "{:?}", found.counts);
}

/// Rows of two kinds: most are far from the query, and a first look leaves them out.
#[test]
fn a_first_look_changes_no_bits() {
    let (count, dim, n) = (40_000, 64, 10);
    let mut values = values(count * dim, 7);
    let query = values[..dim].to_vec();
    for row in values.chunks_exact_mut(dim).step_by(1_000) {
        row.iter_mut().zip(&query).for_each(|(x, y)| *x = 0.1 * *x + y);
    }
    let rows: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
    let (_dir, codes) = encoded(&rows, dim);
    let plain = SearchPart { first_id: 3, rows: &rows, codes: None };
    let coded = SearchPart { codes: Some(&codes), ..plain };
    let expected = search(&[plain], dim, &query, &SearchOptions::new(n)).unwrap();
    let filter = Filter { rows: 0..u64::MAX, allowed: None };
    for kernel in kernel::available() {
        let queries = [CodedQuery { values: &query, digits: Digits::new(&query).unwrap() }];
        let (mut tops, counts) =
            top_n_with(kernel, When::Pays, &[coded], &queries, n, &filter, vec![Top::new(n)]);
        assert_eq!(bits(&[tops.remove(0).unwrap().into_hits()]), bits(&expected.hits), "{}", kernel.name);
        assert!(counts.candidates < 100, "{counts:?}");
    }
}

#[test]
fn rows_that_no_bound_tells_apart_are_all_read() {
    let (count, dim, n) = (40_000, 4, 5);
    let rows: Vec<f16> = [0.5, 0.25, -0.5, 0.0].map(f16::from_f32).repeat(count);
    let (_dir, codes) = encoded(&rows, dim);
    let part = SearchPart { first_id: 3, rows: &rows, codes: Some(&codes) };
    let found = search(&[part], dim, &[1.0, 0.0, 0.0, 0.0].repeat(2), &SearchOptions::new(n)).unwrap();
    assert_eq!(found.counts.undecided, 2);
    for hits in found.hits {
        assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    }
}

/// Bytes of a file of codes before the mean.
const HEADER: usize = 64;

/// Flips of bits that make a factor one that no row can have; all else is left to checksums.
#[test]
fn factors_that_no_row_can_have_are_noticed_and_not_used() {
    let (count, dim) = (1_000, 32);
    let rows = rows(&vec![99; count], dim, 7);
    let (dir, codes) = encoded(&rows, dim);
    assert!(codes.are_trusted() && !codes.found_damaged());
    let path = dir.path().join("codes.bin");
    let good = std::fs::read(&path).unwrap();
    let block = HEADER + dim * 4;
    let (blocks, high, low) =
        (count.div_ceil(BLOCK), 2 * 4 * BLOCK + BLOCK * dim / 2, 4 * BLOCK + BLOCK * dim / 2);
    let errors = block + blocks * high;
    let options = SearchOptions::new(3);
    let query = values(dim, 9);
    let plain = SearchPart { first_id: 0, rows: &rows, codes: None };
    let expected = search(&[plain], dim, &query, &options).unwrap().hits;
    // The sign and the highest bits of the exponents of row 5's scale and errors, and of padding behind the last row.
    let (last, last_low) = (block + (blocks - 1) * high, errors + (blocks - 1) * low);
    let (scale, half_error, error) = (block + 23, block + 87, errors + 23);
    let of_rows =
        [(scale, 7), (scale, 6), (scale, 0), (half_error, 7), (half_error, 6), (error, 7), (error, 6)];
    // And a largest length that is too small for the scales.
    for (at, bit) in of_rows.into_iter().chain([(last + 63, 5), (last_low + 63, 5), (35, 6)]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, bytes).unwrap();
        let codes = Codes::open(&path, count, dim).unwrap();
        let found = search(&[SearchPart { codes: Some(&codes), ..plain }], dim, &query, &options).unwrap();
        assert_eq!(bits(&found.hits), bits(&expected), "bit {bit} of byte {at}");
        assert!(codes.found_damaged(), "bit {bit} of byte {at}");
    }
    // The header is looked at when it is opened: lengths and the mean, and what is zero.
    for (at, bit) in [(27, 7), (27, 6), (31, 6), (35, 7), (40, 0), (HEADER + 3, 6)] {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, bytes).unwrap();
        assert!(Codes::open(&path, count, dim).is_err(), "bit {bit} of byte {at}");
    }
}

#[test]
fn codes_of_other_rows_are_noticed() {
    let (count, dim) = (5_000, 32);
    let (these, others) = (rows(&vec![99; count], dim, 7), rows(&vec![99; count], dim, 8));
    let (_dir, codes) = encoded(&others, dim);
    let options = SearchOptions::new(10);
    let query = values(dim, 9);
    let stale = SearchPart { first_id: 0, rows: &these, codes: Some(&codes) };
    let plain = SearchPart { codes: None, ..stale };
    let (found, expected) =
        (search(&[stale], dim, &query, &options).unwrap(), search(&[plain], dim, &query, &options).unwrap());
    assert_eq!(found.counts.undecided, 1);
    assert_eq!(found.hits, expected.hits);
    assert!(codes.found_damaged());
}

#[test]
fn queries_that_are_no_embeddings_are_answered_all_the_same() {
    let (count, dim) = (1_000, 3);
    let rows = rows(&vec![99; count], dim, 7);
    let (_dir, codes) = encoded(&rows, dim);
    let coded = SearchPart { first_id: 0, rows: &rows, codes: Some(&codes) };
    let plain = SearchPart { codes: None, ..coded };
    let queries = [[0.0f32; 3], [1e-40; 3], [3e38, -3e38, 3e38]].concat();
    let options = SearchOptions::new(3);
    let (found, expected) = (
        search(&[coded], dim, &queries, &options).unwrap(),
        search(&[plain], dim, &queries, &options).unwrap(),
    );
    assert_eq!(found.counts.undecided, 3);
    assert_eq!(bits(&found.hits), bits(&expected.hits));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let rows = rows(&[99; 40], 3, 7);
    let (_dir, codes) = encoded(&rows, 3);
    let part = SearchPart { first_id: 0, rows: &rows, codes: Some(&codes) };
    let refused = |parts: &[SearchPart<'_>], dim: usize, queries: &[f32]| {
        let error = search(parts, dim, queries, &SearchOptions::new(3)).unwrap_err();
        assert!(matches!(error, MemoryError::Vector(VectorError::Length { .. })), "{error}");
    };
    refused(&[part], 7, &[0.0; 7]);
    refused(&[SearchPart { rows: &rows[3..], ..part }], 3, &[0.0; 3]);
    refused(&[part, SearchPart { first_id: 39, ..part }], 3, &[0.0; 3]);
    refused(&[part], 3, &[0.0; 4]);
    refused(&[part], 0, &[0.0; 4]);
}

//! Kernels against plain integers, files against damage.

use proptest::prelude::*;

use super::kernel::{MAX_BLOCKS, MIDDLE, Test, Tile, available};
use super::*;
use crate::error::MemoryError;
use crate::search::VectorError;
use crate::store::StoreError;

fn bytes(n: usize, mut seed: u64) -> Vec<u8> {
    (0..n)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Ends of the range come often: they are what could overflow.
            match seed >> 60 {
                0..4 => 0,
                4..8 => 255,
                _ => (seed >> 50) as u8,
            }
        })
        .collect()
}

/// Digits of at most 64 in size.
fn digits(n: usize, seed: u64) -> Vec<i8> {
    bytes(n, seed).into_iter().map(|b| ((i16::from(b) - 127) / 2).clamp(-64, 64) as i8).collect()
}

proptest! {
    #[test]
    fn all_kernels_compute_the_same_whole_numbers(groups in 1usize..60, seed: u64) {
        let codes = bytes(MAX_BLOCKS * groups * BLOCK * GROUP, seed);
        let factors: Vec<f32> = bytes(4 * BLOCK, !seed).into_iter().map(|b| f32::from(b) / 100.0).collect();
        let (scales, errors) = factors.split_at(2 * BLOCK);
        for kernel in available() {
            for (blocks, queries) in (1..=kernel.blocks).flat_map(|b| (1..=kernel.queries).map(move |q| (b, q))) {
                let panel = digits(groups * queries * GROUP, seed ^ queries as u64);
                let digit = |q: usize, d: usize| i64::from(panel[(d / GROUP * queries + q) * GROUP + d % GROUP]);
                let total = |q| (0..groups * GROUP).map(|d| digit(q, d)).sum::<i64>();
                let offsets: Vec<i32> = (0..queries).map(|q| -128 * total(q) as i32).collect();
                let tests: Vec<Test> = (0..queries)
                    .map(|q| Test { factor: 0.5, norm: 3.0, base: 0.25 - q as f32, floor: 3e4 * (q as f32 - 1.0) })
                    .collect();
                let mut sums = vec![[i32::MIN; BLOCK]; blocks * queries];
                let mut passed = vec![0u16; blocks * queries];
                let block = |b: usize| codes[b * groups * BLOCK * GROUP..].as_ptr();
                let tile = Tile {
                    codes: [block(0), block(1)],
                    scales: [scales.as_ptr(), scales[BLOCK..].as_ptr()],
                    errors: [errors.as_ptr(), errors[BLOCK..].as_ptr()],
                    groups,
                    panel: panel.as_ptr(),
                    offsets: offsets.as_ptr(),
                    tests: tests.as_ptr(),
                    sums: sums.as_mut_ptr(),
                    passed: passed.as_mut_ptr(),
                };
                // SAFETY: all arrays were made as long as `Tile` says, and the kernel is one that the processor has.
                #[allow(unsafe_code)]
                let some = unsafe { kernel.tiles[blocks - 1][queries - 1].unwrap()(&tile) };
                for (b, q) in (0..blocks).flat_map(|b| (0..queries).map(move |q| (b, q))) {
                    prop_assert_eq!(some[b] >> q & 1 == 1, passed[b * queries + q] != 0);
                    for r in 0..BLOCK {
                        let code = |d: usize| codes[((b * groups + d / GROUP) * BLOCK + r) * GROUP + d % GROUP];
                        let sum: i64 = (0..groups * GROUP).map(|d| (i64::from(code(d)) - 128) * digit(q, d)).sum();
                        prop_assert_eq!(i64::from(sums[b * queries + q][r]), sum, "{} {}x{}", kernel.name, blocks, queries);
                        let (s, e, t) = (f64::from(scales[b * BLOCK + r]), f64::from(errors[b * BLOCK + r]), &tests[q]);
                        let upper = s * (sum as f64 * f64::from(t.factor)) + e * f64::from(t.norm) + f64::from(t.base);
                        let passes = passed[b * queries + q] >> r & 1 == 1;
                        let close = (upper - f64::from(t.floor)).abs() < 1.0;
                        prop_assert!(close || passes == (upper >= f64::from(t.floor)), "{}", kernel.name);
                    }
                }
            }
        }
    }
}

/// The largest dimension, with the bytes and digits that make the largest sums.
#[test]
fn no_sum_overflows() {
    let groups = MAX_DIM / GROUP;
    for (byte, digit) in [(0u8, 64i8), (255, 64), (0, -64), (255, -64)] {
        let codes = vec![byte; groups * BLOCK * GROUP];
        let (factors, panel) = ([0.0f32; BLOCK], vec![digit; groups * GROUP]);
        let expected = (i32::from(byte) - 128) * i32::from(digit) * MAX_DIM as i32;
        let offsets = [-128 * i32::from(digit) * MAX_DIM as i32];
        let test_of_one = [Test::default()];
        for kernel in available() {
            let (mut sums, mut passed) = ([[0; BLOCK]], [0]);
            let tile = Tile {
                codes: [codes.as_ptr(); MAX_BLOCKS],
                scales: [factors.as_ptr(); MAX_BLOCKS],
                errors: [factors.as_ptr(); MAX_BLOCKS],
                groups,
                panel: panel.as_ptr(),
                offsets: offsets.as_ptr(),
                tests: test_of_one.as_ptr(),
                sums: sums.as_mut_ptr(),
                passed: passed.as_mut_ptr(),
            };
            // SAFETY: all arrays are as long as `Tile` says for one block and one query, and the processor has the kernel.
            #[allow(unsafe_code)]
            unsafe {
                kernel.tiles[0][0].unwrap()(&tile);
            }
            assert_eq!(sums, [[expected; BLOCK]], "{}", kernel.name);
        }
    }
}

proptest! {
    #[test]
    fn all_kernels_join_halves_and_compute_with_the_high_ones(pairs in 1usize..40, seed: u64) {
        let groups = pairs * PAIR;
        let (high, low) = (bytes(pairs * BLOCK * GROUP, seed), bytes(pairs * BLOCK * GROUP, !seed));
        // Code byte of a row's dimension.
        let whole = |r: usize, d: usize| {
            let (at, shift) = ((d / 8 * BLOCK + r) * GROUP + d % GROUP, d / GROUP % PAIR * 4);
            (high[at] >> shift & 15) << 4 | low[at] >> shift & 15
        };
        let factors = [1.0f32; BLOCK];
        for kernel in available() {
            let mut joined = vec![0; groups * BLOCK * GROUP];
            kernel.join(&high, &low, &mut joined);
            for (i, &byte) in joined.iter().enumerate() {
                let (k, r, j) = (i / (BLOCK * GROUP), i / GROUP % BLOCK, i % GROUP);
                prop_assert_eq!(byte, whole(r, k * GROUP + j), "{}", kernel.name);
            }
            for queries in 1..=kernel.queries {
                let panel = digits(groups * queries * GROUP, seed ^ queries as u64);
                let digit = |q: usize, d: usize| i32::from(panel[(d / GROUP * queries + q) * GROUP + d % GROUP]);
                let offsets: Vec<i32> =
                    (0..queries).map(|q| -128 * (0..groups * GROUP).map(|d| digit(q, d)).sum::<i32>()).collect();
                let tests = vec![Test::default(); queries];
                let (mut sums, mut passed) = (vec![[i32::MIN; BLOCK]; queries], vec![0u16; queries]);
                let tile = Tile {
                    codes: [high.as_ptr(); MAX_BLOCKS],
                    scales: [factors.as_ptr(); MAX_BLOCKS],
                    errors: [factors.as_ptr(); MAX_BLOCKS],
                    groups,
                    panel: panel.as_ptr(),
                    offsets: offsets.as_ptr(),
                    tests: tests.as_ptr(),
                    sums: sums.as_mut_ptr(),
                    passed: passed.as_mut_ptr(),
                };
                // SAFETY: all arrays are as long as `Tile` says for high halves of one block, and the processor has the kernel.
                #[allow(unsafe_code)]
                unsafe {
                    kernel.halves[queries - 1].unwrap()(&tile);
                }
                for q in 0..queries {
                    for r in 0..BLOCK {
                        let code = |d: usize| i32::from(whole(r, d) & 0xf0 | MIDDLE) - 128;
                        let expected: i32 = (0..groups * GROUP).map(|d| code(d) * digit(q, d)).sum();
                        prop_assert_eq!(sums[q][r], expected, "{}", kernel.name);
                    }
                }
            }
        }
    }
}

fn rows(count: usize, dim: usize) -> Vec<f16> {
    bytes(count * dim, 5).into_iter().map(|b| f16::from_f32((f32::from(b) - 100.0) / 256.0)).collect()
}

#[test]
fn the_same_rows_give_the_same_bytes_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (count, dim) = (9_001, 21);
    let rows = rows(count, dim);
    let written: Vec<Vec<u8>> = [1, 2, 5]
        .map(|threads| {
            let path = dir.path().join(format!("{threads}.bin"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| write(&path, &rows, dim)).unwrap();
            std::fs::read(path).unwrap()
        })
        .into();
    assert!(written[1..].iter().all(|bytes| *bytes == written[0]));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "no temporary files are left");
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("codes.bin");
    for (count, dim) in [(0, 3), (1, 1), (17, 5), (16, 64)] {
        write(&path, &rows(count, dim), dim).unwrap();
        let codes = Codes::open(&path, count, dim).unwrap();
        assert_eq!((codes.rows(), codes.dim(), codes.blocks()), (count, dim, count.div_ceil(BLOCK)));
        for index in 0..codes.blocks() {
            let block = codes.high(index);
            assert_eq!([block.scales.len(), block.errors.len()], [BLOCK; 2]);
            assert_eq!(block.codes.len(), BLOCK * dim.next_multiple_of(PAIR * GROUP) / PAIR);
        }
    }
    let error = write(&path, &rows(3, 2), 4).unwrap_err();
    assert!(
        matches!(error, MemoryError::Vector(VectorError::Length { expected: 4, found: 6, .. })),
        "{error}"
    );
}

#[test]
fn codes_of_other_shapes_and_damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("codes.bin");
    write(&path, &rows(40, 8), 8).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], rows: usize, dim: usize| {
        std::fs::write(&path, bytes).unwrap();
        let error = Codes::open(&path, rows, dim).unwrap_err();
        assert!(matches!(error, MemoryError::Store(StoreError::Damaged { .. })), "{error}");
        assert!(error.to_string().contains("codes.bin"), "{error}");
    };
    // 41 rows have as many blocks as 40.
    for (rows, dim) in [(41, 8), (40, 7), (4, 8), (40, 0), (usize::MAX, 8), (usize::MAX / 8, MAX_DIM)] {
        refused(&good, rows, dim);
    }
    for end in [0, 1, 63, 64, good.len() - 1] {
        refused(&good[..end], 40, 8);
    }
    // Magic, version, dim, rows, the norms' signs, the mean.
    for (at, value) in [(0, 0), (8, 3), (12, 9), (16, 41), (23, 1), (27, 0xff), (31, 0xff), (67, 0x7f)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        if at == 67 {
            bytes[66] = 0xff;
        }
        refused(&bytes, 40, 8);
    }
    std::fs::write(&path, &good).unwrap();
    Codes::open(&path, 40, 8).unwrap();
    assert!(matches!(Codes::open(&dir.path().join("none"), 40, 8), Err(MemoryError::Io { .. })));
}

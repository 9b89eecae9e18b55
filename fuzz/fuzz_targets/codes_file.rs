//! Codes of a memory's rows: any bytes give an error or codes that a search can use, which finds rows that there are and nothing else.
#![no_main]

use half::f16;
use libfuzzer_sys::fuzz_target;
use xmore_memory::search::codes::{self, Codes};
use xmore_memory::search::{SearchOptions, SearchPart, search};

const ROWS: usize = 600;
const DIM: usize = 3;

fuzz_target!(|bytes: &[u8]| {
    let rows: Vec<f16> =
        (0..ROWS * DIM).map(|i| f16::from_f32((i * 37 % 101) as f32 / 101.0 - 0.5)).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("codes.bin");
    // As it is, and over a good file, so that inputs get past the size.
    codes::write(&path, &rows, DIM).unwrap();
    let mut over = std::fs::read(&path).unwrap();
    over.iter_mut().zip(bytes).for_each(|(to, by)| *to ^= by);
    for bytes in [bytes, &over] {
        std::fs::write(&path, bytes).unwrap();
        if let Ok(codes) = Codes::open(&path, ROWS, DIM) {
            let part = SearchPart { first_id: 0, rows: &rows, codes: Some(&codes) };
            let found = search(&[part], DIM, &[0.5, -0.25, 1.0], &SearchOptions::new(2)).unwrap();
            assert!(found.hits[0].len() <= 2 && found.hits[0].iter().all(|hit| hit.id < ROWS as u64));
        }
    }
});

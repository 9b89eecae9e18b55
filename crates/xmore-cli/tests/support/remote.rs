//! What tests of remote indexes share: a small memory, what is printed as JSON, and answers compared within a tolerance.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::files::picture;
use super::{Run, tiny_model, xmore};

/// Scores may differ by this much: captions' embeddings are rounded to float16, whose step below 1 is 2⁻¹¹.
const TOLERANCE: f64 = 1.0 / 2048.0;

/// Builds a memory `m` of 80 pairs in `dir` from `pairs.csv`, and a `photo.png` that it does not have.
pub fn memory_and_photo(dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    let mut table = String::from("image_path,caption\n");
    for i in 0..40 {
        picture(&dir.join(format!("{i}.png")), i);
        table += &format!("{i}.png,the {i}. of all things\n{i}.png,one of {}\n", i % 7);
    }
    fs::write(dir.join("pairs.csv"), table).unwrap();
    picture(&dir.join("photo.png"), 4711);
    xmore(&["memory", "build", &path("pairs.csv"), "-o", &path("m"), &tiny_model()]).ok();
}

/// Standard output as JSON.
#[track_caller]
pub fn json_of(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
}

/// The same captions in the same order, and the same numbers within the tolerance; fields of the names `except` are not compared.
#[track_caller]
pub fn assert_same_answer(found: &Value, expected: &Value, except: &[&str]) {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= TOLERANCE, "{a} {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| assert_same_answer(a, b, except));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()));
            a.iter()
                .filter(|(name, _)| !except.contains(&name.as_str()))
                .for_each(|(name, a)| assert_same_answer(a, &b[name], except));
        }
        _ => assert_eq!(found, expected),
    }
}

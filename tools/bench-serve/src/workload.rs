//! What is asked: photos, labels, the bytes of each request, and the answer that the library gives.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use walkdir::WalkDir;
use xmore::{Labels, Method};

use crate::Result;
use crate::http::{Answer, Failure};
use crate::library::{K, METHOD, NEIGHBORS, TOP};
use crate::tally::{Outcome, Tally};

/// At most `most` JPEG files below a folder, evenly spaced in the order of their paths and then dealt out, so that neighbors in the list are
/// from different folders: a batch holds what a server would see.
pub fn photos(dir: &Path, most: usize) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let path = entry?.into_path();
        let jpeg = |e: &std::ffi::OsStr| e.eq_ignore_ascii_case("jpg") || e.eq_ignore_ascii_case("jpeg");
        if path.extension().is_some_and(jpeg) && path.is_file() {
            all.push(path);
        }
    }
    if all.is_empty() {
        return Err(format!("{}: no .jpg or .jpeg file below it", dir.display()).into());
    }
    let kept = most.min(all.len());
    let spaced: Vec<&PathBuf> = (0..kept).map(|i| &all[i * all.len() / kept]).collect();
    let stride = kept.isqrt();
    let dealt = (0..stride).flat_map(|first| spaced.iter().skip(first).step_by(stride));
    Ok(dealt.map(|path| (*path).clone()).collect())
}

/// The labels that are given, else the names of the folders directly below the photos' folder.
pub fn labels(given: Option<&str>, dir: &Path) -> Result<Labels> {
    if let Some(list) = given {
        return Ok(Labels::parse(list)?);
    }
    let mut names = Vec::new();
    for entry in WalkDir::new(dir).min_depth(1).max_depth(1).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Labels::new(names).map_err(|e| {
        format!("{}: the folders below it are no labels ({e}); give --labels a,b", dir.display()).into()
    })
}

/// A label and its score, best first.
pub type Predictions = Vec<(String, f64)>;

/// Requests, ready to be sent, and what the library answers to each.
pub struct Workload {
    requests: Vec<Vec<u8>>,
    expected: Vec<Predictions>,
}

impl Workload {
    /// One request for each photo.
    pub fn new(
        address: SocketAddr,
        photos: &[PathBuf],
        labels: &Labels,
        expected: Vec<Predictions>,
    ) -> Result<Self> {
        let names: Vec<String> = labels.names().iter().map(|name| percent_encode(name)).collect();
        if let Some(name) = labels.names().iter().find(|name| name.contains(',')) {
            return Err(format!("label {name:?}: the query string separates labels by commas").into());
        }
        let target = format!(
            "/v1/classify?labels={}&method={}&k={K}&neighbors={NEIGHBORS}&top={TOP}",
            names.join(","),
            Method::name(METHOD),
        );
        let requests = photos.iter().map(|path| {
            let photo = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let mut request = format!(
                "POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
                photo.len()
            )
            .into_bytes();
            request.extend(photo);
            Ok(request)
        });
        Ok(Self { requests: requests.collect::<Result<_>>()?, expected })
    }

    /// A workload of any requests.
    #[cfg(test)]
    pub fn of(requests: Vec<Vec<u8>>, expected: Vec<Predictions>) -> Self {
        Self { requests, expected }
    }

    /// How many different requests there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// A request; numbers beyond the last begin again.
    pub fn request(&self, number: usize) -> &[u8] {
        &self.requests[number % self.requests.len()]
    }

    /// Whether predictions are those that are expected, to the bit.
    pub fn is_expected(&self, number: usize, predictions: &[(String, f64)]) -> bool {
        let expected = &self.expected[number % self.expected.len()];
        same(expected, predictions.iter().map(|(label, score)| (label.as_str(), *score)))
    }

    /// Counts what a request came to.
    pub fn count(&self, number: usize, result: &Result<Answer<'_>, Failure>, tally: &mut Tally) -> Outcome {
        let expected = &self.expected[number % self.expected.len()];
        tally.count(result, |body| is_right(body, expected))
    }
}

/// The part of an answer that is compared.
#[derive(Deserialize)]
struct Classified<'a> {
    #[serde(borrow)]
    results: Vec<Labeled<'a>>,
}

#[derive(Deserialize)]
struct Labeled<'a> {
    #[serde(borrow)]
    predictions: Vec<Prediction<'a>>,
}

#[derive(Deserialize)]
struct Prediction<'a> {
    #[serde(borrow)]
    label: Cow<'a, str>,
    score: f64,
}

/// Whether an answer has the library's predictions: the same labels in the same order with the same bits.
fn is_right(body: &[u8], expected: &[(String, f64)]) -> bool {
    let Ok(Classified { results }) = serde_json::from_slice(body) else { return false };
    let [Labeled { predictions }] = results.as_slice() else { return false };
    same(expected, predictions.iter().map(|found| (found.label.as_ref(), found.score)))
}

fn same<'a>(expected: &[(String, f64)], found: impl ExactSizeIterator<Item = (&'a str, f64)>) -> bool {
    found.len() == expected.len()
        && expected
            .iter()
            .zip(found)
            .all(|((label, score), (l, s))| label == l && score.to_bits() == s.to_bits())
}

/// For a query string: all but unreserved characters as `%XX`.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            encoded + &char::from(byte).to_string()
        }
        _ => encoded + &format!("%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_to_the_bit() {
        let expected = [("dog".to_owned(), 0.1 + 0.2), ("hot \"air\" balloon".to_owned(), 0.25)];
        let answer = |score: f64| {
            let predictions = serde_json::json!([
                {"label": "dog", "score": score},
                {"score": 0.25, "label": "hot \"air\" balloon", "more": 1},
            ]);
            serde_json::json!({"model": "lite", "results": [{"predictions": predictions}]}).to_string()
        };
        assert!(is_right(answer(0.1 + 0.2).as_bytes(), &expected));
        assert!(!is_right(answer(0.3).as_bytes(), &expected));
        assert!(!is_right(answer(0.1 + 0.2).as_bytes(), &expected[..1]));
        assert!(!is_right(br#"{"results": [{"error": {"code": "undecodable_image"}}]}"#, &expected));
        assert!(!is_right(br#"{"results": []}"#, &[]));
        assert!(!is_right(b"no JSON", &[]));
    }

    #[test]
    fn query_strings_have_unreserved_characters_only() {
        assert_eq!(percent_encode("hot air, b&b=ü~_-.9"), "hot%20air%2C%20b%26b%3D%C3%BC~_-.9");
    }

    #[test]
    fn photos_are_found_spaced_and_dealt_out() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["cat", "dog"] {
            std::fs::create_dir(dir.path().join(class)).unwrap();
            for i in 0..8 {
                std::fs::write(dir.path().join(class).join(format!("{i}.JPEG")), b"").unwrap();
            }
        }
        std::fs::write(dir.path().join("notes.txt"), b"").unwrap();
        let names = |most| -> Vec<String> {
            let found = photos(dir.path(), most).unwrap();
            found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
        };
        assert_eq!(names(4), ["cat/0.JPEG", "dog/0.JPEG", "cat/4.JPEG", "dog/4.JPEG"]);
        let mut all = names(99);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 16);
        assert_eq!(labels(None, dir.path()).unwrap().names(), ["cat", "dog"]);
        assert_eq!(labels(Some("a, b"), dir.path()).unwrap().names(), ["a", "b"]);
        let class = dir.path().join("cat");
        assert!(labels(None, &class).unwrap_err().to_string().contains("give --labels"));
        assert!(photos(&dir.path().join("notes.txt"), 1).unwrap_err().to_string().contains("no .jpg"));
    }
}

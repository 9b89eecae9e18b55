//! A row of an answer, read leniently: a column of another type than expected counts as one that is not there.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// What is read of a row; other columns, such as a whole image, are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    #[serde(default, deserialize_with = "lenient")]
    pub id: Option<u64>,
    #[serde(default, deserialize_with = "finite")]
    pub similarity: Option<f32>,
    #[serde(default, deserialize_with = "text")]
    pub caption: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub url: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub image_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Value(T),
    Other(IgnoredAny),
}

fn lenient<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(match Lenient::deserialize(from)? {
        Lenient::Value(value) => Some(value),
        Lenient::Other(_) => None,
    })
}

fn finite<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    Ok(lenient(from)?.filter(|value: &f32| value.is_finite()))
}

/// A text that says something.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(lenient(from)?.filter(|text: &String| !text.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_odd_types_count_as_missing() {
        let row = |text: &str| serde_json::from_str::<Row>(text).unwrap();
        let good =
            row(r#"{"id": 3, "similarity": 0.25, "caption": "c", "url": "u", "image": "…", "NSFW": null}"#);
        assert_eq!((good.id, good.similarity), (Some(3), Some(0.25)));
        assert_eq!(
            (good.caption.as_deref(), good.url.as_deref(), good.image_path),
            (Some("c"), Some("u"), None)
        );
        let odd = row(r#"{"id": -1, "similarity": null, "caption": 7, "url": "", "image_path": ["x"]}"#);
        assert!(odd.id.is_none() && odd.similarity.is_none() && odd.caption.is_none());
        assert!(odd.url.is_none() && odd.image_path.is_none());
        assert_eq!(row(r#"{"similarity": 1e300}"#).similarity, None);
    }
}

//! One image of a JSON body: its bytes in base64, or another way to name it.

use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// Standard and URL-safe alphabets, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Longest embedding that is read, of all models together.
const MAX_VALUES: usize = 1 << 18;

/// An image, as a caller gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ImageInput {
    /// A file's bytes.
    Bytes(Bytes),
    /// The image of a pair of the memory.
    Pair(u64),
    /// Embeddings by each distinct model, one after another.
    Embedding(Arc<[f32]>),
    /// Somewhere to be fetched from.
    Url(String),
}

impl<'de> Deserialize<'de> for ImageInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ImageVisitor)
    }
}

struct ImageVisitor;

impl<'de> Visitor<'de> for ImageVisitor {
    type Value = ImageInput;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an image: base64, or an object with one of base64, id, embedding, url")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ImageInput, E> {
        decode(text).map(|bytes| ImageInput::Bytes(bytes.into())).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageInput, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if found.is_some() {
                return Err(de::Error::custom("an image has exactly one of base64, id, embedding, url"));
            }
            found = Some(match key.as_str() {
                "base64" => ImageVisitor.visit_str(&map.next_value::<std::borrow::Cow<'_, str>>()?)?,
                "id" => ImageInput::Pair(map.next_value()?),
                "embedding" => ImageInput::Embedding(map.next_value::<EmbeddingInput>()?.0),
                "url" => ImageInput::Url(map.next_value()?),
                other => {
                    return Err(de::Error::unknown_field(other, &["base64", "id", "embedding", "url"]));
                }
            });
        }
        found.ok_or_else(|| de::Error::custom("an image has exactly one of base64, id, embedding, url"))
    }
}

/// An embedding as an array, or as base64 of little-endian f32.
struct EmbeddingInput(Arc<[f32]>);

impl<'de> Deserialize<'de> for EmbeddingInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = EmbeddingInput;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an embedding: an array of numbers, or base64 of little-endian f32")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EmbeddingInput, E> {
                let bytes = decode(text).map_err(E::custom)?;
                let (values, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() || values.len() > MAX_VALUES {
                    return Err(E::custom(format!("{} bytes are no embedding of f32", bytes.len())));
                }
                Ok(EmbeddingInput(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<EmbeddingInput, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<f32>()? {
                    if values.len() == MAX_VALUES {
                        return Err(de::Error::custom(format!("more than {MAX_VALUES} values")));
                    }
                    values.push(value);
                }
                Ok(EmbeddingInput(values.into()))
            }
        }
        deserializer.deserialize_any(Values)
    }
}

/// Base64, also after the head of a `data:` URL.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let text = match text.strip_prefix("data:") {
        Some(url) => match url.split_once(";base64,") {
            Some((_, data)) => data,
            None => return Err("a data: URL without base64".to_owned()),
        },
        None => text,
    };
    let engine = if text.contains(['-', '_']) { &BASE64_URL } else { &BASE64 };
    engine.decode(text.trim()).map_err(|error| format!("the base64 is broken: {error}"))
}

/// Little-endian f32 in base64.
pub(crate) fn encode_values(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64.encode(bytes)
}

/// Bytes in base64.
pub(crate) fn encode_bytes(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

impl PartialSchema for ImageInput {
    fn schema() -> RefOr<Schema> {
        let text =
            |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        let only = |name: &str, schema: RefOr<Schema>| {
            let object = ObjectBuilder::new().property(name, schema).required(name);
            object.additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
        };
        let base64 = || text("An image file's bytes in base64; a data: URL's head may stand before them");
        let id = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0))
            .description(Some("The image of this pair of the memory, by its stored embedding"));
        let embedding =
            OneOfBuilder::new().item(text("Base64 of little-endian f32, as return_embedding gives it")).item(
                utoipa::openapi::schema::ArrayBuilder::new()
                    .items(ObjectBuilder::new().schema_type(Type::Number)),
            );
        OneOfBuilder::new()
            .item(base64())
            .item(only("base64", base64().into()))
            .item(only("id", id.into()))
            .item(only("embedding", embedding.into()))
            .item(only("url", text("Fetched, where that is switched on").into()))
            .into()
    }
}

impl ToSchema for ImageInput {
    fn name() -> std::borrow::Cow<'static, str> {
        "ImageInput".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ImageInput, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn each_way_to_give_an_image() {
        let bytes = ImageInput::Bytes(Bytes::from_static(b"\xfb\xff\x00"));
        for json in [
            r#""+/8A""#,
            r#""-_8A""#,
            r#"{"base64": "+/8A"}"#,
            r#""data:image/png;base64,+/8A""#,
            r#""+\/8A""#,
        ] {
            assert_eq!(read(json), Ok(bytes.clone()), "{json}");
        }
        assert_eq!(read(r#"{"id": 17}"#), Ok(ImageInput::Pair(17)));
        let embedding = ImageInput::Embedding(vec![0.5, -1.25].into());
        assert_eq!(read(r#"{"embedding": [0.5, -1.25]}"#), Ok(embedding.clone()));
        let text = encode_values(&[0.5, -1.25]);
        assert_eq!(read(&format!(r#"{{"embedding": "{text}"}}"#)), Ok(embedding));
        assert_eq!(read(r#"{"url": "http://a/b"}"#), Ok(ImageInput::Url("http://a/b".into())));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, message) in [
            ("3", "invalid type: integer `3`, expected an image: base64, or an object"),
            ("{}", "an image has exactly one of"),
            (r#"{"id": 1, "url": ""}"#, "an image has exactly one of"),
            (r#"{"path": "/etc/passwd"}"#, "unknown field `path`"),
            (r#""a*b""#, "the base64 is broken"),
            (r#""data:text/plain,abc""#, "a data: URL without base64"),
            (r#"{"embedding": "AAA="}"#, "2 bytes are no embedding"),
            (r#"{"id": -1}"#, "invalid value: integer `-1`"),
        ] {
            let found = read(json).unwrap_err();
            assert!(found.starts_with(message), "{json}: {found}");
        }
    }
}

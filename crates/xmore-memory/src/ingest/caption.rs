//! Captions that lie beside an image: the text of a `.txt`, a field of img2dataset's `.json`.

use std::io::{self, Read};

use xmore_files::json;
use xmore_files::text::{Conversion, TextReader, decode_text};

use super::SkipReason;

/// Most bytes taken of a caption: a longer `.txt` is cut, a longer field of a table is skipped.
pub(super) const MAX_CAPTION_BYTES: usize = 64 * 1024;

/// Largest `.json` that is read; img2dataset's with all metadata of a photo have a few kilobytes.
pub(super) const MAX_JSON_BYTES: u64 = 4 << 20;

/// Keys of a caption: img2dataset's, then others'.
const CAPTION_KEYS: [&str; 3] = ["caption", "text", "title"];

/// Which part of a `.txt` is the caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// The first line.
    First,
    /// All, as one line: img2dataset writes a caption as it is.
    All,
}

/// What a file gave, and what had to be guessed of its encoding.
pub(super) type Captions<T> = (Result<T, SkipReason>, Conversion);

/// Reads the caption of a `.txt`, of which only the beginning is read. Blank is [`SkipReason::EmptyCaption`].
pub(super) fn of_text(input: impl Read, lines: Lines) -> io::Result<Captions<String>> {
    let mut reader = TextReader::new(input);
    let mut bytes = Vec::new();
    (&mut reader).take(MAX_CAPTION_BYTES as u64).read_to_end(&mut bytes)?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // The cut went through a character.
        Err(error) => {
            let whole = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(whole);
            String::from_utf8(bytes).unwrap_or_default()
        }
    };
    let caption = match lines {
        Lines::First => text.split(['\n', '\r']).next().unwrap_or_default(),
        Lines::All => &text,
    };
    Ok((one_line(caption).ok_or(SkipReason::EmptyCaption), reader.conversion()))
}

/// Reads the captions of a `.json`: a text, or a list of texts.
pub(super) fn of_json(input: impl Read) -> io::Result<Captions<Vec<String>>> {
    let mut bytes = Vec::new();
    input.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        let message = format!("its .json is larger than {} MiB", MAX_JSON_BYTES >> 20);
        return Ok((Err(SkipReason::Unreadable(message)), Conversion::default()));
    }
    let decoded = decode_text(&bytes);
    let values = match json::fields(decoded.text.as_bytes(), &CAPTION_KEYS) {
        Ok(values) => values.unwrap_or_default(),
        Err(error) => {
            let message = format!("its .json is damaged: {error}");
            return Ok((Err(SkipReason::Unreadable(message)), Conversion::default()));
        }
    };
    let texts = values.into_iter().map(json::Value::into_texts).find(|texts| !texts.is_empty());
    let captions = match texts {
        None => Err(SkipReason::NoCaption),
        Some(texts) => {
            let captions: Vec<String> = texts.iter().filter_map(|text| one_line(text)).collect();
            if captions.is_empty() { Err(SkipReason::EmptyCaption) } else { Ok(captions) }
        }
    };
    Ok((captions, decoded.conversion))
}

/// Of two texts of an image the first that has a caption; the reason of the first is told, unless the other has one.
pub(super) fn first(
    text: Option<Result<String, SkipReason>>,
    other: Option<Result<String, SkipReason>>,
) -> Option<Result<String, SkipReason>> {
    match (text, other) {
        (Some(Err(_)) | None, Some(Ok(other))) => Some(Ok(other)),
        (text, other) => text.or(other),
    }
}

/// The captions of an image that may have both: the text's, or else the json's.
pub(super) fn choose(
    text: Option<Result<String, SkipReason>>,
    json: Option<Result<Vec<String>, SkipReason>>,
) -> Result<Vec<String>, SkipReason> {
    match (text, json) {
        (Some(Ok(text)), _) => Ok(vec![text]),
        (_, Some(Ok(captions))) => Ok(captions),
        // A blank text says more than the json that img2dataset writes beside it, without a caption too.
        (Some(Err(reason)), _) | (None, Some(Err(reason))) => Err(reason),
        (None, None) => Err(SkipReason::NoCaption),
    }
}

/// The text, trimmed and cut, with line breaks turned to spaces; `None` if it is blank.
fn one_line(text: &str) -> Option<String> {
    let text = text.trim();
    let text = &text[..text.floor_char_boundary(MAX_CAPTION_BYTES)];
    let line = text.replace("\r\n", " ").replace(['\n', '\r'], " ");
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_its_first_line_or_all_of_them_as_one() {
        let text = b"\xef\xbb\xbf  two words \r\nsecond\nthird \n";
        let of = |text: &[u8], lines| of_text(text, lines).unwrap().0;
        assert_eq!(of(text, Lines::First), Ok("two words".to_owned()));
        assert_eq!(of(text, Lines::All), Ok("two words  second third".to_owned()));
        for lines in [Lines::First, Lines::All] {
            assert_eq!(of(b" \n ", lines), Err(SkipReason::EmptyCaption));
            let (caption, conversion) = of_text(&b"caf\xe9"[..], lines).unwrap();
            assert_eq!((caption, conversion.converted), (Ok("café".to_owned()), 1));
            assert_eq!(of(b"\xff\xfec\0a\0f\0\xe9\0", lines), Ok("café".to_owned()));
        }
        let long = "é".repeat(MAX_CAPTION_BYTES);
        assert_eq!(of(format!("x{long}").as_bytes(), Lines::All).unwrap().len(), MAX_CAPTION_BYTES - 1);
    }

    #[test]
    fn a_json_gives_the_first_of_its_caption_keys() {
        let of = |json: &str| of_json(json.as_bytes()).unwrap().0;
        assert_eq!(of(r#"{"title": "t", "caption": "a\ndog", "text": "x"}"#), Ok(vec!["a dog".to_owned()]));
        assert_eq!(
            of(r#"{"caption": null, "text": ["a", " ", "b"]}"#),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(of(r#"{"caption": " "}"#), Err(SkipReason::EmptyCaption));
        assert_eq!(of("[]"), Err(SkipReason::NoCaption));
        assert!(matches!(of("{"), Err(SkipReason::Unreadable(_))));
        let (caption, conversion) = of_json(&b"{\"caption\": \"caf\xe9\"}"[..]).unwrap();
        assert_eq!((caption, conversion.converted), (Ok(vec!["café".to_owned()]), 1));
    }

    #[test]
    fn a_huge_json_is_not_read_to_its_end() {
        let endless = io::repeat(b' ');
        assert!(matches!(of_json(endless).unwrap().0, Err(SkipReason::Unreadable(m)) if m.contains("4 MiB")));
        let long = format!(r#"{{"caption": "{}"}}"#, "é".repeat(100_000));
        assert_eq!(of_json(long.as_bytes()).unwrap().0.unwrap()[0].len(), MAX_CAPTION_BYTES);
    }
}

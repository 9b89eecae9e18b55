//! ftfy's `fix_encoding`: text that was UTF-8 and was read in a one-byte encoding is read again as UTF-8.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::badness::{is_bad, utf8_runs};
use super::codepages::{tried, windows_1252, windows_1252_strict};

/// UTF-8 that lost a byte A0 to a plain space.
static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"[\xc2\xc3\xc5\xce\xd0\xd9][\ ]
        |[\xe2\xe3][\ ][\x80-\x84\x86-\x9f\xa1-\xbf]
        |[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][\ ]
        |[\xf0][\ ][\x80-\xbf][\x80-\xbf]
        |[\xf0][\x80-\xbf][\ ][\x80-\xbf]
        |[\xf0][\x80-\xbf][\x80-\xbf][\ ]",
    )
});

/// UTF-8 and CESU-8 in which following bytes were lost (byte 1A, or one `?`).
static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"[\xc2-\xdf][\x1a]
        |[\xc2-\xc3][?]
        |\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]
        |\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]
        |[\xe0-\xef][\x1a?][\x1a\x80-\xbf]
        |[\xe0-\xef][\x1a\x80-\xbf][\x1a?]
        |[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]
        |[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]
        |[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]
        |\x1a",
    )
});

fn expression(pattern: &str) -> Regex {
    Regex::new(&format!("(?x-u){pattern}")).expect("a constant expression")
}

/// The text with layer after layer of mojibake taken off.
pub(super) fn fix_encoding(text: &str) -> Cow<'_, str> {
    let Some(mut text) = one_layer(text) else { return Cow::Borrowed(text) };
    while let Some(fixed) = one_layer(&text) {
        text = fixed;
    }
    Cow::Owned(text)
}

/// One step of the fix, `None` where nothing is to be done.
fn one_layer(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    let changed = |fixed: String| (fixed != text).then_some(fixed);
    for page in tried() {
        let Some(mut bytes) = page.encode(text) else { continue };
        // in MacRoman the first of them would be an en dash before a space
        if page.name != "macroman" && ALTERED.is_match(&bytes) {
            bytes = restore_a0(&bytes);
        }
        if page.sloppy {
            bytes = LOSSY.replace_all(&bytes, "\u{FFFD}".as_bytes()).into_owned();
        }
        if let Some(fixed) = decode(bytes) {
            return changed(fixed);
        }
    }
    let fixed = fix_runs(text);
    if fixed != text {
        return Some(fixed);
    }
    if text.chars().all(|c| u32::from(c) < 0x100) {
        // Latin-1 that was meant to be Windows-1252
        let decoded: Option<String> = text.chars().map(|c| windows_1252_strict(c as u8)).collect();
        if let Some(fixed) = decoded.and_then(changed) {
            return Some(fixed);
        }
    }
    changed(fix_c1(text))
}

/// C1 controls as Windows-1252.
pub(super) fn fix_c1(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\u{80}'..='\u{9F}') { windows_1252(c as u8) } else { c }).collect()
}

/// Mojibake inside other text, each run by itself; a run that is the whole text stays, or this would not end.
fn fix_runs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for run in utf8_runs(text) {
        let part = &text[run.clone()];
        out.push_str(&text[done..run.start]);
        if part.len() < text.len() && is_bad(part) {
            out.push_str(&fix_encoding(part));
        } else {
            out.push_str(part);
        }
        done = run.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Puts byte A0 back where a space stands in UTF-8; after byte C3 ("à") the space mostly stays too.
fn restore_a0(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        out.push(byte);
        rest = after;
        let Some(word) = after.strip_prefix(b" ") else { continue };
        // Portuguese words that start with "à"
        let joined =
            [&b" "[..], b"quele", b"quela", b"quilo", b"s "].iter().any(|start| word.starts_with(start));
        if byte == 0xC3 && !joined {
            out.extend(b"\xA0 ");
            rest = word;
        }
    }
    let restored = |found: &regex::bytes::Captures<'_>| -> Vec<u8> {
        found[0].iter().map(|&b| if b == b' ' { 0xA0 } else { b }).collect()
    };
    ALTERED.replace_all(&out, restored).into_owned()
}

/// UTF-8; where a byte C0 or ED is, also CESU-8's surrogate pairs and Java's null (ftfy's `utf-8-variants`).
fn decode(bytes: Vec<u8>) -> Option<String> {
    if !bytes.iter().any(|b| matches!(b, 0xC0 | 0xED)) {
        return String::from_utf8(bytes).ok();
    }
    let mut out = String::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let special = rest.iter().position(|b| matches!(b, 0xC0 | 0xED)).unwrap_or(rest.len());
        out.push_str(std::str::from_utf8(&rest[..special]).ok()?);
        rest = &rest[special..];
        match *rest {
            [] => break,
            // ftfy's `$` also stands before a last line feed
            [0xC0, 0x80, ..] | [0xC0, b'\n'] => {
                out.push('\0');
                rest = &rest[2..];
            }
            [0xED, a @ 0xA0..=0xAF, b @ 0x80..=0xBF, 0xED, c @ 0xB0..=0xBF, d, ..]
                if matches!(d, 0x80..=0xBF) || (d == b'\n' && rest.len() == 6) =>
            {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code =
                    bits(a, 0x0F, 16) + bits(b, 0x3F, 10) + bits(c, 0x0F, 6) + bits(d, 0x3F, 0) + 0x10000;
                out.push(char::from_u32(code)?);
                rest = &rest[6..];
            }
            _ => {
                out.push_str(std::str::from_utf8(rest.get(..3)?).ok()?);
                rest = &rest[3..];
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_ftfys_fix_encoding() {
        for (text, expected) in [
            ("schÃ¶n", "schön"),
            ("voilÃ le travail", "voilà le travail"),
            ("âœ” No problems", "✔ No problems"),
            ("â€œlike thisâ€\u{FFFD}", "“like this\u{FFFD}"),
            ("l’humanitÃ©", "l’humanité"),
            ("Ã\u{83}Â¶", "ö"),
            ("naïve", "naïve"),
            ("a \u{96} b", "a – b"),
        ] {
            assert_eq!(fix_encoding(text), expected, "{text}");
        }
    }

    #[test]
    fn variants_of_utf8() {
        assert_eq!(decode(b"a\xED\xA0\xBD\xED\xB8\x8D".to_vec()).as_deref(), Some("a😍"));
        assert_eq!(decode(b"\xC0\x80\xED\x95\x9C".to_vec()).as_deref(), Some("\0한"));
        assert_eq!(decode(b"\xED\xA0\xBDx".to_vec()), None);
        assert_eq!(decode(b"\xC0x".to_vec()), None);
        assert_eq!(decode(b"\xED".to_vec()), None);
    }
}

//! HTML character references, as Python's `html.unescape` and ftfy's stricter `unescape_html` decode them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::codepages::windows_1252;

/// HTML5's names (Python's `html.entities.html5`), with and without semicolon.
static ENTITIES: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
    let lines = include_str!("../tables/entities.tsv").lines();
    let entry = |line: &'static str| {
        let (name, codes) = line.split_once('\t').expect("a table of ours");
        let code = |hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("a table of ours");
        (name, codes.split(',').map(code).collect())
    };
    lines.map(entry).collect()
});

/// References that end in a semicolon, as ftfy looks for them.
static STRICT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("a constant expression"));

/// Python's `html.unescape`: also names without semicolon, also at the start of a longer word.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    let Some(mut at) = text.find('&') else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    loop {
        let body = &text[at + 1..];
        out.push_str(&text[done..at]);
        let used = reference(body, &mut out);
        if used == 0 {
            out.push('&');
        }
        done = at + 1 + used;
        match text[done..].find('&') {
            Some(next) => at = done + next,
            None => break,
        }
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// ftfy's `unescape_html`: only whole references with a semicolon; names in capitals too where that is no other name.
pub(super) fn unescape_strict(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    STRICT.replace_all(text, |found: &regex::Captures<'_>| strict_reference(&found[0]))
}

fn strict_reference(found: &str) -> String {
    let name = &found[1..];
    if let Some(value) = ENTITIES.get(name) {
        return value.clone();
    }
    let unescaped = unescape(found);
    if name.starts_with('#') {
        let whole = !unescaped.contains(';');
        return if whole { unescaped.into_owned() } else { found.to_string() };
    }
    let in_capitals = name == name.to_ascii_uppercase() && unescaped == found;
    match ENTITIES.get(name.to_ascii_lowercase().as_str()) {
        Some(value) if in_capitals => value.to_uppercase(),
        _ => found.to_string(),
    }
}

/// Decodes the reference whose text after the `&` starts `body`; bytes of `body` used, 0 if it is none.
fn reference(body: &str, out: &mut String) -> usize {
    if let Some(number) = body.strip_prefix('#') {
        let (radix, prefix) = if number.starts_with(['x', 'X']) { (16, 2) } else { (10, 1) };
        let digits = &body[prefix..];
        let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        if length == 0 {
            return 0;
        }
        // too large for a u32 is too large for a character
        let code = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
        out.extend(numeric(code));
        let end = prefix + length;
        return end + usize::from(body[end..].starts_with(';'));
    }
    let stops = |c: char| matches!(c, '\t' | '\n' | '\x0C' | ' ' | '<' | '&' | '#' | ';');
    let length: usize = body.chars().take_while(|&c| !stops(c)).take(32).map(char::len_utf8).sum();
    if length == 0 {
        return 0;
    }
    let end = length + usize::from(body[length..].starts_with(';'));
    if let Some(value) = ENTITIES.get(&body[..end]) {
        out.push_str(value);
        return end;
    }
    // no name has fewer than two letters; what follows the longest name is kept as it is
    let prefixes = body[..end].char_indices().map(|(at, _)| at).rev();
    for at in prefixes.take_while(|&at| at > 1) {
        if let Some(value) = ENTITIES.get(&body[..at]) {
            out.push_str(value);
            return at;
        }
    }
    0
}

/// The character of a numeric reference: Windows-1252 for the C1 controls, none for what HTML forbids.
fn numeric(code: u32) -> Option<char> {
    match code {
        0 => Some('\u{FFFD}'),
        0x0D => Some('\r'),
        0x80..=0x9F => Some(windows_1252(code as u8)),
        0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => None,
        _ if code <= 0x10FFFF && code & 0xFFFE == 0xFFFE => None,
        _ => Some(char::from_u32(code).unwrap_or('\u{FFFD}')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_pythons_html_unescape() {
        for (text, expected) in [
            ("&lt;a&gt;&amp;amp;", "<a>&amp;"),
            ("&notit; &notin; &ampx &amp", "¬it; ∉ &x &"),
            ("&#65;&#x42&#67 &#; &#x; &", "AB\u{43} &#; &#x; &"),
            (
                "&#0;&#x80;&#x81;&#xd800;&#x110000;&#99999999999999999999;",
                "\u{FFFD}€\u{81}\u{FFFD}\u{FFFD}\u{FFFD}",
            ),
            ("[&#1;&#xfdd0;&#x1ffff;&#127;]", "[]"),
            ("&NotEqualTilde;&unknown;&é;", "≂̸&unknown;&é;"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn as_ftfys_unescape_html() {
        for (text, expected) in [
            ("P&EACUTE;REZ &SZLIG; &nTILDE; &amp", "PÉREZ SS &nTILDE; &amp"),
            ("&#59; &#12ab; &#x26;", "&#59; &#12ab; &"),
            ("&AMPX; &notit;", "&AMPX; &notit;"),
        ] {
            assert_eq!(unescape_strict(text), expected, "{text}");
        }
    }
}

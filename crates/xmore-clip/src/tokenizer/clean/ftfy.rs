//! ftfy's `fix_text` with its defaults: line by line, every fix until nothing changes any more.
//!
//! Source: ftfy 6.3.1, (c) Robyn Speer, Apache-2.0.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::{html, mojibake};

/// Characters fixed at once where no line feed comes sooner.
const SEGMENT: usize = 1_000_000;

/// Bytes of third and later rounds for one text before ftfy's repetition is stopped: entities inside entities inside entities
/// would take time in the square of the text's length.
const MAX_REPEATED: usize = 32 << 20;

static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[(?:\d|;)*[a-zA-Z]").expect("a constant expression"));

/// The text without mojibake, entities, curly quotes, ligatures, odd widths, terminal escapes and controls, in NFC.
pub(super) fn fix_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut entities = true;
    let mut repeated = 0;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(SEGMENT).map_or(rest.len(), |(at, _)| at);
            // from the first '<' on it is taken for real HTML
            entities &= !rest[..end].contains('<');
            out.push_str(&fix_segment(&rest[..end], entities, &mut repeated));
            rest = &rest[end..];
        }
    }
    out
}

/// Rounds until nothing changes, two at least; the bytes of later ones are added to `repeated`.
fn fix_segment(text: &str, entities: bool, repeated: &mut usize) -> String {
    let mut text = text.to_string();
    let mut rounds = 0;
    loop {
        let fixed = fix_once(&text, entities);
        rounds += 1;
        if rounds > 2 {
            *repeated += text.len();
        }
        if fixed == text || *repeated > MAX_REPEATED {
            return fixed;
        }
        text = fixed;
    }
}

fn fix_once(text: &str, entities: bool) -> String {
    let fixed = if entities { html::unescape_strict(text) } else { Cow::Borrowed(text) };
    let fixed = mojibake::fix_encoding(&fixed);
    let mut fixed = fix_characters(&fixed);
    if fixed.contains('\x1b') {
        fixed = TERMINAL_ESCAPE.replace_all(&fixed, "").into_owned();
    }
    fixed.retain(|c| !is_control(c));
    if is_nfc(&fixed) { fixed } else { fixed.nfc().collect() }
}

/// The fixes that look at one character, and line breaks.
fn fix_characters(text: &str) -> String {
    let text = mojibake::fix_c1(text);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push('\n');
            }
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{3000}' => out.push(' '),
            '\u{FF01}'..='\u{FFEF}' => out.extend(std::iter::once(c).nfkc()),
            _ => match ligature(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(uncurl(c)),
            },
        }
    }
    out
}

/// The letters of Latin ligatures and digraphs that are seldom meant.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        // ftfy gives U+02BC, which its next fix makes an apostrophe
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

fn uncurl(c: char) -> char {
    match c {
        '\u{02BC}' | '\u{2018}'..='\u{201B}' => '\'',
        '\u{201C}'..='\u{201F}' => '"',
        _ => c,
    }
}

/// Controls that are never seen and seldom meant.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0B' | '\x0E'..='\x1F' | '\x7F' | '\u{206A}'..='\u{206F}' | '\u{FEFF}'
        | '\u{FFF9}'..='\u{FFFC}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_ftfys_examples() {
        for (text, expected) in [
            ("&macr;\\_(ã\u{83}\u{84})_/&macr;", "¯\\_(ツ)_/¯"),
            ("Broken text&hellip; it&#x2019;s ﬂubberiﬁc!", "Broken text… it's ﬂubberiﬁc!"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "LOUD NOISES"),
            ("\u{1b}[36;44mblue\u{1b}[0m", "blue"),
            ("&lt;\n&lt;<\n&lt;", "<\n&lt;<\n&lt;"),
            ("e\u{301}\u{FEFF}\r\n\u{2028}", "é\n\n"),
        ] {
            let expected = expected.replace("ﬂubberiﬁc", "flubberific");
            assert_eq!(fix_text(text), expected, "{text}");
        }
    }

    #[test]
    fn entities_in_entities_end() {
        for line in ["&", "&lt;\n&"] {
            let text = format!("{line}{}lt;\n", "amp;".repeat(5_000)).repeat(20);
            assert!(fix_text(&text).ends_with("lt;\n"));
        }
    }
}

//! Untrusted text for terminals and pages: characters that act on them instead of being shown are escaped.
//!
//! A caption with `ESC ] 0 ;` renames the terminal's window, a carriage return hides the start of a line, and a bidirectional override
//! shows `gpj.exe` as `exe.jpg`. Data in csv and JSON stay as they are; these functions are for what people read.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// Whether a character acts on the terminal or on the order of the text around it: control characters (C0, DEL, C1), Unicode's
/// `Bidi_Control`, and the separators of lines and paragraphs.
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of one line: every [active](is_active) character as `\n`, `\t`, `\x1b` or `\u{202e}`.
pub fn escape_for_terminal(text: &str) -> Cow<'_, str> {
    escape_but(text, &[])
}

/// A message or page of several lines: the same, but line feeds and tabs stay.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_but(text, &['\n', '\t'])
}

/// A path as one line of text; bytes that are no UTF-8 are shown as `\xe9`.
pub fn escape_path(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        shown += &escape_for_terminal(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// JSON with every [active](is_active) character as `\u202e`: the same data, for they stand within strings only. The line feeds and
/// tabs of pretty printing stay.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // JSON itself has escaped the other C0 controls already.
    if !json.chars().any(acts_in_json) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts_in_json(c) {
            // All of them are in the basic plane: four digits.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn acts_in_json(c: char) -> bool {
    !c.is_ascii_control() && is_active(c) || c == '\u{7f}'
}

fn escape_but<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let acts = |c: char| is_active(c) && !kept.contains(&c);
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !acts(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Writing to a string cannot fail.
            c if c.is_ascii() => drop(write!(escaped, "\\x{:02x}", u32::from(c))),
            c => drop(write!(escaped, "\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn active_characters_are_escaped() {
        assert!(matches!(escape_for_terminal("a dog, \"ein Hund\", 犬 \\x1b"), Cow::Borrowed(_)));
        assert_eq!(escape_for_terminal("\x1b]0;gone\x07"), "\\x1b]0;gone\\x07");
        assert_eq!(escape_for_terminal("two\nlines\r\tend\u{9b}2J"), "two\\nlines\\r\\tend\\u{9b}2J");
        assert_eq!(
            escape_for_terminal("\u{202e}gpj.exe\u{2069}\u{200f}"),
            "\\u{202e}gpj.exe\\u{2069}\\u{200f}"
        );
        assert_eq!(escape_lines("a\n\tb\r\x7f"), "a\n\tb\\r\\x7f");
    }

    #[cfg(unix)]
    #[test]
    fn a_path_of_any_bytes_is_shown() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(
            escape_path(Path::new(OsStr::from_bytes(b"caf\xe9/\x1b[2J\xc3\xa9.jpg"))),
            "caf\\xe9/\\x1b[2Jé.jpg"
        );
    }

    proptest! {
        #[test]
        fn nothing_active_is_left(text in any::<String>()) {
            prop_assert!(!escape_for_terminal(&text).chars().any(is_active));
            prop_assert!(!escape_lines(&text).chars().any(|c| is_active(c) && c != '\n' && c != '\t'));
        }

        #[test]
        fn json_stays_the_same_data(text in any::<String>(), acting in "[\u{7f}-\u{9f}\u{202a}-\u{202e}\u{1b}\n]{0,4}") {
            let text = text + &acting;
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escape_json(&json);
            prop_assert!(!escaped.chars().any(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}

//! Text cleaning before tokenization: open_clip's `_clean_lower` (ftfy, HTML entities twice, whitespace, lower case) and the other
//! forms that tokenizers ask for.

mod badness;
mod codepages;
mod forms;
mod ftfy;
mod html;
mod mojibake;

use std::borrow::Cow;

pub(super) use forms::cleaned;

/// The cleaned text: single spaces between words, none at the ends.
pub(super) fn clean(text: &str) -> String {
    if text.bytes().all(plain) {
        return join(text.split_ascii_whitespace()).to_ascii_lowercase();
    }
    thorough(text)
}

/// Every step, whatever the text.
fn thorough(text: &str) -> String {
    join(repair(text).split(is_space).filter(|word| !word.is_empty())).to_lowercase()
}

/// ftfy, then HTML entities twice.
fn repair(text: &str) -> String {
    let text = ftfy::fix_text(text);
    let text = html::unescape(&text).into_owned();
    match html::unescape(&text) {
        Cow::Owned(text) => text,
        Cow::Borrowed(_) => text,
    }
}

/// Bytes that no step but whitespace and lower case can change.
fn plain(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0C | b'\r' | b' '..=b'~') && byte != b'&'
}

/// Python's `str.isspace`: Unicode's whitespace and four separators among the control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1C'..='\x1F')
}

fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for word in words {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whitespace_is_pythons() {
        assert_eq!(
            clean("a&#x85;b\u{a0}c\u{2003}d\u{3000}e\u{2028}f\u{1c}g\u{b}h\u{200b}i"),
            "a…b c d e fgh\u{200b}i"
        );
    }

    proptest! {
        #[test]
        fn the_short_way_says_the_same(text in "[\t\n\x0C\r -%'-~]{0,40}") {
            prop_assert!(text.bytes().all(plain));
            prop_assert_eq!(clean(&text), thorough(&text));
        }

        #[test]
        fn cleaned_text_has_single_spaces(text: String) {
            let text = clean(&text);
            prop_assert!(text.split(' ').all(|word| !word.is_empty()) || text.is_empty());
            prop_assert!(!text.chars().any(|c| c != ' ' && is_space(c)));
        }
    }
}

//! Text as words: case folded, with one space between words.
//!
//! A word is a run of letters, digits and marks. What is not distinguished: case (`Straße`, `STRASSE`; `ς`, `σ`; `İ`, `ı`, `i`),
//! compatibility forms (`ﬁ`, fullwidth letters), composed and decomposed accents, soft hyphens and joiners. Everything else stands between
//! words: spaces, hyphens, underscores, apostrophes, signs such as `™`. Scripts without spaces between words are words of their own
//! beside others: `新しいiPhone` is `新しい iphone`.
//! Marks on something that is no letter are no words.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, is_nfc_quick, is_nfkc_quick};

/// What an ASCII byte is in words: a small letter, a digit, or a space. The bytes of other characters are themselves.
pub(super) const BYTES: [u8; 256] = {
    let mut bytes = [b' '; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        if value.is_ascii_alphanumeric() || !value.is_ascii() {
            bytes[byte] = value.to_ascii_lowercase();
        }
        byte += 1;
    }
    bytes
};

/// What a character is to the words around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Part of a word that ends where something else stands.
    Spaced,
    /// Part of a run of words without spaces between them.
    Unspaced,
    /// Accents and other marks: part of what they stand on.
    Mark,
    /// Read as if it were not there.
    Ignored,
    Separator,
}

fn kind(c: char) -> Kind {
    match c {
        _ if c.is_ascii_alphanumeric() => Kind::Spaced,
        // Soft hyphen, joiners, byte order marks, variation selectors.
        '\u{ad}'
        | '\u{34f}'
        | '\u{200c}'
        | '\u{200d}'
        | '\u{2060}'
        | '\u{feff}'
        | '\u{fe00}'..='\u{fe0f}' => Kind::Ignored,
        _ if c.is_ascii() || is_apostrophe(c) => Kind::Separator,
        _ if is_combining_mark(c) && !is_unspaced(c) => Kind::Mark,
        _ if !c.is_alphanumeric() && !is_combining_mark(c) => Kind::Separator,
        _ if is_unspaced(c) => Kind::Unspaced,
        _ => Kind::Spaced,
    }
}

/// Whether a character is of a script that writes no spaces between words: Han, Hiragana, Katakana, Thai, Lao, Myanmar, Khmer.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3005}'..='\u{3007}'
        | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{303c}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{a9e0}'..='\u{a9fe}' | '\u{aa60}'..='\u{aa7f}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{1aff0}'..='\u{1b16f}' | '\u{20000}'..='\u{3ffff}')
}

/// Whether a character stands within words such as `women's`, but is no part of what they are called.
pub(super) fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2019}' | '\u{2018}' | '\u{2bc}' | '\u{ff07}')
}

/// Whether a character stands between words.
pub(super) fn is_separator(c: char) -> bool {
    kind(c) == Kind::Separator
}

/// Writes texts as words into buffers that are used again.
#[derive(Default)]
pub(super) struct Words {
    folded: String,
    words: String,
}

impl Words {
    /// The words of a text, with one space between them and none around.
    pub fn of(&mut self, text: &str) -> &str {
        self.fold(text);
        self.words.clear();
        let (mut last, mut kind_before) = (' ', Kind::Separator);
        for c in self.folded.chars() {
            let kind = match kind(c) {
                Kind::Ignored => continue,
                // The dot that is left of İ.
                Kind::Mark if c == '\u{307}' && last == 'i' => continue,
                Kind::Mark => kind_before,
                kind => kind,
            };
            if kind != Kind::Separator {
                if kind != kind_before && !self.words.is_empty() {
                    self.words.push(' ');
                }
                self.words.push(c);
            }
            (last, kind_before) = (c, kind);
        }
        &self.words
    }

    /// Compatibility forms and case: what full case folding does, by way of capitals, which join what small letters distinguish.
    fn fold(&mut self, text: &str) {
        self.folded.clear();
        // Signs come first: as a compatibility form, the sign of a trade mark would become letters of the word before it.
        let bare = || text.chars().map(|c| if is_separator(c) { ' ' } else { c });
        let mut push = |c: char| match c.is_ascii() {
            true => self.folded.push(c.to_ascii_lowercase()),
            false => {
                let capitals = c.to_lowercase().flat_map(char::to_uppercase);
                self.folded.extend(capitals.flat_map(char::to_lowercase));
            }
        };
        if is_nfkc_quick(bare()) == IsNormalized::Yes {
            bare().for_each(&mut push);
        } else {
            bare().nfkc().for_each(&mut push);
        }
        // A small letter may be composed where its capital is not.
        if is_nfc_quick(self.folded.chars()) != IsNormalized::Yes {
            self.folded = self.folded.nfc().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> String {
        Words::default().of(text).to_owned()
    }

    #[test]
    fn case_and_forms_are_not_distinguished() {
        for (same, expected) in [
            (&["Straße", "STRASSE", "STRAẞE", "strasse"][..], "strasse"),
            (&["İstanbul", "istanbul", "ISTANBUL", "ıstanbul", "i\u{307}stanbul"], "istanbul"),
            (&["ΣΊΣΥΦΟΣ", "Σίσυφος", "σίσυφοσ"], "σίσυφοσ"),
            (&["Café", "CAFE\u{301}", "ca\u{ad}fé", "ＣＡＦÉ"], "café"),
            (&["ﬁsh", "FISH"], "fish"),
            (&["ΐ", "Ϊ\u{301}", "ι\u{308}\u{301}"], "ΐ"),
        ] {
            for text in same {
                assert_eq!(words(text), expected, "{text}");
            }
        }
    }

    #[test]
    fn words_end_where_neither_letters_digits_nor_marks_stand() {
        for (text, expected) in [
            (" a T-shirt,\n(new)! ", "a t shirt new"),
            ("t_shirt’s", "t shirt s"),
            ("Nike™ Air®", "nike air"),
            ("O´Neill", "o neill"),
            ("रोटी", "रोटी"),
            ("新しいiPhoneの写真 2枚", "新しい iphone の写真 2 枚"),
            ("ﾎｯﾄﾄﾞｯｸﾞ", "ホットドッグ"),
            ("แมวcat", "แมว cat"),
            ("--", ""),
            ("\u{301}a ©\u{301}b", "a b"),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_bytes_of_ascii_are_its_words(text in "[ -~\\n]{0,40}") {
            let bytes: Vec<u8> = text.bytes().map(|byte| BYTES[usize::from(byte)]).collect();
            let joined = String::from_utf8(bytes).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&text), joined);
        }

        #[test]
        fn words_are_words_of_themselves(text in "([\\PC\\u{307}\\u{ad}]|[a-zA-Z İıßςΣéกあ漢'’-]){0,30}") {
            let once = words(&text);
            prop_assert!(!once.starts_with(' ') && !once.ends_with(' ') && !once.contains("  "));
            prop_assert_eq!(words(&once), once.clone());
            prop_assert_eq!(words(&text.nfd().collect::<String>()), once);
        }
    }
}

//! The forms of a text that tokenizers of open_clip and transformers ask for.

use std::borrow::Cow;

use super::{is_space, join, plain, repair};
use crate::tokenizer::Cleaning;

/// The text in the form that a tokenizer asks for.
pub(in crate::tokenizer) fn cleaned(text: &str, form: Cleaning) -> Cow<'_, str> {
    Cow::Owned(match form {
        // the tokenizer's normalizer changes the case
        Cleaning::None | Cleaning::LowerCase => return Cow::Borrowed(text),
        Cleaning::Whitespace => words(&repaired(text)),
        Cleaning::Lower => lower(&words(&repaired(text))),
        Cleaning::Canonical => {
            let text = repaired(text).replace('_', " ");
            words(&lower(&without_punctuation(&text)))
        }
        Cleaning::Siglip => words(&without_punctuation(&lower(text))),
    })
}

/// open_clip's `basic_clean`, but for the whitespace at the ends.
fn repaired(text: &str) -> Cow<'_, str> {
    if text.bytes().all(plain) { Cow::Borrowed(text) } else { Cow::Owned(repair(text)) }
}

fn words(text: &str) -> String {
    join(text.split(is_space).filter(|word| !word.is_empty()))
}

/// Python's `str.lower`: as here, with the final sigma of words.
fn lower(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

/// Without the characters of Python's `string.punctuation`.
fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_as_in_their_references() {
        let text = "  Hello,\tsnake_case &amp; ‘ΟΔΟΣ’! ";
        for (form, expected) in [
            (Cleaning::None, text),
            (Cleaning::Whitespace, "Hello, snake_case & 'ΟΔΟΣ'!"),
            (Cleaning::Lower, "hello, snake_case & 'οδος'!"),
            (Cleaning::Canonical, "hello snake case οδος"),
            (Cleaning::Siglip, "hello snakecase amp ‘οδος’"),
        ] {
            assert_eq!(cleaned(text, form), expected, "{form:?}");
        }
    }
}

//! Whether a caption names a label: its words occur in it, one after another.

/// Words of a label or caption: runs of letters and digits, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// A label, ready to be looked for.
pub(crate) struct LabelWords(Vec<String>);

impl LabelWords {
    pub(crate) fn new(label: &str) -> Self {
        Self(words(label))
    }

    /// Whether the caption has the label's words in a row; the last of them may be a plural in -s or -es.
    pub(crate) fn named_by(&self, caption: &str) -> bool {
        let Some((last, first)) = self.0.split_last() else { return false };
        let plural = |word: &str| matches!(word.strip_prefix(last.as_str()), Some("" | "s" | "es"));
        let caption = words(caption);
        caption
            .windows(self.0.len())
            .any(|window| window.split_last().is_some_and(|(word, before)| before == first && plural(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_in_a_row_count() {
        let named = |label, caption| LabelWords::new(label).named_by(caption);
        assert!(named("golf ball", "Two GOLF-balls on the green"));
        assert!(named("church", "old churches"));
        assert!(!named("golf ball", "a ball of golf"));
        assert!(!named("car", "a carpet"));
        assert!(!named("cat", "catfish and cattle"));
        assert!(!named("?", "anything?"));
        assert!(!named("English springer", "springer"));
    }
}

//! Signs of mojibake: ftfy's expression for unlikely neighbors, and its detector of UTF-8 read as another encoding.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// ftfy's `BADNESS_RE`, respelled by tests/fixtures/tokenizer/make_tables.py.
static BADNESS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!("(?x){}", include_str!("../tables/badness.txt"))).expect("a constant expression")
});

/// Characters that stand for the first byte of UTF-8 sequences of 2, 3 and 4 bytes, and for the following ones.
struct Clues {
    first: [Vec<char>; 3],
    continuation: Vec<char>,
    continuation_strict: Vec<char>,
}

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    let table = include_str!("../tables/clues.txt");
    let class = |name: &str| {
        let line = table
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .expect("a table of ours");
        let code = |hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("a table of ours");
        let mut members: Vec<char> = line.split(' ').map(code).collect();
        members.sort_unstable();
        members
    };
    Clues {
        first: [class("utf8_first_of_2"), class("utf8_first_of_3"), class("utf8_first_of_4")],
        continuation: class("utf8_continuation"),
        continuation_strict: class("utf8_continuation_strict"),
    }
});

/// Whether some of the text looks like mojibake.
pub(super) fn is_bad(text: &str) -> bool {
    BADNESS.is_match(text)
}

/// ftfy's `UTF8_DETECTOR_RE`: byte ranges of runs that look like UTF-8 in another encoding and do not follow a character that
/// looks like the rest of a longer one.
pub(super) fn utf8_runs(text: &str) -> Vec<Range<usize>> {
    let has = |class: &[char], c: char| class.binary_search(&c).is_ok();
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let offset = |at: usize| chars.get(at).map_or(text.len(), |&(offset, _)| offset);
    let clues = &*CLUES;
    // characters of one sequence that starts at `at`
    let sequence = |at: usize| {
        (2..=4).find(|&length| {
            chars.get(at..at + length).is_some_and(|s| {
                has(&clues.first[length - 2], s[0].1)
                    && s[1..].iter().all(|&(_, c)| has(&clues.continuation, c))
            })
        })
    };
    let mut runs = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let mut end = at;
        if at == 0 || !has(&clues.continuation_strict, chars[at - 1].1) {
            while let Some(length) = sequence(end) {
                end += length;
            }
        }
        if end > at {
            runs.push(offset(at)..offset(end));
            at = end;
        } else {
            at += 1;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_and_good() {
        for bad in ["schÃ¶n", "â€™", "\u{81}", "Ã ", "l’humanitÃ©"] {
            assert!(is_bad(bad), "{bad}");
        }
        for good in ["schön", "naïve café", "Ünïcödé", "日本語", "ЧТО ДЕЛАТЬ", "½ °C", "", "x²"]
        {
            assert!(!is_bad(good), "{good}");
        }
    }

    #[test]
    fn runs_of_sequences() {
        let text = "a Ã©Ã¨ b â€™x";
        let runs: Vec<&str> = utf8_runs(text).into_iter().map(|run| &text[run]).collect();
        assert_eq!(runs, ["Ã©Ã¨", "â€™"]);
    }
}

//! What captions may call a label: its name and synonyms, their alternatives, and their last word in singular and plural.
//!
//! | in a name | read as |
//! |---|---|
//! | `crane (bird)` | `crane`: what is in parentheses tells labels apart, and no caption has it so |
//! | `goldfish, Carassius auratus` | each name between commas, as in WordNet; a part such as `with a tower` is none |
//! | `sweatshirt/hoodie`, `hot dog / hamburger` | each of the two; without spaces the slash stands between single words (`black/white cat`) |
//! | `women's` | `women's` or `womens` |

use super::plural::other_forms;
use super::words::{Words, is_apostrophe, is_separator, is_unspaced};

/// Bytes of a name at most; captions have no longer ones, and the automaton grows with them.
const MAX_NAME_BYTES: usize = 200;
/// Names that slashes within one name make of it, at most.
const MAX_ALTERNATIVES: usize = 8;
/// First words of what stands behind a comma and is no name of its own.
const PREPOSITIONS: [&str; 12] =
    ["with", "without", "of", "in", "on", "for", "by", "from", "at", "to", "as", "than"];
/// First words that are left out there.
const CONJUNCTIONS: [&str; 2] = ["and", "or"];

/// Forms in which captions name a label: words with one space between them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forms {
    /// As they are given.
    pub given: Vec<String>,
    /// With the last word in another number.
    pub inflected: Vec<String>,
    /// The last word of the label, if it has several: without synonyms and alternatives.
    pub head: Vec<String>,
}

impl Forms {
    pub fn of(name: &str, synonyms: &[String]) -> Self {
        let mut forms = Self::default();
        for (place, name) in std::iter::once(name).chain(synonyms.iter().map(String::as_str)).enumerate() {
            for (alternative, name) in alternatives(name).into_iter().enumerate() {
                let Some(phrase) = Phrase::of(&name) else { continue };
                if place == 0 && alternative == 0 && phrase.has_head {
                    forms.head = phrase.head;
                }
                forms.given.extend(phrase.given);
                forms.inflected.extend(phrase.inflected);
            }
        }
        for list in [&mut forms.given, &mut forms.inflected, &mut forms.head] {
            list.sort_unstable();
            list.dedup();
        }
        forms.inflected.retain(|form| forms.given.binary_search(form).is_err());
        forms
    }
}

/// One name.
struct Phrase {
    given: Vec<String>,
    inflected: Vec<String>,
    head: Vec<String>,
    /// Whether there are words before the head.
    has_head: bool,
}

impl Phrase {
    /// `None` for a name without words.
    fn of(name: &str) -> Option<Self> {
        let mut words = Words::default();
        // With its apostrophes between words, and without them.
        let mut spellings = |unit: &str| {
            let apart = words.of(unit).to_owned();
            [apart, words.of(&unit.replace(is_apostrophe, "")).to_owned()]
        };
        let units = name.split(|c| is_separator(c) && !is_apostrophe(c)).map(&mut spellings);
        let mut before: Vec<[String; 2]> = units.filter(|[apart, _]| !apart.is_empty()).collect();
        let [apart, joined] = before.pop()?;
        let phrase = |spelling: usize, last: &str| {
            before.iter().map(|word| word[spelling].as_str()).chain([last]).collect::<Vec<_>>().join(" ")
        };
        let given = vec![phrase(0, &apart), phrase(1, &joined)];
        // No plural of "levi's".
        let others = if apart == joined { other_forms(&apart) } else { Vec::new() };
        let inflected = others.iter().flat_map(|last| [phrase(0, last), phrase(1, last)]).collect();
        let has_head = !before.is_empty() && !joined.ends_with(is_unspaced);
        let head = others.into_iter().chain([apart, joined]).collect();
        Some(Self { given, inflected, head, has_head })
    }
}

/// The names in a name.
fn alternatives(name: &str) -> Vec<String> {
    let bare = without_parentheses(name);
    let name = if bare.contains(|c| !is_separator(c)) { bare } else { name.to_owned() };
    let mut names = Vec::new();
    for (place, part) in name.split(", ").enumerate() {
        let part = if place == 0 { Some(part) } else { further(part) };
        for part in part.into_iter().flat_map(between_spaced_slashes) {
            names.extend(between_slashes(part.trim()));
        }
    }
    names.retain(|name| name.len() <= MAX_NAME_BYTES);
    names
}

/// A name behind a comma, if it is one.
fn further(part: &str) -> Option<&str> {
    let part = part.trim_start();
    let (first, rest) = part.split_once(' ').unwrap_or((part, ""));
    let is_in = |words: &[&str]| words.iter().any(|word| first.eq_ignore_ascii_case(word));
    match rest.is_empty() {
        false if is_in(&CONJUNCTIONS) => Some(rest),
        _ => Some(part).filter(|_| !is_in(&PREPOSITIONS)),
    }
}

/// Without what stands in parentheses and brackets.
fn without_parentheses(name: &str) -> String {
    let mut depth = 0usize;
    let outside = name.chars().map(|c| {
        let is_outside = depth == 0;
        match c {
            '(' | '[' | '（' => depth += 1,
            ')' | ']' | '）' => depth = depth.saturating_sub(1),
            _ if is_outside => return c,
            _ => {}
        }
        ' '
    });
    // One that is not closed is a sign like others.
    let bare: String = outside.collect();
    if depth == 0 { bare } else { name.to_owned() }
}

/// Names with a slash between them that has a space beside it.
fn between_spaced_slashes(name: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut start = 0;
    for (at, _) in name.match_indices('/') {
        let (before, behind) = (&name[..at], &name[at + 1..]);
        if before.ends_with(char::is_whitespace) || behind.starts_with(char::is_whitespace) {
            names.push(&name[start..at]);
            start = at + 1;
        }
    }
    names.push(&name[start..]);
    names
}

/// The names that a name with words such as `black/white` stands for.
fn between_slashes(name: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    for token in name.split_whitespace() {
        let parts: Vec<&str> = token.split('/').collect();
        // Not those of "A/C", "24/7".
        let is_word = |part: &&str| {
            let letters = part.chars().filter(|c| c.is_alphabetic());
            part.contains(is_unspaced) || letters.count() > 1
        };
        let parts = if parts.iter().all(is_word) { parts } else { vec![token] };
        if names.len() * parts.len() > MAX_ALTERNATIVES {
            return vec![name.to_owned()];
        }
        names =
            names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name} {part}"))).collect();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str) -> Vec<String> {
        Forms::of(name, &[]).given
    }

    #[test]
    fn names_in_a_name() {
        for (name, expected) in [
            ("crane (bird)", &["crane"][..]),
            ("(bird)", &["bird"]),
            ("crane (bird", &["crane bird"]),
            ("[unknown]", &["unknown"]),
            ("goldfish, Carassius auratus", &["carassius auratus", "goldfish"]),
            ("church, with a tower", &["church"]),
            ("shoes, boots, and sandals", &["boots", "sandals", "shoes"]),
            ("sweatshirt/hoodie", &["hoodie", "sweatshirt"]),
            ("hot dog / hamburger", &["hamburger", "hot dog"]),
            ("black/white cat", &["black cat", "white cat"]),
            ("A/C unit", &["a c unit"]),
            ("24/7", &["24 7"]),
            ("猫/犬", &["犬", "猫"]),
            ("T-shirt", &["t shirt"]),
            ("garbage_truck", &["garbage truck"]),
            ("women's shoes", &["women s shoes", "womens shoes"]),
            ("jack-o'-lantern", &["jack o lantern"]),
            ("O’Neill", &["o neill", "oneill"]),
            ("Tシャツ", &["t シャツ"]),
            ("soft\u{ad}ball", &["softball"]),
            ("🐶", &[]),
            ("/", &[]),
        ] {
            assert_eq!(given(name), expected, "{name}");
        }
        assert_eq!(given(&"long ".repeat(50)), [""; 0]);
        assert_eq!(given("aa/bb cc/dd ee/ff gg/hh"), ["aa bb cc dd ee ff gg hh"]);
        assert_eq!(
            Forms::of("inn", &["pub (bar)".to_owned(), "tavern".to_owned()]).given,
            ["inn", "pub", "tavern"]
        );
    }

    #[test]
    fn the_last_word_is_inflected() {
        let inflected = |name: &str| Forms::of(name, &[]).inflected;
        assert_eq!(inflected("Casual Shoes"), ["casual shoe"]);
        assert_eq!(inflected("hot dog"), ["hot dogs"]);
        assert_eq!(inflected("levi's"), [""; 0]);
        assert_eq!(inflected("women's bag"), ["women s bags", "womens bags"]);
        assert_eq!(inflected("backpack, backpacks"), [""; 0]);
        assert_eq!(inflected("犬"), [""; 0]);
    }

    #[test]
    fn the_head_is_the_last_word_of_several() {
        let head = |name: &str| Forms::of(name, &["further name".to_owned()]).head;
        assert_eq!(head("water ouzel, dipper"), ["ouzel", "ouzels"]);
        assert_eq!(head("T-shirt"), ["shirt", "shirts"]);
        assert_eq!(head("Levi's"), [""; 0]);
        assert_eq!(head("blue Levi's"), ["levi s", "levis"]);
        for name in ["tench, Tinca tinca", "crane (bird)", "sweatshirt/hoodie", "赤い 犬", "犬", "dog"] {
            assert_eq!(head(name), [""; 0], "{name}");
        }
    }
}

//! Mentions in memories, by example and against a plain search.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use xmore_memory::RowSet;
use xmore_memory::store::{MemoryWriter, ModelIdentity};

use super::names::Forms;
use super::words::{Words, is_unspaced};
use super::*;
use crate::labels::Label;

/// A memory of pairs of an image path and a caption.
fn memory<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> (tempfile::TempDir, Memory) {
    let dir = tempfile::tempdir().unwrap();
    let model = ModelIdentity::new("m", String::new(), 1);
    let mut writer = MemoryWriter::create(dir.path(), model).unwrap();
    for (path, caption) in pairs {
        writer.push(path, caption, &[1.0], &[1.0]).unwrap();
    }
    writer.finish().unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    (dir, memory)
}

/// Which of the labels a caption names.
fn named<'a>(labels: &[&'a str], caption: &str) -> Vec<&'a str> {
    let finder = Finder::new(&Labels::new(labels.iter().copied()).unwrap()).unwrap();
    let mut found = finder::Found::default();
    finder.find(caption, &mut found);
    let numbers: BTreeSet<u32> = found.labels.into_iter().collect();
    numbers.into_iter().map(|label| labels[label as usize]).collect()
}

#[test]
fn captions_name_labels_by_whole_words() {
    for (label, naming, not_naming) in [
        (
            "dog",
            &["A DOG.", "dogs", "(dog)", "dog_1", "a dog’s life"][..],
            &["hotdog", "dogma", "do g", ""][..],
        ),
        (
            "T-shirt",
            &["a t shirt", "T-Shirts", "t  -  shirt", "T_SHIRT", "t.shirt"],
            &["tshirt", "shirt", "at shirt"],
        ),
        ("Tshirts", &["tshirts", "a Tshirt"], &["t-shirts"]),
        ("Backpacks", &["backpack"], &["back pack"]),
        ("Casual Shoes", &["a casual shoe", "casual shoes"], &["casual", "shoes casual"]),
        ("glass", &["glasses"], &["glas"]),
        ("bus", &["Buses"], &["bu"]),
        ("Jeans", &["blue jeans"], &["Jean"]),
        ("person", &["people", "Persons"], &["personal"]),
        ("fire truck", &["fire trucks", "a fire\ntruck"], &["fires truck", "firetruck"]),
        ("goldfish, Carassius auratus", &["a goldfish", "carassius auratus"], &["auratus"]),
        ("crane (bird)", &["cranes"], &["bird"]),
        ("sweatshirt/hoodie", &["hoodies", "a sweatshirt"], &["shirt"]),
        ("women's shoes", &["Women’s shoe", "womens shoes"], &["shoes"]),
        ("Straße", &["STRASSE", "eine straße"], &["straßen"]),
        ("İzmir", &["izmir", "IZMIR", "İZMİR"], &["izmirli"]),
        ("Οδός", &["ΟΔΌΣ", "οδόσ"], &["οδό"]),
        ("café", &["cafe\u{301}s", "CAFÉ"], &["cafe", "café\u{301}"]),
        ("犬", &["赤い犬の写真", "犬", "dog犬"], &["猫"]),
        ("ホットドッグ", &["大きなホットドッグ", "ﾎｯﾄﾄﾞｯｸﾞ"], &["ホットケーキ"]),
        ("Tシャツ", &["赤いTシャツの写真"], &["シャツ", "ATシャツ"]),
        ("แมว", &["รูปแมวดำ"], &["หมา"]),
        ("iPhone", &["新しいiPhoneの写真"], &["iphonex"]),
        ("собака", &["Собака!"], &["собаки"]),
    ] {
        for caption in naming {
            assert_eq!(named(&[label, "another label"], caption), [label], "{caption}");
        }
        for caption in not_naming {
            assert!(named(&[label, "another label"], caption).is_empty(), "{label}: {caption}");
        }
    }
}

#[test]
fn the_longest_name_counts() {
    let food = ["dog", "hot dog", "corn"];
    assert_eq!(named(&food, "a hot dog with corn"), ["hot dog", "corn"]);
    assert_eq!(named(&food, "a dog with hot dogs"), ["dog", "hot dog"]);
    assert_eq!(named(&["dog", "corn"], "a hot dog"), ["dog"]);
    // Neither lies in the other.
    assert_eq!(named(&["hot dog", "dog bun"], "a hot dog bun"), ["hot dog", "dog bun"]);
    assert_eq!(named(&["犬", "子犬"], "子犬"), ["子犬"]);
    assert_eq!(named(&["glass", "glasses"], "glasses"), ["glasses"]);
    assert_eq!(named(&["glass", "glasses"], "a glass"), ["glass"]);
    assert_eq!(named(&["crane (bird)", "crane (machine)"], "cranes"), ["crane (bird)", "crane (machine)"]);
}

#[test]
fn many_forms_and_long_captions() {
    // More than a table is made of.
    let labels: Vec<String> = (0..20_000).map(|i| format!("thing number {i}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let caption = "thing number 7 ".repeat(10_000) + "thing-number 19999, thing number 20000";
    assert_eq!(named(&labels, &caption), ["thing number 7", "thing number 19999"]);
    // A name of very many labels.
    let shared: Vec<String> = (0..20).map(|i| format!("tree ({i})")).chain(["bush".to_owned()]).collect();
    let shared: Vec<&str> = shared.iter().map(String::as_str).collect();
    assert_eq!(named(&shared, "a tree and a bush"), ["bush"]);
}

#[test]
fn images_count_once_and_only_by_rows_that_may_be_looked_at() {
    let (_dir, memory) = memory([
        ("a.jpg", "nothing"),
        ("a.jpg", "a dipper"),
        ("a.jpg", "a water ouzel"),
        ("b.jpg", "an ouzel"),
        ("b.jpg", "ouzels"),
        ("c.jpg", "a hot dog"),
        ("d.jpg", "a dog"),
        ("d.jpg", "hot dog"),
        ("e.jpg", "canines"),
    ]);
    let labels = Labels::with_prompts([
        Label { synonyms: vec!["dipper".to_owned()], ..Label::new("water ouzel") },
        Label::new("hot dog"),
        Label {
            synonyms: vec!["canine".to_owned()],
            prompts: vec!["nothing".to_owned()],
            ..Label::new("dog")
        },
    ])
    .unwrap();
    let all = find_mentions(&memory, &PairFilter::default(), &labels, 10).unwrap();
    assert_eq!(all.images, [1, 2, 2]);
    assert_eq!(all.rows, [vec![0], vec![5, 6], vec![6, 8]]);
    assert_eq!(all.head_only, [1, 0, 0]);
    let allowed = Some(Arc::new(RowSet::from_fn(9, |row| ![0, 2, 7].contains(&row))));
    let filtered = find_mentions(&memory, &PairFilter { rows: Some(0..8), allowed }, &labels, 10).unwrap();
    assert_eq!(filtered.images, [1, 1, 1]);
    assert_eq!(filtered.rows, [vec![1], vec![5], vec![6]]);
    // The dog of d.jpg.
    assert_eq!(filtered.head_only, [1, 1, 0]);
}

#[test]
fn images_of_many_rows_and_many_images() {
    // Longer than what is read at once, and beginning in the middle of it.
    let long = std::iter::repeat_n(("b.jpg", "a dog"), 40_000);
    let paths: Vec<String> = (0..20_000).map(|i| format!("{i}.jpg")).collect();
    let others = paths.iter().map(|path| (path.as_str(), "two cats"));
    let (_dir, memory) = memory([("a.jpg", "a cat")].into_iter().chain(long).chain(others));
    let labels = Labels::new(["cat", "dog"]).unwrap();
    let found = find_mentions(&memory, &PairFilter::default(), &labels, 50).unwrap();
    assert_eq!(found.images, [20_001, 1]);
    assert_eq!(found.rows[1], [1]);
    let mut rows: Vec<u64> = std::iter::once(0).chain(40_001..60_001).collect();
    rows.sort_by_key(|row| Sha256::digest(row.to_string().as_bytes()));
    rows.truncate(50);
    rows.sort_unstable();
    assert_eq!(found.rows[0], rows);
    let none = find_mentions(&memory, &PairFilter::default(), &labels, 0).unwrap();
    assert_eq!((none.images, none.rows), (found.images, vec![vec![], vec![]]));
}

/// Where a form stands in the words of a text.
fn places(words: &str, form: &str) -> Vec<(usize, usize)> {
    let begins = |at: usize| at == 0 || words[..at].ends_with(' ') || form.starts_with(is_unspaced);
    let ends = |at: usize| at == words.len() || words[at..].starts_with(' ') || form.ends_with(is_unspaced);
    let starts = words.char_indices().map(|(at, _)| at).filter(|&at| words[at..].starts_with(form));
    starts.map(|at| (at, at + form.len())).filter(|&(start, end)| begins(start) && ends(end)).collect()
}

/// The forms of labels.
struct PlainSearch {
    forms: Vec<Forms>,
    given: BTreeSet<String>,
}

impl PlainSearch {
    fn new(labels: &Labels) -> Self {
        let each = labels.names().iter().zip(labels.synonyms());
        let forms: Vec<Forms> = each.map(|(name, synonyms)| Forms::of(name, synonyms)).collect();
        let given = forms.iter().flat_map(|forms| forms.given.clone()).collect();
        Self { forms, given }
    }

    /// Labels that a caption names, and labels whose head it has: one form after another.
    fn find(&self, caption: &str) -> [BTreeSet<u32>; 2] {
        let mut words = Words::default();
        let words = words.of(caption);
        let mut found = Vec::new();
        let mut headed = BTreeSet::new();
        for (label, forms) in (0..).zip(&self.forms) {
            let inflected = forms.inflected.iter().filter(|form| !self.given.contains(*form));
            for form in forms.given.iter().chain(inflected) {
                found.extend(places(words, form).into_iter().map(|place| (place, label)));
            }
            if forms.head.iter().any(|form| !places(words, form).is_empty()) {
                headed.insert(label);
            }
        }
        let is_in = |a: (usize, usize), b: (usize, usize)| a != b && b.0 <= a.0 && a.1 <= b.1;
        let longest = found.iter().filter(|(place, _)| !found.iter().any(|(other, _)| is_in(*place, *other)));
        [longest.map(|(_, label)| *label).collect(), headed]
    }

    /// The same as [`find_mentions`] of rows that may all be looked at.
    fn find_in(&self, pairs: &[(String, String)], limit: usize) -> Mentions {
        // By the image's first row.
        let mut images: BTreeMap<u64, [BTreeSet<u32>; 2]> = BTreeMap::new();
        let mut first = 0;
        for (row, (path, caption)) in pairs.iter().enumerate() {
            if row > 0 && pairs[row - 1].0 != *path {
                first = row;
            }
            let [named, headed] = images.entry(first as u64).or_default();
            let [these, these_heads] = self.find(caption);
            named.extend(these);
            headed.extend(these_heads);
        }
        let mut mentions = Mentions { images: Vec::new(), rows: Vec::new(), head_only: Vec::new() };
        for label in 0..self.forms.len() as u32 {
            let naming = images.iter().filter(|(_, [named, _])| named.contains(&label));
            let mut rows: Vec<u64> = naming.map(|(first, _)| *first).collect();
            mentions.images.push(rows.len() as u64);
            rows.sort_by_key(|row| Sha256::digest(row.to_string().as_bytes()));
            rows.truncate(limit);
            rows.sort_unstable();
            mentions.rows.push(rows);
            let alone =
                |[named, headed]: &&[BTreeSet<u32>; 2]| headed.contains(&label) && !named.contains(&label);
            mentions.head_only.push(images.values().filter(alone).count() as u64);
        }
        mentions
    }
}

/// Texts of few words, so that names, longer names and heads are found; and any text.
fn text() -> impl Strategy<Value = String> {
    let words = "(hot|dog|dogs|Dogs|bun|glass|glasses|t-shirt|T_Shirt's|men|man|İ|i|ß|SS|ς|犬|子犬|ก|a|s|é|e\u{301}|, |/|\\(|\\)|-|'| ){1,6}";
    prop_oneof![4 => words, 1 => "\\PC{1,6}"]
}

fn labels() -> impl Strategy<Value = Labels> {
    let label = (text(), prop::collection::vec(text(), 0..2))
        .prop_map(|(name, synonyms)| Label { synonyms, ..Label::new(name) });
    prop::collection::vec(label, 2..6)
        .prop_filter_map("labels that are empty", |labels| Labels::repeatable_with_prompts(labels).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_plain_search_of_captions_finds_the_same(labels in labels(), caption in (text(), text(), text())) {
        let caption = format!("{} {}{}", caption.0, caption.1, caption.2);
        let finder = Finder::new(&labels).unwrap();
        let mut found = finder::Found::default();
        finder.find(&caption, &mut found);
        let heads: BTreeSet<u32> = found.heads.iter().copied().collect();
        let headed = (0..).zip(finder.head_of()).filter(|(_, head)| head.is_some_and(|head| heads.contains(&head)));
        let found: [BTreeSet<u32>; 2] = [found.labels.iter().copied().collect(), headed.map(|(label, _)| label).collect()];
        prop_assert_eq!(found, PlainSearch::new(&labels).find(&caption));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_plain_search_of_memories_finds_the_same(
        mut pairs in prop::collection::vec((0..4u8, text(), text()), 1..16),
        labels in labels(),
        limit in 0..4usize,
    ) {
        pairs.sort();
        let pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(path, a, b)| (format!("{path}.jpg"), format!("{a} {b}"))).collect();
        let (_dir, memory) = memory(pairs.iter().map(|(path, caption)| (path.as_str(), caption.as_str())));
        let found = find_mentions(&memory, &PairFilter::default(), &labels, limit).unwrap();
        prop_assert_eq!(found, PlainSearch::new(&labels).find_in(&pairs, limit));
    }
}

/// Prints how long a memory of ten million captions takes, which it makes in the folder for temporary files (2 GB).
#[test]
#[ignore = "takes minutes and means something in release builds only"]
fn ten_million_captions() {
    const SYLLABLES: [&str; 20] = [
        "ba", "ko", "ri", "te", "mu", "sa", "ne", "li", "do", "vu", "pa", "gi", "ro", "fe", "ca", "ju", "ti",
        "wo", "he", "ny",
    ];
    let word = |number: u64| -> String {
        [1, 20, 400].iter().map(|place| SYLLABLES[(number / place % 20) as usize]).collect()
    };
    let labels =
        (0..1_000).map(|i| if i % 3 == 0 { word(i * 7) } else { format!("{} {}", word(i * 5), word(i * 7)) });
    let labels = Labels::new(labels).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut writer = MemoryWriter::create(dir.path(), ModelIdentity::new("m", String::new(), 1)).unwrap();
    let mut state = 1u64;
    for row in 0..10_000_000u64 {
        let words: Vec<String> = (0..9)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word(state >> 40)
            })
            .collect();
        writer.push(&format!("{}.jpg", row / 2), &words.join(" "), &[1.0], &[1.0]).unwrap();
    }
    writer.finish().unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let found = find_mentions(&memory, &PairFilter::default(), &labels, 512).unwrap();
        let (all, heads) = (found.images.iter().sum::<u64>(), found.head_only.iter().sum::<u64>());
        println!("{:.2?}: {all} mentions, {heads} of heads alone", start.elapsed());
        assert!(found.rows.iter().all(|rows| rows.len() <= 512) && all > 100_000);
    }
}

//! Which labels one caption names: an automaton over all forms of all labels, with which each caption is read once.

use std::collections::{BTreeMap, HashMap};

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::{Anchored, MatchKind, dfa, nfa};

use super::names::Forms;
use super::words::{BYTES, Words, is_unspaced};
use crate::error::Result;
use crate::labels::Labels;
use crate::labels::error::LabelError;

/// Bytes of all forms together for which the automaton is a table of transitions (256 bytes a state); of more it is a quarter as fast and
/// a twentieth as large.
const TABLE_BYTES: usize = 256 << 10;
/// Labels that one form may name; a form of more names none of them, since it does not tell them apart.
const MAX_SHARED: usize = 16;

/// Finds labels and heads in captions.
pub(super) struct Finder {
    automaton: Kind,
    patterns: Vec<Pattern>,
    /// The number of each label's head, for labels that have one. Labels with the same head share it.
    head_of: Vec<Option<u32>>,
    heads: usize,
}

enum Kind {
    Table(dfa::DFA),
    Compact(nfa::contiguous::NFA),
}

/// What stands for a form in the automaton: with a space on each side where the form ends a word.
#[derive(Default)]
struct Pattern {
    leading: bool,
    trailing: bool,
    labels: Vec<u32>,
    heads: Vec<u32>,
}

/// A pattern in a caption; bytes of the caption's words.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    pattern: usize,
}

/// What a caption names, and buffers that are used again.
#[derive(Default)]
pub(super) struct Found {
    /// Labels; some twice.
    pub labels: Vec<u32>,
    /// Heads of labels; some twice.
    pub heads: Vec<u32>,
    words: Words,
    spans: Vec<Span>,
}

impl Finder {
    /// # Errors
    /// [`LabelError::List`] for more text than an automaton can be made of.
    pub fn new(labels: &Labels) -> Result<Self> {
        let each = labels.names().iter().zip(labels.synonyms());
        let all: Vec<Forms> = each.map(|(name, synonyms)| Forms::of(name, synonyms)).collect();
        let mut naming: HashMap<&str, Vec<u32>> = HashMap::new();
        for (label, forms) in (0..).zip(&all) {
            forms.given.iter().for_each(|form| naming.entry(form).or_default().push(label));
        }
        // What one label is called is not the singular or plural of another.
        let mut inflected: HashMap<&str, Vec<u32>> = HashMap::new();
        for (label, forms) in (0..).zip(&all) {
            for form in forms.inflected.iter().filter(|form| !naming.contains_key(form.as_str())) {
                inflected.entry(form).or_default().push(label);
            }
        }
        naming.extend(inflected);
        let mut by_form: BTreeMap<&str, Pattern> = BTreeMap::new();
        for (form, labels) in naming.into_iter().filter(|(_, labels)| labels.len() <= MAX_SHARED) {
            by_form.entry(form).or_default().labels = labels;
        }
        let mut heads: HashMap<&[String], u32> = HashMap::new();
        let mut head_of = Vec::with_capacity(all.len());
        for forms in &all {
            let next = heads.len() as u32;
            let head = (!forms.head.is_empty()).then(|| *heads.entry(&forms.head).or_insert(next));
            head_of.push(head);
            if head == Some(next) {
                forms.head.iter().for_each(|form| by_form.entry(form).or_default().heads.push(next));
            }
        }
        let mut texts = Vec::with_capacity(by_form.len());
        let mut patterns = Vec::with_capacity(by_form.len());
        for (form, pattern) in by_form {
            let (leading, trailing) = (!form.starts_with(is_unspaced), !form.ends_with(is_unspaced));
            let space = |is_there| if is_there { " " } else { "" };
            texts.push(format!("{}{form}{}", space(leading), space(trailing)));
            patterns.push(Pattern { leading, trailing, ..pattern });
        }
        let automaton = Kind::new(&texts)?;
        Ok(Self { automaton, patterns, head_of, heads: heads.len() })
    }

    /// The number of each label's head, for labels that have one.
    pub fn head_of(&self) -> &[Option<u32>] {
        &self.head_of
    }

    /// How many different heads there are.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Finds the labels that a caption names, and the heads in it. A name within a longer one is none: a `hot dog` is not a `dog`, where both
    /// are labels. Names of the same words name all of their labels.
    pub fn find(&self, caption: &str, found: &mut Found) {
        let Found { labels, heads, words, spans } = found;
        labels.clear();
        heads.clear();
        spans.clear();
        let words = if caption.is_ascii() { caption } else { words.of(caption) };
        match &self.automaton {
            Kind::Table(automaton) => self.scan(automaton, words.as_bytes(), spans),
            Kind::Compact(automaton) => self.scan(automaton, words.as_bytes(), spans),
        }
        for span in spans.iter() {
            heads.extend(&self.patterns[span.pattern].heads);
        }
        spans.retain(|span| !self.patterns[span.pattern].labels.is_empty());
        keep_longest(spans);
        for span in spans.iter() {
            labels.extend(&self.patterns[span.pattern].labels);
        }
    }

    /// All patterns in ASCII, or in words of [`Words`].
    fn scan<A: Automaton>(&self, automaton: &A, text: &[u8], spans: &mut Vec<Span>) {
        let Ok(begin) = automaton.start_state(Anchored::No) else { return };
        let mut state = automaton.next_state(Anchored::No, begin, b' ');
        let (mut previous, mut position) = (b' ', 1);
        let mut matched = |state: StateID, position: usize| {
            for place in 0..automaton.match_len(state) {
                let id = automaton.match_pattern(state, place);
                let pattern = &self.patterns[id.as_usize()];
                let start = position - automaton.pattern_len(id) + usize::from(pattern.leading);
                let end = position - usize::from(pattern.trailing);
                spans.push(Span { start, end, pattern: id.as_usize() });
            }
        };
        for &byte in text {
            let byte = BYTES[usize::from(byte)];
            if byte == b' ' && previous == b' ' {
                continue;
            }
            previous = byte;
            position += 1;
            state = automaton.next_state(Anchored::No, state, byte);
            if automaton.is_special(state) && automaton.is_match(state) {
                matched(state, position);
            }
        }
        if previous != b' ' {
            state = automaton.next_state(Anchored::No, state, b' ');
            if automaton.is_match(state) {
                matched(state, position + 1);
            }
        }
    }
}

impl Kind {
    fn new(texts: &[String]) -> Result<Self> {
        let bytes: usize = texts.iter().map(String::len).sum();
        let too_much = |e: aho_corasick::BuildError| LabelError::List {
            origin: "the labels' names and synonyms".to_owned(),
            line: None,
            expected: "text that an automaton can be made of".to_owned(),
            found: format!("{bytes} bytes: {e}"),
        };
        let mut builder = nfa::noncontiguous::Builder::new();
        // No search for first bytes: every word begins with the same one.
        builder.match_kind(MatchKind::Standard).prefilter(false);
        let nfa = builder.build(texts).map_err(too_much)?;
        if bytes <= TABLE_BYTES {
            let table = dfa::Builder::new()
                .start_kind(aho_corasick::StartKind::Unanchored)
                .build_from_noncontiguous(&nfa);
            Ok(Self::Table(table.map_err(too_much)?))
        } else {
            let compact = nfa::contiguous::Builder::new().build_from_noncontiguous(&nfa);
            Ok(Self::Compact(compact.map_err(too_much)?))
        }
    }
}

/// Removes the spans that lie in longer ones.
fn keep_longest(spans: &mut Vec<Span>) {
    if spans.len() < 2 {
        return;
    }
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    // The span before that reaches farthest: what begins behind its start and ends within it lies in it.
    let mut farthest = spans[0];
    spans.retain(|span| {
        let is_same = (span.start, span.end) == (farthest.start, farthest.end);
        let is_kept = is_same || span.end > farthest.end;
        if is_kept {
            farthest = *span;
        }
        is_kept
    });
}

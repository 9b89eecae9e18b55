//! Labels on lines: comments, numbers, bullets and quotes that are not part of them.

use super::Label;
use super::entries::{Found, LabelEntry, check_count, counted, in_order, is_wordnet_id};
use super::error::LabelError;
use super::list::LabelList;
use super::quoted::split_quoted;
use super::template::fill;
use crate::error::Result;

/// What stands between a number and a label, and whether it may stand in labels as well.
const BEHIND_NUMBERS: [(&str, bool); 8] = [
    ("\t", false),
    (",", false),
    (";", false),
    ("|", false),
    (":", false),
    (". ", true),
    (") ", true),
    (" ", true),
];
const BULLETS: [&str; 3] = ["- ", "* ", "\u{2022} "];

/// The lines with their numbers; ends of lines are newlines.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.split('\n'))
}

/// A comment: `#` or `//` and white space at the start. `#hashtag` is a label.
pub(super) fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    let behind =
        line.strip_prefix("//").or_else(|| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    behind.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Whether the first line is a label in brackets, such as `[unknown]`, with others below: no JSON begins so.
pub(super) fn first_is_bracketed(text: &str) -> bool {
    let mut all = text.trim_start().split('\n').map(str::trim).filter(|line| !line.is_empty());
    let inner = all.next().and_then(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let is_word = inner.is_some_and(|inner| {
        let numeric = inner.trim().parse::<f64>().is_ok();
        !inner.trim().is_empty() && !numeric && !inner.contains(['"', '[', ']', '{', '}', ','])
    });
    is_word && all.next().is_some_and(|line| !line.starts_with(['[', '{']))
}

/// Reads lines.
pub(super) fn read(text: &str, origin: &str) -> Result<Found> {
    let mut notes = Vec::new();
    check_count(lines(text).filter(|(_, line)| !line.trim().is_empty()).count(), origin)?;
    let (mut numbers, mut rows): (Vec<u64>, Vec<&str>) = Default::default();
    let mut comments = 0;
    for (number, line) in lines(text).map(|(number, line)| (number, line.trim())) {
        if is_comment(line) {
            comments += 1;
        } else if !line.is_empty() {
            numbers.push(number);
            rows.push(line);
        }
    }
    notes.extend((comments > 0).then(|| format!("{} left out", counted(comments, "comment"))));
    let signs = rows.iter().filter(|line| line.starts_with('#')).count();
    notes.extend((signs > 0).then(|| {
        format!("{} with # at the start: a comment has a space behind it", counted(signs, "label"))
    }));
    if let Some(bullet) =
        BULLETS.iter().find(|bullet| rows.len() > 1 && rows.iter().all(|line| line.starts_with(**bullet)))
    {
        notes.push(format!("the {bullet:?} before each label is left out"));
        rows.iter_mut().for_each(|line| *line = line[bullet.len()..].trim_start());
    }
    if let [only] = rows[..]
        && only.contains(',')
    {
        notes.push("the only line is read as labels between commas".to_owned());
        let labels = LabelList::parse(only)?.0;
        let entries =
            labels.into_iter().map(|label| LabelEntry { label, id: None, line: Some(numbers[0]) }).collect();
        return Ok(Found { entries, notes });
    }
    let located = |entry: LabelEntry, row: usize| LabelEntry { line: Some(numbers[row]), ..entry };
    if let Some(identified) = rows.iter().map(|line| identified(line)).collect::<Option<Vec<_>>>() {
        let entries = identified.into_iter().enumerate().map(|(row, (id, name))| {
            located(LabelEntry { id: Some(id.to_owned()), ..LabelEntry::new(unquoted(name)) }, row)
        });
        return Ok(Found { entries: entries.collect(), notes });
    }
    if let Some(numbered) = numbered(&rows) {
        notes.push("the number beside each label is left out".to_owned());
        let entries = numbered.into_iter().enumerate();
        let entries =
            entries.map(|(row, (number, name))| (number, located(LabelEntry::new(unquoted(name)), row)));
        return Ok(Found { entries: in_order(entries.collect()), notes });
    }
    if !rows.is_empty() && rows.iter().all(|line| line.contains('\t')) {
        let entries = rows.iter().enumerate().map(|(row, line)| {
            let label = with_prompts(line).ok_or_else(|| LabelError::List {
                origin: origin.to_owned(),
                line: Some(numbers[row]),
                expected: "a label, or a label and its prompts with the label in each, between tabs"
                    .to_owned(),
                found: format!("{line:?}"),
            })?;
            Ok(located(LabelEntry { label, ..LabelEntry::default() }, row))
        });
        let found = Found { entries: entries.collect::<Result<_>>()?, notes };
        return Ok(found);
    }
    let entries = rows.iter().enumerate().map(|(row, line)| located(LabelEntry::new(unquoted(line)), row));
    Ok(Found { entries: entries.collect(), notes })
}

/// A line without the quotes around all of it, and the comma that a list in a program has behind them.
fn unquoted(line: &str) -> String {
    if !line.starts_with('"') {
        return line.to_owned();
    }
    let bare = line.strip_suffix(',').unwrap_or(line);
    if let Ok(text) = serde_json::from_str::<String>(bare) {
        return text;
    }
    match split_quoted(bare, |_| false) {
        Some(mut fields) if bare.ends_with('"') => fields.pop().unwrap_or_default(),
        _ => line.to_owned(),
    }
}

/// A WordNet id and the name behind it.
fn identified(line: &str) -> Option<(&str, &str)> {
    let (id, name) = line.split_once([' ', '\t', ',', ':'])?;
    Some((id, name.trim_matches([' ', '\t']))).filter(|(id, name)| is_wordnet_id(id) && !name.is_empty())
}

/// Labels with numbers: all before them or all behind them, with the same separator. The numbers count from 0 or 1, in any order; where
/// the separator is hardly ever part of a label, it is enough that they ascend.
pub(super) fn numbered<'a>(rows: &[&'a str]) -> Option<Vec<(u64, &'a str)>> {
    if rows.len() < 2 {
        return None;
    }
    let before = |line: &'a str, separator: &str| {
        let (number, name) = line.trim().split_once(separator)?;
        Some((number.trim().parse().ok()?, name.trim())).filter(|(_, name)| !name.is_empty())
    };
    let behind = |line: &'a str, separator: &str| {
        let (name, number) = line.trim().rsplit_once(separator)?;
        Some((number.trim().parse().ok()?, name.trim())).filter(|(_, name)| !name.is_empty())
    };
    for (separator, in_labels) in BEHIND_NUMBERS {
        for found in [
            rows.iter().map(|line| before(line, separator)).collect::<Option<Vec<(u64, &str)>>>(),
            rows.iter().map(|line| behind(line, separator)).collect(),
        ] {
            let Some(found) = found else { continue };
            let mut numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
            let ascend = numbers.windows(2).all(|pair| pair[0] < pair[1]);
            numbers.sort_unstable();
            let counts = |from: u64| numbers.iter().copied().eq(from..from + numbers.len() as u64);
            let names = found.iter().all(|(_, name)| name.parse::<u64>().is_err());
            if names && (counts(0) || counts(1) || ascend && !in_labels) {
                return Some(found);
            }
        }
    }
    None
}

/// A label and prompts with it in them, between tabs.
fn with_prompts(line: &str) -> Option<Label> {
    let mut fields = line.split('\t').map(str::trim).filter(|field| !field.is_empty());
    let name = fields.next()?.to_owned();
    let prompts: Vec<String> = fields.map(str::to_owned).collect();
    let has_label = |prompt: &String| fill(prompt, &name).to_lowercase().contains(&name.to_lowercase());
    prompts.iter().all(has_label).then(|| Label { prompts, ..Label::new(&name) })
}

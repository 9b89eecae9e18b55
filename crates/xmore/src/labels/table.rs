//! Labels in a column of a table, whose separator and column are found by its header.

use csv::{ReaderBuilder, StringRecord, Trim};

use super::Label;
use super::columns::{NAME_COLUMNS, PROMPT_COLUMNS, SYNONYM_COLUMNS, plain_name};
use super::entries::{Found, LabelEntry, check_count, counted, in_order};
use super::error::LabelError;
use super::lines::{is_comment, lines};
use super::quoted::split_quoted;
use crate::error::{Result, XmoreError};

/// Headers of a single column that are hardly ever labels themselves.
const SURE_HEADERS: [&str; 6] = ["classname", "labelname", "label", "labels", "classnames", "labelnames"];
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];
/// What stands between the synonyms of a field.
const BETWEEN_SYNONYMS: [char; 2] = ['|', ';'];

/// Reads a table; `None` if the text has no header of one. `column` names the column; `is_table` says that the text is meant to be one.
pub(super) fn read(text: &str, origin: &str, column: Option<&str>, is_table: bool) -> Result<Option<Found>> {
    let Some((separator, body, header)) = header(text, column) else {
        return match (column, is_table) {
            (Some(column), _) => Err(no_column(origin, text, Some(column))),
            (None, true) => without_header(text, origin).map(|()| None),
            (None, false) => Ok(None),
        };
    };
    if header.len() == 1 && column.is_none() {
        let name = plain_name(&header[0]);
        let is_header =
            SURE_HEADERS.contains(&name.as_str()) || is_table && NAME_COLUMNS.contains(&name.as_str());
        if !is_header {
            return Ok(None);
        }
    }
    let mut rows: Vec<StringRecord> = Vec::new();
    let mut reader = ReaderBuilder::new()
        .delimiter(separator as u8)
        .flexible(true)
        .has_headers(false)
        .trim(Trim::All)
        .from_reader(body.as_bytes());
    // Lines of the text before the body.
    let before = text[..text.len() - body.len()].matches('\n').count() as u64;
    let (mut comments, mut first) = (0, true);
    for record in reader.records() {
        let record = record.map_err(|e| LabelError::List {
            origin: origin.to_owned(),
            line: e.position().map(|position| before + position.line()),
            expected: "a table".to_owned(),
            found: e.to_string(),
        })?;
        if record.len() == 1 && is_comment(&record[0]) {
            comments += 1;
        } else if !std::mem::take(&mut first) {
            rows.push(record);
            check_count(rows.len(), origin)?;
        }
    }
    let column = match column {
        Some(name) => position(&header, name),
        None => likeliest(&header, &rows),
    };
    let Some(column) = column else { return Ok(None) };
    let find = |names: &[&str]| {
        let found = names.iter().find_map(|name| header.iter().position(|h| plain_name(h) == *name));
        found.filter(|found| *found != column)
    };
    let (prompts, synonyms) = (find(&PROMPT_COLUMNS), find(&SYNONYM_COLUMNS));
    let (mut entries, mut unnamed): (Vec<LabelEntry>, Vec<u64>) = Default::default();
    for row in &rows {
        let line = row.position().map(|position| before + position.line());
        match row.get(column).filter(|name| !name.is_empty()) {
            Some(name) => {
                let field = |column: Option<usize>| column.and_then(|column| row.get(column)).unwrap_or("");
                let texts = |all: &mut dyn Iterator<Item = &str>| -> Vec<String> {
                    all.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
                };
                let label = Label {
                    name: name.to_owned(),
                    prompts: texts(&mut std::iter::once(field(prompts))),
                    synonyms: texts(&mut field(synonyms).split(BETWEEN_SYNONYMS)),
                };
                entries.push(LabelEntry { label, id: None, line });
            }
            None => unnamed.extend(line),
        }
    }
    let mut notes = vec![format!("labels are those of the column {:?}", header[column])];
    if let Some(prompts) = prompts {
        notes.push(format!("the labels' own prompts are those of the column {:?}", header[prompts]));
    } else if let Some(numbers) = numbers(&rows, column, entries.len()) {
        entries = in_order(numbers.into_iter().zip(entries).collect());
    }
    if let Some(synonyms) = synonyms {
        notes.push(format!("the labels' synonyms are those of the column {:?}", header[synonyms]));
    }
    if prompts.or(synonyms).is_some() {
        entries = grouped(entries);
    }
    notes.extend((comments > 0).then(|| format!("{} left out", counted(comments, "comment"))));
    if let Some(line) = unnamed.first() {
        let rows = counted(unnamed.len(), "row");
        notes.push(format!("{rows} without a label left out, the first on line {line}"));
    }
    Ok(Some(Found { entries, notes }))
}

/// The separator, the text from the header on, and the header's fields.
fn header<'a>(text: &'a str, column: Option<&str>) -> Option<(char, &'a str, Vec<String>)> {
    let mut all = lines(text).filter(|(_, line)| !line.trim().is_empty() && !is_comment(line));
    let (mut separators, mut first) = (SEPARATORS.to_vec(), all.next()?.1);
    // Excel tells the separator of its csv files in a line of its own.
    if let Some(separator) = first.trim().strip_prefix("sep=") {
        let told = if separator.is_empty() { Some('\t') } else { separator.chars().next() };
        separators = told.filter(char::is_ascii).into_iter().collect();
        first = all.next()?.1;
    }
    let start = first.as_ptr() as usize - text.as_ptr() as usize;
    let fields = |separator: &char| Some((*separator, split_quoted(first, |c| c == *separator)?));
    let wanted = |fields: &[String]| match column {
        Some(name) => position(fields, name).is_some(),
        None => fields.iter().any(|field| NAME_COLUMNS.contains(&plain_name(field).as_str())),
    };
    let (separator, fields) = separators
        .iter()
        .filter_map(fields)
        .filter(|(_, fields)| wanted(fields))
        .max_by_key(|(_, fields)| fields.len())?;
    Some((separator, &text[start..], fields))
}

/// A column by its name: as it is written, else without regard to case and signs.
fn position(header: &[String], name: &str) -> Option<usize> {
    let alike = || header.iter().position(|field| plain_name(field) == plain_name(name));
    header.iter().position(|field| field == name.trim()).or_else(alike)
}

/// The likeliest column of names. Where it has numbers alone, another one, or the only other.
fn likeliest(header: &[String], rows: &[StringRecord]) -> Option<usize> {
    let by_name =
        NAME_COLUMNS.iter().filter_map(|name| header.iter().position(|field| plain_name(field) == *name));
    let candidates: Vec<usize> = by_name.collect();
    let is_number =
        |row: &StringRecord, column: usize| row.get(column).is_none_or(|field| field.parse::<u64>().is_ok());
    let has_names = |column: &usize| !rows.iter().all(|row| is_number(row, *column));
    let other = || {
        (0..header.len()).filter(|column| header.len() == 2 && !candidates.contains(column)).find(has_names)
    };
    candidates.iter().copied().find(has_names).or_else(other).or(candidates.first().copied())
}

/// The numbers of another column, if there is one that counts the rows from 0 or 1.
fn numbers(rows: &[StringRecord], names: usize, count: usize) -> Option<Vec<u64>> {
    let columns = rows.first()?.len();
    let of = |column: usize| {
        let numbers: Vec<u64> =
            rows.iter().map(|row| row.get(column)?.parse().ok()).collect::<Option<_>>()?;
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let counts = |from: u64| sorted.iter().copied().eq(from..from + count as u64);
        (numbers.len() == count && (counts(0) || counts(1))).then_some(numbers)
    };
    (0..columns).filter(|column| *column != names).find_map(of)
}

/// Rows of the same label as one label with all prompts and synonyms.
fn grouped(entries: Vec<LabelEntry>) -> Vec<LabelEntry> {
    let mut places = std::collections::HashMap::new();
    let mut labels: Vec<LabelEntry> = Vec::new();
    for entry in entries {
        let place = *places.entry(entry.label.name.clone()).or_insert(labels.len());
        match labels.get_mut(place) {
            Some(known) => {
                known.label.prompts.extend(entry.label.prompts);
                known.label.synonyms.extend(entry.label.synonyms);
            }
            None => labels.push(entry),
        }
    }
    labels
}

/// A `.csv` or `.tsv` without a header that is known is read as lines if it has one column, or numbers beside.
fn without_header(text: &str, origin: &str) -> Result<()> {
    let rows: Vec<&str> = lines(text).map(|(_, line)| line).filter(|line| !line.trim().is_empty()).collect();
    let columns = |separator: char| {
        let count = |line: &&str| split_quoted(line, |c| c == separator).map_or(0, |fields| fields.len());
        let first = rows.first().map_or(0, count);
        first > 1 && rows.iter().all(|line| count(line) == first)
    };
    match SEPARATORS.iter().any(|&separator| columns(separator)) {
        true if super::lines::numbered(&rows).is_none() && rows.len() > 1 => {
            Err(no_column(origin, text, None))
        }
        _ => Ok(()),
    }
}

/// The most columns that an error lists.
const MAX_COLUMNS: usize = 20;

fn no_column(origin: &str, text: &str, wanted: Option<&str>) -> XmoreError {
    let first = lines(text).map(|(_, line)| line).find(|line| !line.trim().is_empty()).unwrap_or("");
    let fields = SEPARATORS.iter().filter_map(|&separator| split_quoted(first, |c| c == separator));
    let columns = fields.max_by_key(Vec::len).unwrap_or_else(|| vec![first.to_owned()]);
    let short = |name: &String| name.chars().take(80).collect::<String>();
    LabelError::Column {
        origin: origin.to_owned(),
        wanted: wanted.map(str::to_owned),
        columns: columns.iter().take(MAX_COLUMNS).map(short).collect(),
    }
    .into()
}

//! Records of separated text: the separator is found out, memory is bounded, and a quote that is never closed costs one line.

use std::io::{self, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::columns::{is_image, is_usual, same_name};
use super::{BadRow, MAX_RECORD_BYTES, RowError};
use crate::text::{Conversion, TextReader};

/// The line on which a record begins, counted from 1, and its fields.
pub(super) type Record = Result<(u64, Vec<String>), BadRow>;

/// Separators that are looked for; where nothing decides, the one that the file's name promises.
const SEPARATORS: [u8; 4] = [b',', b'\t', b';', b'|'];
/// Bytes and records that the separator is judged by.
const JUDGED_BYTES: usize = 64 * 1024;
const JUDGED_RECORDS: usize = 32;
/// Open quotes that a file may have before the rest is given up: each is searched for its end.
const MAX_OPEN_QUOTES: u32 = 1000;

/// The records of a separated text.
pub(super) struct Separated<R> {
    input: TextReader<R>,
    input_ended: bool,
    parser: Reader,
    separator: u8,
    /// Text read and not yet consumed; the record that is read next begins at `start`.
    raw: Vec<u8>,
    start: usize,
    /// Line at `start`.
    line: u64,
    fields: Vec<u8>,
    ends: Vec<usize>,
    open_quotes: u32,
}

impl<R: Read> Separated<R> {
    /// Finds out the separator. Names that are `wanted` count as known ones.
    pub fn open(input: R, preferred: u8, wanted: &[&str]) -> io::Result<Separated<R>> {
        let mut table = Separated {
            input: TextReader::new(input),
            input_ended: false,
            parser: Reader::new(),
            separator: preferred,
            raw: Vec::new(),
            start: 0,
            line: 1,
            fields: vec![0; 4096],
            ends: vec![0; 64],
            open_quotes: 0,
        };
        while table.raw.len() < JUDGED_BYTES && !table.input_ended {
            table.fill()?;
        }
        table.separator = match separator_line(&table.raw) {
            Some((separator, end)) => {
                table.advance(end);
                separator
            }
            None => judge(&table.raw, table.input_ended, preferred, wanted),
        };
        table.parser = parser(table.separator);
        Ok(table)
    }

    /// What stands between two fields.
    pub fn separator(&self) -> u8 {
        self.separator
    }

    /// See [`TextReader::conversion`].
    pub fn conversion(&self) -> Conversion {
        self.input.conversion()
    }

    /// Bytes of memory in its buffers.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.raw.capacity() + self.fields.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// The next record and the line on which it begins; `None` at the end. Blank lines are passed over.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        let (mut at, mut length, mut count) = (self.start, 0, 0);
        loop {
            if at == self.raw.len() && !self.input_ended {
                // Blank lines are part of no record, however many there are.
                if self.raw[self.start..].iter().all(|&byte| byte == b'\n' || byte == b'\r') {
                    self.advance(at);
                }
                if at - self.start >= MAX_RECORD_BYTES {
                    return self.skip_line().map(Some);
                }
                at -= self.start;
                self.fill()?;
                at += self.start;
                continue;
            }
            let (fields, ends) = (&mut self.fields[length..], &mut self.ends[count..]);
            // Without input the parser takes it that there is no more.
            let (result, read, written, ended) = self.parser.read_record(&self.raw[at..], fields, ends);
            at += read;
            length += written;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => break,
            }
        }
        let record = &self.raw[self.start..at];
        let blank = record.iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
        let record = &record[blank..];
        // The end of the text ends a quoted field too. Of one that spans lines the odd number of quotes tells.
        if at == self.raw.len()
            && self.input_ended
            && breaks(record, None) > 0
            && record.iter().filter(|&&b| b == b'"').count() % 2 == 1
        {
            return self.skip_line().map(Some);
        }
        let line =
            self.line + breaks(&self.raw[self.start..self.start + blank], self.raw.get(self.start + blank));
        let mut start = 0;
        let fields = self.ends[..count].iter().map(|&end| {
            let field = String::from_utf8_lossy(&self.fields[start..end.max(start)]);
            start = end.max(start);
            trimmed(&field).to_owned()
        });
        let fields = fields.collect();
        self.advance(at);
        Ok(Some(Ok((line, fields))))
    }

    /// Passes over the first line of a record whose end was not found, and goes on behind it.
    fn skip_line(&mut self) -> io::Result<Record> {
        // Blank lines before it are part of no record.
        let blank = self.raw[self.start..].iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
        self.advance(self.start + blank);
        self.parser = parser(self.separator);
        self.open_quotes += 1;
        let mut bad = BadRow { line: self.line, error: RowError::OpenQuote };
        let mut length = 0;
        loop {
            let rest = &self.raw[self.start..];
            match rest.iter().position(|&b| b == b'\n' || b == b'\r') {
                Some(end) if self.open_quotes <= MAX_OPEN_QUOTES => {
                    self.advance(self.start + end + 1);
                    break;
                }
                end => {
                    length += rest.len();
                    if end.is_none() && length >= MAX_RECORD_BYTES {
                        bad.error = RowError::TooLong { limit: MAX_RECORD_BYTES };
                    }
                    self.advance(self.raw.len());
                    if self.input_ended {
                        break;
                    }
                    self.fill()?;
                }
            }
        }
        if self.open_quotes > MAX_OPEN_QUOTES {
            bad.error = RowError::TooManyOpenQuotes { limit: MAX_OPEN_QUOTES };
        }
        Ok(Err(bad))
    }

    /// Reads more text behind what is there, and drops what was consumed.
    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.start);
        self.start = 0;
        let before = self.raw.len();
        (&mut self.input).take(JUDGED_BYTES as u64).read_to_end(&mut self.raw)?;
        self.input_ended = self.raw.len() == before;
        Ok(())
    }

    /// Consumes the text before `end`.
    fn advance(&mut self, end: usize) {
        self.line += breaks(&self.raw[self.start..end], self.raw.get(end));
        self.start = end;
    }
}

fn parser(separator: u8) -> Reader {
    ReaderBuilder::new().delimiter(separator).build()
}

/// Number of line breaks, of which `\r\n` is one, before what follows.
fn breaks(text: &[u8], next: Option<&u8>) -> u64 {
    let followed_by = |i: usize| text.get(i + 1).or(next);
    let ends =
        |&(i, &byte): &(usize, &u8)| byte == b'\n' || (byte == b'\r' && followed_by(i) != Some(&b'\n'));
    text.iter().enumerate().filter(ends).count() as u64
}

/// A field without spaces around it, nor quotes that a space kept from being the first character.
fn trimmed(field: &str) -> &str {
    let trimmed = field.trim();
    if trimmed.len() == field.len() {
        return field;
    }
    let inner = trimmed.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.map_or(trimmed, str::trim)
}

/// The separator of Excel's first line `sep=;`, and where the next line begins.
fn separator_line(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().position(|&b| b == b'\n' || b == b'\r').unwrap_or(text.len());
    let line = text[..end].trim_ascii_end();
    // A tab at the end is the separator itself.
    let line = if line.len() == 4 && text.get(4) == Some(&b'\t') { &text[..5] } else { line };
    let line = line.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(line);
    let &[s, e, p, b'=', separator] = line else { return None };
    let known =
        [s, e, p].eq_ignore_ascii_case(b"sep") && separator.is_ascii() && !separator.is_ascii_alphanumeric();
    let next = if text[end..].starts_with(b"\r\n") { end + 2 } else { (end + 1).min(text.len()) };
    known.then_some((separator, next))
}

/// The separator that gives the header the most known names, else the records the most even lengths.
fn judge(text: &[u8], whole: bool, preferred: u8, wanted: &[&str]) -> u8 {
    let others = SEPARATORS.iter().copied().filter(|&separator| separator != preferred);
    let candidates = std::iter::once(preferred).chain(others);
    let scored = candidates.map(|separator| (score(text, whole, separator, wanted), separator));
    // Of equals the first, which is the preferred one.
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map_or(preferred, |(_, separator)| separator)
}

/// Known names in the header; whether it has several fields; records of its length in percent; its length.
fn score(text: &[u8], whole: bool, separator: u8, wanted: &[&str]) -> (usize, bool, usize, usize) {
    let records = first_records(text, whole, separator);
    let Some(header) = records.first() else { return (0, false, 0, 0) };
    let known = |field: &&String| {
        let field = field.trim();
        is_usual(field) || is_image(field) || wanted.iter().any(|name| same_name(name, field))
    };
    let known = header.iter().filter(known).count();
    let even = records.iter().filter(|record| record.len() == header.len()).count();
    (known, header.len() > 1, even * 100 / records.len(), header.len())
}

fn first_records(text: &[u8], whole: bool, separator: u8) -> Vec<Vec<String>> {
    let mut parser = parser(separator);
    let (mut fields, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 1]);
    let (mut at, mut records) = (0, Vec::new());
    while records.len() < JUDGED_RECORDS {
        let (mut length, mut count) = (0, 0);
        loop {
            if at == text.len() && !whole {
                return records;
            }
            let (result, read, written, ended) =
                parser.read_record(&text[at..], &mut fields[length..], &mut ends[count..]);
            at += read;
            length += written;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record => break,
                // There is room for all of the text.
                _ => return records,
            }
        }
        let mut start = 0;
        records.push(
            ends[..count]
                .iter()
                .map(|&end| {
                    let field = String::from_utf8_lossy(&fields[start..end.max(start)]).into_owned();
                    start = end.max(start);
                    field
                })
                .collect(),
        );
    }
    records
}

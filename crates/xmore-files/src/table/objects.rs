//! JSON objects one after another: a line each, or the elements of a list; one that is broken or too long costs no other.

use std::io::{self, BufRead, BufReader, Read};

use super::{BadRow, RowError};
use crate::text::{Conversion, TextReader};

/// Longest object that is read: img2dataset's with all metadata of a photo have a few kilobytes.
pub(super) const MAX_OBJECT_BYTES: usize = 4 << 20;

/// The objects of a text, as text.
pub(super) struct Objects<R> {
    input: BufReader<TextReader<R>>,
    /// Whether an object ends where its line ends.
    lines: bool,
    line: u64,
}

/// An object's bytes and the line on which it begins.
pub(super) type Object = Result<(u64, Vec<u8>), BadRow>;

impl<R: Read> Objects<R> {
    /// Objects in lines, or in a list if the text begins with `[`.
    pub fn open(input: R) -> io::Result<Objects<R>> {
        let mut input = BufReader::with_capacity(1 << 16, TextReader::new(input));
        let mut line = 1;
        let lines = loop {
            let buffer = input.fill_buf()?;
            match buffer.first() {
                Some(byte) if byte.is_ascii_whitespace() => {
                    line += u64::from(*byte == b'\n');
                    input.consume(1);
                }
                byte => break byte != Some(&b'['),
            }
        };
        Ok(Objects { input, lines, line })
    }

    /// See [`TextReader::conversion`].
    pub fn conversion(&self) -> Conversion {
        self.input.get_ref().conversion()
    }

    /// The next object, `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Object>> {
        if self.lines { self.next_line() } else { self.next_element() }
    }

    fn next_line(&mut self) -> io::Result<Option<Object>> {
        loop {
            let (line, mut bytes) = (self.line, Vec::new());
            let limit = MAX_OBJECT_BYTES as u64 + 1;
            (&mut self.input).take(limit).read_until(b'\n', &mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            if bytes.len() > MAX_OBJECT_BYTES && bytes.last() != Some(&b'\n') {
                self.input.skip_until(b'\n')?;
                return Ok(Some(Err(BadRow { line, error: RowError::TooLong { limit: MAX_OBJECT_BYTES } })));
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(Ok((line, bytes))));
            }
        }
    }

    /// An element of a list: from a brace to that which closes it. A line that ends within a string ends a broken element.
    fn next_element(&mut self) -> io::Result<Option<Object>> {
        let mut bytes = Vec::new();
        let (mut line, mut depth, mut in_string, mut escaped, mut too_long) =
            (self.line, 0u64, false, false, false);
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                let error = RowError::NotJson { message: "it ends within an object".to_owned() };
                return Ok((depth > 0).then_some(Err(BadRow { line, error })));
            }
            let (mut used, mut complete, mut broken) = (0, false, false);
            for &byte in buffer {
                used += 1;
                self.line += u64::from(byte == b'\n');
                if depth == 0 {
                    if byte != b'{' {
                        continue;
                    }
                    line = self.line;
                }
                if bytes.len() < MAX_OBJECT_BYTES {
                    bytes.push(byte);
                } else {
                    too_long = true;
                }
                match byte {
                    b'\n' if in_string => broken = true,
                    _ if escaped => escaped = false,
                    b'\\' if in_string => escaped = true,
                    b'"' => in_string = !in_string,
                    b'{' | b'[' if !in_string => depth += 1,
                    b'}' | b']' if !in_string => {
                        depth -= 1;
                        complete = depth == 0;
                    }
                    _ => {}
                }
                if complete || broken {
                    break;
                }
            }
            self.input.consume(used);
            let bad = |error| Ok(Some(Err(BadRow { line, error })));
            if too_long && (complete || broken) {
                return bad(RowError::TooLong { limit: MAX_OBJECT_BYTES });
            }
            if broken {
                return bad(RowError::NotJson { message: "a line ends within a string".to_owned() });
            }
            if complete {
                return Ok(Some(Ok((line, bytes))));
            }
        }
    }
}

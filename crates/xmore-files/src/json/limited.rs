//! JSON on its way to a parser, with its strings cut, since parsers hold a string whole, however long it is.

use std::io::{self, Read};

/// Longest number or word. A parser keeps all digits of a number.
const MAX_TOKEN_BYTES: usize = 4096;

/// A reader of JSON that leaves out what is in a string beyond a number of bytes, and refuses other values without end.
///
/// What comes out is JSON where what goes in is: a string is cut between two characters, never within an escape.
#[derive(Debug)]
pub struct LimitedStrings<R> {
    input: R,
    limit: usize,
    in_string: bool,
    /// Bytes of the string or of another value so far.
    length: usize,
    dropping: bool,
    escape: Escape,
    /// Whether the escape before was the first half of a pair.
    half: bool,
}

/// Where in an escape of a string the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    /// Behind the backslash.
    Kind,
    /// Behind `\u` and this many digits.
    Digit(u8),
}

impl<R: Read> LimitedStrings<R> {
    /// Cuts the strings of `input` after `limit` bytes, as they are written there.
    pub fn new(input: R, limit: usize) -> LimitedStrings<R> {
        LimitedStrings {
            input,
            limit,
            in_string: false,
            length: 0,
            dropping: false,
            escape: Escape::No,
            half: false,
        }
    }

    /// Whether a byte is let through.
    fn keeps(&mut self, byte: u8) -> io::Result<bool> {
        if !self.in_string {
            let ends = byte.is_ascii_whitespace() || b"{}[]:,\"".contains(&byte);
            self.length = if ends { 0 } else { self.length + 1 };
            self.in_string = byte == b'"';
            (self.dropping, self.half) = (false, false);
            return if self.length > MAX_TOKEN_BYTES {
                Err(too_long("a number or a word", MAX_TOKEN_BYTES))
            } else {
                Ok(true)
            };
        }
        match self.escape {
            Escape::Kind => self.escape = if byte == b'u' { Escape::Digit(0) } else { Escape::No },
            Escape::Digit(digit) => {
                let byte = byte.to_ascii_lowercase();
                self.half = match digit {
                    0 => byte == b'd',
                    1 => self.half && matches!(byte, b'8' | b'9' | b'a' | b'b'),
                    _ => self.half,
                };
                self.escape = if digit == 3 { Escape::No } else { Escape::Digit(digit + 1) };
            }
            Escape::No if byte == b'"' => {
                (self.in_string, self.length) = (false, 0);
                return Ok(true);
            }
            Escape::No => {
                // Between two characters, unless they are a pair.
                if self.length >= self.limit && byte & 0xc0 != 0x80 && !(self.half && byte == b'\\') {
                    self.dropping = true;
                }
                self.half = false;
                if byte == b'\\' {
                    self.escape = Escape::Kind;
                }
            }
        }
        self.length += 1;
        // No character has that many bytes.
        if !self.dropping && self.length > self.limit + 64 {
            return Err(too_long("a string", self.limit));
        }
        Ok(!self.dropping)
    }
}

fn too_long(what: &str, limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is longer than {limit} bytes"))
}

impl<R: Read> Read for LimitedStrings<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.input.read(out)?;
            let mut kept = 0;
            for at in 0..read {
                if self.keeps(out[at])? {
                    out[kept] = out[at];
                    kept += 1;
                }
            }
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limited(json: &str, limit: usize) -> io::Result<String> {
        let mut out = String::new();
        LimitedStrings::new(json.as_bytes(), limit).read_to_string(&mut out).map(|_| out)
    }

    #[test]
    fn strings_are_cut_between_characters_and_nothing_else_is() {
        for (json, expected) in [
            (r#"{"abcdef": "abcdefgh", "n": 1234567}"#, r#"{"abcd": "abcd", "n": 1234567}"#),
            (r#"["ab\"\\cd", "\n\n\n"]"#, r#"["ab\"", "\n\n"]"#),
            (r#"["\u732b\u732b", "a"]"#, r#"["\u732b", "a"]"#),
            (r#"["\ud83d\ude00\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#),
            (r#"["éééé"]"#, r#"["éé"]"#),
            (r#"["🐱🐱"]"#, r#"["🐱"]"#),
        ] {
            assert_eq!(limited(json, 4).unwrap(), expected, "{json}");
        }
        assert!(limited(&"1".repeat(5000), 4).is_err());
        assert!(
            LimitedStrings::new(&[&b"\""[..], &[0x80; 100]].concat()[..], 4)
                .read_to_end(&mut Vec::new())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn json_stays_json(texts in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\u{1f431}é]{0,12}", 0..8), limit in 0usize..12) {
            let json = serde_json::to_string(&texts).unwrap();
            let cut: Vec<String> = serde_json::from_str(&limited(&json, limit).unwrap()).unwrap();
            prop_assert_eq!(cut.len(), texts.len());
            for (cut, text) in cut.iter().zip(&texts) {
                prop_assert!(text.starts_with(cut.as_str()));
                prop_assert!(cut == text || cut.len() + 12 >= limit / 2);
            }
            prop_assert_eq!(limited(&json, 1 << 20).unwrap(), json);
        }
    }
}

//! Text of unknown encoding to UTF-8: byte order marks, UTF-16 with and without one, UTF-8, else Windows-1252, counted.

use std::fmt;
use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Bytes that are looked at to find the encoding, and that are decoded at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// UTF-16 without a mark is known by the upper bytes of ASCII, which are zero: in long text one in eight is enough.
const LONG_TEXT_UNITS: usize = 64;

/// How text was stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// UTF-8, also ASCII.
    #[default]
    Utf8,
    /// UTF-16, lower byte first, as Windows programs write it.
    Utf16Le,
    /// UTF-16, upper byte first.
    Utf16Be,
    /// Windows-1252, of which Latin-1 is a part; at least one line is.
    Windows1252,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Utf8 => "UTF-8",
            Encoding::Utf16Le => "UTF-16 (little-endian)",
            Encoding::Utf16Be => "UTF-16 (big-endian)",
            Encoding::Windows1252 => "Windows-1252",
        })
    }
}

/// What was done to text to make it UTF-8. Displays as a warning; see [`Conversion::is_certain`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conversion {
    /// How it was stored.
    pub encoding: Encoding,
    /// Bytes that are no UTF-8 and were taken for Windows-1252, which is a guess.
    pub converted: u64,
    /// Bytes or halves of a character that mean nothing in the encoding; each became U+FFFD.
    pub replaced: u64,
}

impl Conversion {
    /// Whether nothing was guessed or replaced, so that there is nothing to warn of.
    pub fn is_certain(&self) -> bool {
        self.converted == 0 && self.replaced == 0
    }

    /// Counts what was done to another text as well. The encoding becomes the other's where that had to be guessed.
    pub fn add(&mut self, other: Conversion) {
        if other.converted > 0 {
            self.encoding = other.encoding;
        }
        self.converted += other.converted;
        self.replaced += other.replaced;
    }
}

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (self.converted, self.replaced) {
            (0, 0) => write!(f, "read as {}", self.encoding),
            (0, n) => write!(f, "{} could not be read as {}", counted(n, "character"), self.encoding),
            (n, 0) => write!(f, "{} not UTF-8, read as Windows-1252", counted(n, "byte")),
            (n, lost) => {
                let (bytes, lost) = (counted(n, "byte"), counted(lost, "byte"));
                write!(f, "{bytes} not UTF-8, read as Windows-1252, and {lost} without a meaning there")
            }
        }
    }
}

/// Text as UTF-8, and how it became so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecodedText {
    /// The text, without a byte order mark.
    pub text: String,
    /// How it was stored, and what had to be guessed.
    pub conversion: Conversion,
}

/// Decodes text that is in memory, as [`TextReader`] does.
pub fn decode_text(bytes: &[u8]) -> DecodedText {
    let mut reader = TextReader::new(bytes);
    let mut text = String::with_capacity(bytes.len());
    // Neither can fail: a slice is read, and a `TextReader` gives UTF-8.
    let _ = reader.read_to_string(&mut text);
    DecodedText { text, conversion: reader.conversion() }
}

/// The bytes of a text in Windows-1252; `None` if it has characters that are not in it.
pub(crate) fn to_windows_1252(text: &str) -> Option<Vec<u8>> {
    let (bytes, _, has_unmappable) = WINDOWS_1252.encode(text);
    (!has_unmappable).then(|| bytes.into_owned())
}

/// A reader of text in any of the encodings that gives UTF-8, whatever the bytes are, without a byte order mark.
///
/// The encoding is found from the first 64 KiB: a byte order mark, else UTF-16 where the zeros of ASCII characters show it. Anything
/// else is read line by line: what is UTF-8 stays, and a line that is not is taken for Windows-1252 and counted. No more than 64 KiB of
/// the input are held, however long a line is; of a longer one each 64 KiB count as a line.
#[derive(Debug)]
pub struct TextReader<R> {
    input: R,
    input_ended: bool,
    /// Read and not yet decoded.
    raw: Vec<u8>,
    /// Decoded; what is before `taken` has been given out.
    decoded: Vec<u8>,
    taken: usize,
    state: State,
    conversion: Conversion,
}

/// How the rest is decoded.
enum State {
    /// Nothing was read yet.
    Start,
    Utf16(Decoder),
    Lines,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Start => "Start",
            State::Utf16(_) => "Utf16",
            State::Lines => "Lines",
        })
    }
}

impl<R: Read> TextReader<R> {
    /// A reader of the text in `input`.
    pub fn new(input: R) -> TextReader<R> {
        TextReader {
            input,
            input_ended: false,
            raw: Vec::new(),
            decoded: Vec::new(),
            taken: 0,
            state: State::Start,
            conversion: Conversion::default(),
        }
    }

    /// What was done so far; complete once the reader is at its end.
    pub fn conversion(&self) -> Conversion {
        self.conversion
    }

    /// Decodes the next chunk of the input.
    fn decode_more(&mut self) -> io::Result<()> {
        let missing = CHUNK_BYTES.saturating_sub(self.raw.len());
        if !self.input_ended && missing > 0 {
            let read = (&mut self.input).take(missing as u64).read_to_end(&mut self.raw)?;
            self.input_ended = read < missing;
        }
        self.decoded.clear();
        self.taken = 0;
        if matches!(self.state, State::Start) {
            let (encoding, mark) = detect(&self.raw);
            self.raw.drain(..mark);
            self.conversion.encoding = encoding;
            self.state = match encoding {
                Encoding::Utf16Le => State::Utf16(UTF_16LE.new_decoder_without_bom_handling()),
                Encoding::Utf16Be => State::Utf16(UTF_16BE.new_decoder_without_bom_handling()),
                Encoding::Utf8 | Encoding::Windows1252 => State::Lines,
            };
        }
        match &mut self.state {
            State::Utf16(decoder) => {
                self.conversion.replaced +=
                    decode_utf16(decoder, &self.raw, self.input_ended, &mut self.decoded);
                self.raw.clear();
            }
            State::Start | State::Lines => {
                let end = if self.input_ended { self.raw.len() } else { end_of_lines(&self.raw) };
                decode_lines(&self.raw[..end], &mut self.decoded, &mut self.conversion);
                self.raw.drain(..end);
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for TextReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.decoded.len() {
            if self.input_ended && self.raw.is_empty() {
                return Ok(0);
            }
            self.decode_more()?;
        }
        let read = out.len().min(self.decoded.len() - self.taken);
        out[..read].copy_from_slice(&self.decoded[self.taken..self.taken + read]);
        self.taken += read;
        Ok(read)
    }
}

/// The encoding that the first bytes show, and the length of the byte order mark.
fn detect(head: &[u8]) -> (Encoding, usize) {
    match head {
        [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
        [0xff, 0xfe, ..] => (Encoding::Utf16Le, 2),
        [0xfe, 0xff, ..] => (Encoding::Utf16Be, 2),
        _ => {
            let zeros = |from: usize| head.iter().skip(from).step_by(2).filter(|&&byte| byte == 0).count();
            let (first, second, units) = (zeros(0), zeros(1), head.len() / 2);
            if head.len() % 2 == 1 && head.len() < CHUNK_BYTES {
                return (Encoding::Utf8, 0);
            }
            let enough = if units < LONG_TEXT_UNITS { units.div_ceil(4) * 3 } else { units / 8 };
            let many = |zeros: usize| zeros > 0 && zeros >= enough.min(units);
            // A lower byte is zero in one of 256 characters beyond ASCII; in text of another encoding no byte is.
            if many(second) && first * 16 <= second {
                (Encoding::Utf16Le, 0)
            } else if many(first) && second * 16 <= first {
                (Encoding::Utf16Be, 0)
            } else {
                (Encoding::Utf8, 0)
            }
        }
    }
}

/// Appends UTF-16 as UTF-8; returns how many units became U+FFFD.
fn decode_utf16(decoder: &mut Decoder, mut raw: &[u8], last: bool, out: &mut Vec<u8>) -> u64 {
    let mut replaced = 0;
    loop {
        let start = out.len();
        // A unit of two bytes becomes three at most.
        out.resize(start + raw.len() / 2 * 3 + 16, 0);
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(raw, &mut out[start..], last);
        out.truncate(start + written);
        raw = &raw[read..];
        match result {
            DecoderResult::InputEmpty => return replaced,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => {
                replaced += 1;
                out.extend("\u{fffd}".as_bytes());
            }
        }
    }
}

/// Where the last whole line ends, else, where there is none, the last whole character of UTF-8.
fn end_of_lines(raw: &[u8]) -> usize {
    if let Some(last) = raw.iter().rposition(|&byte| byte == b'\n') {
        return last + 1;
    }
    let lead = raw.iter().rposition(|&byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let length = match raw.get(lead) {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    // The rest must not be empty, or nothing would ever be decoded.
    if lead > 0 && lead + length > raw.len() { lead } else { raw.len() }
}

/// Appends lines as UTF-8: as they are, or from Windows-1252.
fn decode_lines(raw: &[u8], out: &mut Vec<u8>, conversion: &mut Conversion) {
    if std::str::from_utf8(raw).is_ok() {
        out.extend(raw);
        return;
    }
    for line in raw.split_inclusive(|&byte| byte == b'\n' || byte == b'\r') {
        if std::str::from_utf8(line).is_ok() {
            out.extend(line);
            continue;
        }
        conversion.encoding = Encoding::Windows1252;
        conversion.converted += line.iter().filter(|byte| !byte.is_ascii()).count() as u64;
        let (text, _) = WINDOWS_1252.decode_without_bom_handling(line);
        for character in text.chars() {
            // The five bytes without a meaning become control characters there.
            let character = if matches!(character, '\u{80}'..='\u{9f}') {
                conversion.converted -= 1;
                conversion.replaced += 1;
                '\u{fffd}'
            } else {
                character
            };
            out.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conversion(encoding: Encoding, converted: u64, replaced: u64) -> Conversion {
        Conversion { encoding, converted, replaced }
    }

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[track_caller]
    fn check(bytes: &[u8], text: &str, expected: Conversion) {
        assert_eq!(decode_text(bytes), DecodedText { text: text.to_owned(), conversion: expected });
    }

    #[test]
    fn each_encoding_is_known_with_and_without_its_mark() {
        let text = "image_path,caption\r\n0.jpg,église – 猫 🐱\r\n";
        check(text.as_bytes(), text, conversion(Encoding::Utf8, 0, 0));
        check(&[b"\xef\xbb\xbf", text.as_bytes()].concat(), text, conversion(Encoding::Utf8, 0, 0));
        for (encoding, mark, to_bytes) in [
            (Encoding::Utf16Le, b"\xff\xfe", u16::to_le_bytes as fn(u16) -> [u8; 2]),
            (Encoding::Utf16Be, b"\xfe\xff", u16::to_be_bytes),
        ] {
            let bytes = utf16(text, to_bytes);
            check(&bytes, text, conversion(encoding, 0, 0));
            check(&[&mark[..], &bytes].concat(), text, conversion(encoding, 0, 0));
            check(&utf16("a", to_bytes), "a", conversion(encoding, 0, 0));
        }
        check(b"", "", conversion(Encoding::Utf8, 0, 0));
        check(b"\xff\xfe", "", conversion(Encoding::Utf16Le, 0, 0));
        // A zero byte in text is no UTF-16.
        check(b"dog\0", "dog\0", conversion(Encoding::Utf8, 0, 0));
        check(b"a long line with one\0zero", "a long line with one\0zero", conversion(Encoding::Utf8, 0, 0));
    }

    #[test]
    fn lines_that_are_not_utf8_are_windows_1252_and_counted() {
        let bytes = b"caf\xe9 \x80 5\n\xc3\xa9glise\r\na\x81b\n";
        check(bytes, "café € 5\néglise\r\na\u{fffd}b\n", conversion(Encoding::Windows1252, 2, 1));
        let said = decode_text(bytes).conversion.to_string();
        assert_eq!(said, "2 bytes not UTF-8, read as Windows-1252, and 1 byte without a meaning there");
        check(b"\xef\xbb\xbfcaf\xe9", "café", conversion(Encoding::Windows1252, 1, 0));
    }

    #[test]
    fn half_a_character_of_utf16_is_counted() {
        check(b"\xff\xfea\0\0\xd8b\0", "a\u{fffd}b", conversion(Encoding::Utf16Le, 0, 1));
        check(b"\xff\xfea\0b", "a\u{fffd}", conversion(Encoding::Utf16Le, 0, 1));
    }

    #[test]
    fn a_line_of_another_encoding_after_megabytes_of_utf8_is_converted_alone() {
        let mut bytes = "Küche\n".repeat(300_000).into_bytes();
        bytes.extend(b"caf\xe9\n");
        bytes.extend("Küche\n".as_bytes());
        let decoded = decode_text(&bytes);
        assert_eq!(decoded.conversion, conversion(Encoding::Windows1252, 1, 0));
        assert!(decoded.text.ends_with("Küche\ncafé\nKüche\n"));
    }

    #[test]
    fn a_line_without_end_is_read_in_bounded_memory() {
        let mut reader = TextReader::new(io::repeat(0xe9).take(10 << 20));
        let mut buffer = [0; 1000];
        let mut bytes = 0;
        loop {
            let read = reader.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            bytes += read;
            assert!(reader.decoded.capacity() + reader.raw.capacity() < 8 * CHUNK_BYTES);
        }
        assert_eq!((bytes, reader.conversion().converted), (20 << 20, 10 << 20));
        // Characters that lie across chunks stay whole.
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"🐱".repeat(100_000);
            check(text.as_bytes(), &text, conversion(Encoding::Utf8, 0, 0));
            let units = utf16(&text, u16::to_le_bytes);
            check(&[b"\xff\xfe", &units[..]].concat(), &text, conversion(Encoding::Utf16Le, 0, 0));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_text(bytes in prop::collection::vec(any::<u8>(), 0..400), mark in prop::sample::select(vec![&b""[..], b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"])) {
            let DecodedText { text, conversion } = decode_text(&[mark, &bytes].concat());
            let lost = text.matches('\u{fffd}').count() as u64;
            prop_assert!(conversion.replaced <= lost);
            if matches!(conversion.encoding, Encoding::Utf8 | Encoding::Windows1252) {
                prop_assert_eq!(conversion.is_certain(), std::str::from_utf8(&bytes).is_ok());
                prop_assert!(!conversion.is_certain() || text.as_bytes() == bytes || bytes.starts_with(b"\xef\xbb\xbf"));
            }
        }

        #[test]
        fn text_comes_back_from_utf8_and_from_marked_utf16(text in "\\PC{0,60}") {
            prop_assume!(!text.starts_with('\u{feff}'));
            prop_assert_eq!(&decode_text(text.as_bytes()).text, &text);
            for (mark, to_bytes) in [(b"\xff\xfe", u16::to_le_bytes as fn(u16) -> [u8; 2]), (b"\xfe\xff", u16::to_be_bytes)] {
                let bytes = [&mark[..], &utf16(&text, to_bytes)].concat();
                prop_assert_eq!(&decode_text(&bytes).text, &text);
            }
        }
    }
}

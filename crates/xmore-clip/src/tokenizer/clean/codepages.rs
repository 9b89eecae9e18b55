//! The one-byte encodings that ftfy knows mojibake from.

use std::sync::LazyLock;

/// A one-byte encoding whose lower half is ASCII.
pub(super) struct Codepage {
    /// Its name in ftfy.
    pub(super) name: &'static str,
    /// Whether bytes without a character stand for the C1 controls, and byte 1A for U+FFFD.
    pub(super) sloppy: bool,
    /// Characters of bytes 80 to FF.
    chars: Vec<char>,
    /// The same with their bytes, by character.
    bytes: Vec<(char, u8)>,
}

struct Codepages {
    /// In the order in which ftfy tries them.
    tried: Vec<Codepage>,
    /// Windows-1252 with U+FFFD where a byte has no character.
    windows_1252: Codepage,
}

static CODEPAGES: LazyLock<Codepages> = LazyLock::new(|| {
    let mut all: Vec<_> = include_str!("../tables/codepages.txt").lines().map(Codepage::parse).collect();
    let windows_1252 = all.pop().expect("a table of ours");
    Codepages { tried: all, windows_1252 }
});

/// The encodings in the order in which ftfy tries them.
pub(super) fn tried() -> &'static [Codepage] {
    &CODEPAGES.tried
}

/// Windows-1252 as browsers decode it: bytes without a character are the C1 controls.
pub(super) fn windows_1252(byte: u8) -> char {
    windows_1252_strict(byte).unwrap_or(char::from(byte))
}

/// Windows-1252, `None` for the five bytes without a character.
pub(super) fn windows_1252_strict(byte: u8) -> Option<char> {
    let Some(upper) = byte.checked_sub(0x80) else { return Some(char::from(byte)) };
    let c = CODEPAGES.windows_1252.chars[usize::from(upper)];
    (c != '\u{FFFD}').then_some(c)
}

impl Codepage {
    fn parse(line: &'static str) -> Self {
        let mut fields = line.split(' ');
        let mut next = || fields.next().expect("a table of ours");
        let (name, sloppy) = (next(), next() == "sloppy");
        let code = |hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("a table of ours");
        let chars: Vec<char> = fields.map(code).collect();
        assert_eq!(chars.len(), 128, "{name}: a table of ours");
        let mut bytes: Vec<_> = chars.iter().copied().zip(0x80..=0xff).collect();
        bytes.sort_unstable();
        Self { name, sloppy, chars, bytes }
    }

    /// The bytes that decode to `text`, `None` if there are none.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.encode_char(c)).collect()
    }

    fn encode_char(&self, c: char) -> Option<u8> {
        match c {
            '\x1A' => (!self.sloppy).then_some(0x1A),
            '\u{FFFD}' => self.sloppy.then_some(0x1A),
            _ if c.is_ascii() => Some(c as u8),
            _ => self.bytes.binary_search_by_key(&c, |&(c, _)| c).ok().map(|at| self.bytes[at].1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        let encode = |name: &str, text| tried().iter().find(|page| page.name == name).unwrap().encode(text);
        assert_eq!(tried().len(), 10);
        assert_eq!(encode("latin-1", "é\u{85}\x1a"), Some(vec![0xE9, 0x85, 0x1A]));
        assert_eq!(encode("latin-1", "€"), None);
        assert_eq!(encode("sloppy-windows-1252", "€\u{81}\u{FFFD}"), Some(vec![0x80, 0x81, 0x1A]));
        assert_eq!(encode("sloppy-windows-1251", "Ж"), Some(vec![0xC6]));
        assert_eq!(encode("cp437", "█"), Some(vec![0xDB]));
        assert_eq!(windows_1252(0x80), '€');
        assert_eq!(windows_1252(0x81), '\u{81}');
        assert_eq!(windows_1252_strict(0x81), None);
    }
}

//! Headers of npy files: written for float16 matrices, parsed for any plain one.
//!
//! They are parsed here rather than with the `npyz` crate, which takes up to 4 GiB for a header, recurses on nested brackets and
//! multiplies shapes unchecked.

/// Every npy file begins so.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Bytes of the headers written here: a multiple of 64 that holds any shape, so that the row count can be
/// filled in when the rows have been written.
pub(super) const WRITTEN_HEADER_BYTES: usize = 128;

/// Longest header dictionary that is read, numpy's own limit.
pub(crate) const MAX_DICT_BYTES: usize = 10_000;

/// Header of a version 1 npy file, padded with spaces as numpy does.
pub(super) fn header(rows: u64, dim: usize) -> [u8; WRITTEN_HEADER_BYTES] {
    let dict = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = [b' '; WRITTEN_HEADER_BYTES];
    header[..6].copy_from_slice(MAGIC);
    header[6..8].copy_from_slice(&[1, 0]);
    header[8..10].copy_from_slice(&(WRITTEN_HEADER_BYTES as u16 - 10).to_le_bytes());
    header[10..10 + dict.len()].copy_from_slice(dict.as_bytes());
    header[WRITTEN_HEADER_BYTES - 1] = b'\n';
    header
}

/// What an npy header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Element type, such as `<f2`.
    pub descr: String,
    /// Whether columns rather than rows lie together.
    pub fortran_order: bool,
    /// Sizes of the dimensions.
    pub shape: Vec<u64>,
    /// Bytes before the data.
    pub bytes: usize,
}

/// Parses the header at the beginning of `bytes`, or says what is wrong with it.
pub(crate) fn parse_header(bytes: &[u8]) -> Result<Header, String> {
    let truncated = || format!("a file that ends in the header, after {} bytes", bytes.len());
    if !bytes.starts_with(MAGIC) {
        return Err("a file that does not begin as npy does".to_owned());
    }
    let version = bytes.get(6..8).ok_or_else(truncated)?;
    let (start, length) = match version {
        [1, 0] => {
            let b = bytes.get(8..10).ok_or_else(truncated)?;
            (10, usize::from(u16::from_le_bytes([b[0], b[1]])))
        }
        [2 | 3, 0] => {
            let b = bytes.get(8..12).ok_or_else(truncated)?;
            (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        }
        other => return Err(format!("npy version {}.{}", other[0], other[1])),
    };
    if length > MAX_DICT_BYTES {
        return Err(format!("a header of {length} bytes"));
    }
    let text = bytes.get(start..start + length).ok_or_else(truncated)?;
    let text = std::str::from_utf8(text).map_err(|_| "a header that is not UTF-8".to_owned())?;
    let mut header =
        Header { descr: String::new(), fortran_order: false, shape: vec![], bytes: start + length };
    parse_dict(text, &mut header).ok_or_else(|| format!("the header {:?}", text.trim_end()))?;
    Ok(header)
}

/// Parses `{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order, each exactly once.
fn parse_dict(text: &str, header: &mut Header) -> Option<()> {
    let mut cursor = Cursor(text);
    let (mut descr, mut order, mut shape) = (None, None, None);
    cursor.take("{")?;
    while cursor.take("}").is_none() {
        let key = cursor.string()?;
        cursor.take(":")?;
        let again = match key {
            "descr" => descr.replace(cursor.string()?).is_some(),
            "fortran_order" => order.replace(cursor.boolean()?).is_some(),
            "shape" => shape.replace(cursor.tuple()?).is_some(),
            _ => return None,
        };
        if again {
            return None;
        }
        if cursor.take(",").is_none() {
            cursor.take("}")?;
            break;
        }
    }
    header.descr = descr?.to_owned();
    header.fortran_order = order?;
    header.shape = shape?;
    cursor.0.trim().is_empty().then_some(())
}

/// The rest of a header text.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Takes a token after white space, if it is next.
    fn take(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    /// A quoted string without escapes: no header of a plain matrix has any.
    fn string(&mut self) -> Option<&'a str> {
        let quote = if self.take("'").is_some() { '\'' } else { self.take("\"").map(|()| '"')? };
        let (string, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        Some(string)
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.take("True") {
            Some(()) => Some(true),
            None => self.take("False").map(|()| false),
        }
    }

    /// A tuple of non-negative integers.
    fn tuple(&mut self) -> Option<Vec<u64>> {
        let mut values = Vec::new();
        self.take("(")?;
        while self.take(")").is_none() {
            self.0 = self.0.trim_start();
            let end = self.0.find(|c: char| !c.is_ascii_digit())?;
            values.push(self.0[..end].parse().ok()?);
            self.0 = &self.0[end..];
            if self.take(",").is_none() {
                self.take(")")?;
                break;
            }
        }
        Some(values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(dict: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16).to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes
    }

    #[test]
    fn our_header_is_aligned_version_1_and_holds_any_shape() {
        for (rows, dim) in [(0, 1), (65_536, 1_024), (u64::MAX, 65_536)] {
            let header = header(rows, dim);
            assert_eq!(header.len() % 64, 0);
            let parsed = parse_header(&header).unwrap();
            assert_eq!(parsed.shape, [rows, dim as u64]);
            assert_eq!((parsed.descr.as_str(), parsed.fortran_order, parsed.bytes), ("<f2", false, 128));
        }
    }

    #[test]
    fn headers_of_other_writers_are_read() {
        for dict in [
            "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }   \n",
            "{\"shape\":(3,4),\"fortran_order\":False,\"descr\":\"<f2\"}\n",
            " { 'fortran_order' : False , 'descr' : '<f2' , 'shape' : ( 3 , 4 , ) , } ",
        ] {
            assert_eq!(parse_header(&npy(dict)).unwrap().shape, [3, 4], "{dict}");
        }
        let mut version_2 = b"\x93NUMPY\x02\x00".to_vec();
        let dict = "{'descr': '<f4', 'fortran_order': True, 'shape': (), }";
        version_2.extend((dict.len() as u32).to_le_bytes());
        version_2.extend(dict.as_bytes());
        let header = parse_header(&version_2).unwrap();
        assert_eq!(
            header,
            Header { descr: "<f4".into(), fortran_order: true, shape: vec![], bytes: version_2.len() }
        );
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
        for dict in [
            "",
            "{}",
            "{'descr': '<f2', 'fortran_order': False}",
            "{'descr': '<f2', 'descr': '<f2', 'fortran_order': False, 'shape': (1, 1)}",
            "{'descr': [('a', '<f2')], 'fortran_order': False, 'shape': (1, 1)}",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 1)}",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999999999999, 1)}",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1)} trailing",
            "{'descr': '<f2', 'fortran_order': False, 'shape': ((((((((1, 1)}",
        ] {
            assert!(parse_header(&npy(dict)).is_err(), "{dict}");
        }
        let huge = [&b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..], &[b' '; 64]].concat();
        assert!(parse_header(&huge).unwrap_err().contains("4294967295"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_header_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_header(&bytes);
            let _ = parse_header(&npy(&String::from_utf8_lossy(&bytes)));
        }

        #[test]
        fn a_damaged_header_never_panics_nor_is_its_length_believed(
            cut in 0usize..=128, flips in prop::collection::vec((0usize..128, any::<u8>()), 0..4)
        ) {
            let mut bytes = header(1_234, 512);
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok(header) = parse_header(&bytes[..cut]) {
                prop_assert!(header.bytes <= cut);
            }
        }
    }
}

//! Walks over thrift's compact protocol, so that the parquet crate meets no footer or header that would keep it busy or nest too deeply.
//!
//! The crate skips fields that it does not know, and believes the number of their elements: a list of 2³¹ truth values has no bytes.

/// Nesting that is walked, as deep as the crate goes.
const MAX_DEPTH: u8 = 64;

/// Types of the protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
pub(super) const I32: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// Why a walk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end within a value.
    Ends,
    /// They are no thrift, or claim more than they hold.
    Malformed,
}

/// A place in a value.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// At the first byte.
    pub fn new(bytes: &'a [u8]) -> Walk<'a> {
        Walk { bytes, at: 0 }
    }

    /// Goes over a struct.
    #[cfg(test)]
    pub fn skip_struct(&mut self) -> Result<(), Fault> {
        self.skip(STRUCT, MAX_DEPTH)
    }

    /// The next field of a struct, its number and type; `None` at its end. `last` is the number of the one before.
    pub fn field(&mut self, last: i16) -> Result<Option<(i16, u8)>, Fault> {
        let head = self.byte()?;
        let (step, kind) = (head >> 4, head & 0x0f);
        if kind == 0 {
            return Ok(None);
        }
        let number = match step {
            0 => i16::try_from(self.signed()?).map_err(|_| Fault::Malformed)?,
            step => last.checked_add(step.into()).ok_or(Fault::Malformed)?,
        };
        Ok(Some((number, kind)))
    }

    /// The number and type of a list's elements.
    pub fn list(&mut self) -> Result<(usize, u8), Fault> {
        let head = self.byte()?;
        let (short, kind) = (usize::from(head >> 4), head & 0x0f);
        let count = if short == 15 { self.size()? } else { short };
        self.check(count, &[kind])?;
        Ok((count, kind))
    }

    /// A whole number with a sign.
    pub fn signed(&mut self) -> Result<i64, Fault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Goes over the rest of a value of this type.
    pub fn skip_field(&mut self, kind: u8) -> Result<(), Fault> {
        self.skip(kind, MAX_DEPTH)
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Malformed)?;
        match kind {
            TRUE | FALSE => Ok(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.size()?;
                self.bytes(length)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.skip(kind, depth))
            }
            11 => {
                let count = self.size()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                let (key, value) = (kinds >> 4, kinds & 0x0f);
                self.check(count, &[key, value])?;
                (0..count).try_for_each(|_| self.skip(key, depth).and_then(|()| self.skip(value, depth)))
            }
            STRUCT => {
                while let Some((_, kind)) = self.field(0)? {
                    self.skip(kind, depth)?;
                }
                Ok(())
            }
            13 => self.bytes(16),
            _ => Err(Fault::Malformed),
        }
    }

    /// Elements take a byte each; parquet has no lists of truth values here.
    fn check(&self, count: usize, kinds: &[u8]) -> Result<(), Fault> {
        if count > 0 && kinds.iter().any(|kind| matches!(*kind, 0 | TRUE | FALSE)) {
            return Err(Fault::Malformed);
        }
        if count > self.bytes.len() - self.at { Err(Fault::Ends) } else { Ok(()) }
    }

    fn size(&mut self) -> Result<usize, Fault> {
        i32::try_from(self.varint()?).map(|size| size as usize).map_err(|_| Fault::Malformed)
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.bytes.get(self.at).copied().ok_or(Fault::Ends)?;
        self.at += 1;
        Ok(byte)
    }

    fn bytes(&mut self, count: usize) -> Result<(), Fault> {
        self.at = self.at.checked_add(count).filter(|&end| end <= self.bytes.len()).ok_or(Fault::Ends)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_claims_more_than_there_is_is_refused() {
        let walk = |bytes: &[u8]| Walk::new(bytes).skip_struct();
        // Field 1 is a list of two whole numbers.
        assert_eq!(walk(&[0x19, 0x25, 2, 4, 0]), Ok(()));
        assert_eq!(walk(&[0x19, 0x25, 2]), Err(Fault::Ends));
        // 2³¹ - 1 truth values.
        assert_eq!(walk(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0]), Err(Fault::Malformed));
        assert_eq!(walk(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0x07, 0]), Err(Fault::Ends));
        let deep = [[0x19, 0x19].repeat(100), vec![0; 200]].concat();
        assert!(walk(&deep).is_err());
    }
}

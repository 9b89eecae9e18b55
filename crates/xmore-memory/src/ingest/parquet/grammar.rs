//! The types that fields of footers and page headers must have.
//!
//! The parquet crate reads a field that it knows by its number alone, whatever type is written there. With another type it would go on in
//! the middle of a value and could take any bytes for a list of 2³¹ truth values, which take none; so types are compared before.
//! Source: `parquet.thrift` of the format, and what version 60 of the crate reads of it.

use super::thrift::{Fault, LIST, STRUCT, Walk};

/// What a value must be.
pub(super) enum Shape {
    /// A truth value, which a field has in its type.
    Bool,
    /// One byte.
    Byte,
    /// A whole number of 16, 32 or 64 bits; all are written alike.
    Number,
    /// A number with a fraction.
    Double,
    /// Text or bytes.
    Binary,
    /// A list of such values.
    List(&'static Shape),
    /// Fields by their numbers; others are not read by the crate.
    Struct(&'static [(i16, Shape)]),
}

use Shape::{Binary, Bool, Byte, Double, List, Number, Struct};

const EMPTY: Shape = Struct(&[]);

const STATISTICS: Shape = Struct(&[
    (1, Binary),
    (2, Binary),
    (3, Number),
    (4, Number),
    (5, Binary),
    (6, Binary),
    (7, Bool),
    (8, Bool),
    (9, Number),
]);

/// Before each page.
pub(super) const PAGE_HEADER: Shape = Struct(&[
    (1, Number),
    (2, Number),
    (3, Number),
    (4, Number),
    (5, Struct(&[(1, Number), (2, Number), (3, Number), (4, Number), (5, STATISTICS)])),
    (6, EMPTY),
    (7, Struct(&[(1, Number), (2, Number), (3, Bool)])),
    (
        8,
        Struct(&[
            (1, Number),
            (2, Number),
            (3, Number),
            (4, Number),
            (5, Number),
            (6, Number),
            (7, Bool),
            (8, STATISTICS),
        ]),
    ),
]);

const TIME: Shape = Struct(&[(1, Bool), (2, Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);

const LOGICAL_TYPE: Shape = Struct(&[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Struct(&[(1, Number), (2, Number)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Struct(&[(1, Byte), (2, Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Struct(&[(1, Byte)])),
    (17, Struct(&[(1, Binary)])),
    (18, Struct(&[(1, Binary), (2, Number)])),
    (19, EMPTY),
]);

const SCHEMA_ELEMENT: Shape = Struct(&[
    (1, Number),
    (2, Number),
    (3, Number),
    (4, Binary),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, Number),
    (9, Number),
    (10, LOGICAL_TYPE),
]);

const KEY_VALUE: Shape = Struct(&[(1, Binary), (2, Binary)]);

const BOX: Shape = Struct(&[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
]);

const COLUMN_METADATA: Shape = Struct(&[
    (1, Number),
    (2, List(&Number)),
    (3, List(&Binary)),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, List(&KEY_VALUE)),
    (9, Number),
    (10, Number),
    (11, Number),
    (12, STATISTICS),
    (13, List(&Struct(&[(1, Number), (2, Number), (3, Number)]))),
    (14, Number),
    (15, Number),
    (16, Struct(&[(1, Number), (2, List(&Number)), (3, List(&Number))])),
    (17, Struct(&[(1, BOX), (2, List(&Number))])),
]);

const COLUMN_CHUNK: Shape = Struct(&[
    (1, Binary),
    (2, Number),
    (3, COLUMN_METADATA),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
]);

const ROW_GROUP: Shape = Struct(&[
    (1, List(&COLUMN_CHUNK)),
    (2, Number),
    (3, Number),
    (4, List(&Struct(&[(1, Number), (2, Bool), (3, Bool)]))),
    (5, Number),
    (6, Number),
    (7, Number),
]);

/// At the end of a file.
pub(super) const FOOTER: Shape = Struct(&[
    (1, Number),
    (2, List(&SCHEMA_ELEMENT)),
    (3, Number),
    (4, List(&ROW_GROUP)),
    (5, List(&KEY_VALUE)),
    (6, Binary),
    (7, List(&Struct(&[(1, EMPTY), (2, EMPTY)]))),
]);

impl Shape {
    /// Goes over a value of this shape.
    pub fn check(&self, walk: &mut Walk<'_>) -> Result<(), Fault> {
        match self {
            Bool => Ok(()),
            Byte => walk.skip_field(3),
            Number => walk.signed().map(drop),
            Double => walk.skip_field(7),
            Binary => walk.skip_field(8),
            List(element) => {
                let (count, kind) = walk.list()?;
                if count > 0 && !element.is_written_as(kind) {
                    return Err(Fault::Malformed);
                }
                (0..count).try_for_each(|_| element.check(walk))
            }
            Struct(fields) => {
                let mut last = 0;
                while let Some((number, kind)) = walk.field(last)? {
                    last = number;
                    match fields.iter().find(|(known, _)| *known == number) {
                        Some((_, shape)) if shape.is_written_as(kind) => shape.check(walk)?,
                        Some(_) => return Err(Fault::Malformed),
                        None => walk.skip_field(kind)?,
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether this type of the protocol holds such values.
    fn is_written_as(&self, kind: u8) -> bool {
        match self {
            Bool => matches!(kind, 1 | 2),
            Byte => kind == 3,
            Number => matches!(kind, 4..=6),
            Double => kind == 7,
            Binary => kind == 8,
            List(_) => kind == LIST,
            Struct(_) => kind == STRUCT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_fields_have_their_types() {
        let check = |bytes: &[u8]| PAGE_HEADER.check(&mut Walk::new(bytes));
        // Type, sizes, a dictionary's header with its sorting.
        let good = [0x15, 4, 0x15, 20, 0x15, 20, 0x4c, 0x15, 6, 0x15, 0, 0x11, 0, 0];
        assert_eq!(check(&good), Ok(()));
        // The same with an unknown field before the end.
        assert_eq!(check(&[&good[..13], &[0x58, 2, b'a', b'b', 0]].concat()), Ok(()));
        for (at, kind) in [(0, 0x18), (2, 0x19), (6, 0x45), (7, 0x1c), (11, 0x15)] {
            let mut other = good;
            other[at] = kind;
            assert!(check(&other).is_err(), "{at}");
        }
        for length in 0..good.len() {
            assert_eq!(check(&good[..length]), Err(Fault::Ends), "{length}");
        }
    }
}

//! A parquet file's footer, looked over before the parquet crate reads it: its length, its lists, the depth of its schema.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::grammar::FOOTER;
use super::thrift::{Fault, I32, LIST, Walk};

/// Longest footer that is read. Files of thousands of row groups and columns have a few megabytes.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Deepest schema: the crate goes down it by recursion.
const MAX_SCHEMA_DEPTH: usize = 64;
/// The footer's length and `PAR1`.
const TAIL_BYTES: u64 = 8;
/// Numbers of the fields in the format's definition.
const SCHEMA: i16 = 2;
const NUM_CHILDREN: i16 = 5;

/// The footer of an open file of this length, or what is wrong with it.
pub(super) fn read_footer(file: &File, length: u64) -> Result<Vec<u8>, String> {
    let read = |from: u64, count: u64| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut file = file;
        file.seek(SeekFrom::Start(from)).map_err(|e| e.to_string())?;
        file.take(count).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    };
    let tail_start = length.checked_sub(TAIL_BYTES).ok_or_else(|| format!("a file of {length} bytes"))?;
    let tail = read(tail_start, TAIL_BYTES)?;
    let count = match tail.split_first_chunk::<4>() {
        Some((count, b"PAR1")) => count,
        Some((_, b"PARE")) => return Err("one that is encrypted".to_owned()),
        _ => return Err("no mark of one at its end: it is cut off, or no parquet".to_owned()),
    };
    let count = u64::from(u32::from_le_bytes(*count));
    if count > MAX_FOOTER_BYTES {
        return Err(format!("one of {count} bytes, more than {MAX_FOOTER_BYTES}"));
    }
    let start = tail_start.checked_sub(count).ok_or_else(|| format!("one of {count} bytes in {length}"))?;
    let footer = read(start, count)?;
    let checked = FOOTER.check(&mut Walk::new(&footer)).and_then(|()| schema_depth(&footer));
    let depth = checked.map_err(|fault| match fault {
        Fault::Ends => "one that claims to hold more than it does".to_owned(),
        Fault::Malformed => "one that is malformed".to_owned(),
    })?;
    if depth > MAX_SCHEMA_DEPTH {
        return Err(format!("a schema more than {MAX_SCHEMA_DEPTH} deep"));
    }
    Ok(footer)
}

/// The depth of the schema, with which a walk over deeper ones ends.
fn schema_depth(footer: &[u8]) -> Result<usize, Fault> {
    let mut walk = Walk::new(footer);
    let (mut last, mut deepest) = (0, 0);
    while let Some((number, kind)) = walk.field(last)? {
        last = number;
        if (number, kind) != (SCHEMA, LIST) {
            walk.skip_field(kind)?;
            continue;
        }
        // For each open group the children that are still to come.
        let mut open: Vec<u64> = Vec::new();
        let (count, _) = walk.list()?;
        for _ in 0..count {
            let children = element_children(&mut walk)?;
            deepest = deepest.max(open.len() + 1);
            if deepest > MAX_SCHEMA_DEPTH {
                return Ok(deepest);
            }
            if children > 0 {
                open.push(children);
                continue;
            }
            while let Some(left) = open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                open.pop();
            }
        }
    }
    Ok(deepest)
}

/// Goes over an element of the schema; gives the number of its children.
fn element_children(walk: &mut Walk<'_>) -> Result<u64, Fault> {
    let (mut last, mut children) = (0, 0);
    while let Some((number, kind)) = walk.field(last)? {
        last = number;
        if (number, kind) == (NUM_CHILDREN, I32) {
            children = u64::try_from(walk.signed()?).map_err(|_| Fault::Malformed)?;
        } else {
            walk.skip_field(kind)?;
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schema of groups within groups, as thrift.
    fn nested(depth: usize) -> Vec<u8> {
        // A name of one letter, one child.
        let element = [0x48, 1, b'a', 0x15, 2, 0];
        let count = [0x80 | (depth & 0x7f) as u8, (depth >> 7) as u8];
        [&[0x15, 2, 0x19, 0xfc][..], &count, &element.repeat(depth), &[0]].concat()
    }

    #[test]
    fn the_depth_of_a_schema_is_seen() {
        assert_eq!(schema_depth(&nested(3)), Ok(3));
        assert_eq!(schema_depth(&nested(10_000)), Ok(MAX_SCHEMA_DEPTH + 1));
        assert_eq!(schema_depth(&nested(3)[..12]), Err(Fault::Ends));
    }

    #[test]
    fn a_deep_schema_is_refused_before_the_crate_reads_it() {
        let footer = nested(10_000);
        let length = (footer.len() as u32).to_le_bytes();
        let file = [&b"PAR1"[..], &footer, &length, b"PAR1"].concat();
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &file).unwrap();
        let said = read_footer(&File::open(path.path()).unwrap(), file.len() as u64).unwrap_err();
        assert!(said.contains("more than 64 deep"), "{said}");
    }
}

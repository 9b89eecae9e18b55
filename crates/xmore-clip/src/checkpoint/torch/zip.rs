//! The directory of a zip file: which member lies where.
//!
//! Only that: members are read where they lie in the map. It is stricter than general readers, which guess when a file
//! contradicts itself, and it bounds the directory before it allocates; the `zip` crate sizes its table by what the file claims.
//! Source: PKWARE's APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14–16 (its end), 4.5.3 (zip64).

use std::collections::BTreeMap;
use std::ops::Range;

/// Members of an archive; a training checkpoint of the largest CLIP has some five thousand.
const MAX_MEMBERS: u64 = 1 << 17;

/// Least bytes of a directory entry, of the end record, of the zip64 end record and of its locator.
const ENTRY: usize = 46;
const END: usize = 22;
const END64: usize = 56;
const LOCATOR: usize = 20;

/// A member of the archive.
pub(super) struct Member {
    /// Where its bytes lie.
    pub(super) data: Range<usize>,
    pub(super) compressed: bool,
    pub(super) encrypted: bool,
}

/// All members by name.
pub(super) fn members(bytes: &[u8]) -> Result<BTreeMap<&str, Member>, String> {
    let (directory, count) = directory(bytes)?;
    let mut members = BTreeMap::new();
    let mut spans = Vec::new();
    let mut pos = directory.start;
    for n in 0..count {
        let entry = Entry::read(bytes, pos, directory.end)
            .ok_or_else(|| format!("entry {n} of its zip directory is damaged"))?;
        pos = entry.end;
        let name = std::str::from_utf8(entry.name)
            .map_err(|_| format!("entry {n} of its zip directory has a name that is not UTF-8"))?;
        let short: String = name.chars().take(80).collect();
        let (span, member) = entry.locate(bytes, directory.start).ok_or_else(|| {
            format!(
                "member {short:?} is not where its zip directory says, or has another name or length there"
            )
        })?;
        spans.push(span);
        if members.insert(name, member).is_some() {
            return Err(format!("two members are named {short:?}"));
        }
    }
    if pos != directory.end {
        return Err(format!("its zip directory ends at byte {pos}, expected {}", directory.end));
    }
    spans.sort_unstable_by_key(|span| span.start);
    if let Some(pair) = spans.windows(2).find(|pair| pair[0].end > pair[1].start) {
        return Err(format!("members overlap at byte {}", pair[1].start));
    }
    Ok(members)
}

/// Where the directory lies, and its number of entries.
fn directory(bytes: &[u8]) -> Result<(Range<usize>, u64), String> {
    let truncated = "its zip directory is missing: the file is truncated; download it again";
    // The end record is last, but for a comment of at most 64 kB.
    let last = bytes.len().checked_sub(END).ok_or(truncated)?;
    let first = last.saturating_sub(0xffff);
    let end = (first..=last).rev().find(|&at| {
        bytes[at..].starts_with(b"PK\x05\x06") && u16_at(bytes, at + 20) == Some((last - at) as u16)
    });
    let end = end.ok_or(truncated)?;
    let damaged = || format!("the end record of its zip directory, at byte {end}, contradicts itself");
    let field = |at: usize, wide: bool| match wide {
        false => u16_at(bytes, end + at).map(u64::from),
        true => u32_at(bytes, end + at).map(u64::from),
    };
    let narrow = [field(10, false), field(12, true), field(16, true)];
    let [Some(count), Some(size), Some(start)] = narrow else { return Err(damaged()) };
    let disks = (u16_at(bytes, end + 4), u16_at(bytes, end + 6), field(8, false));
    let locator = end.checked_sub(LOCATOR).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07"));
    let (count, size, start, stop) = match locator {
        None => {
            if disks != (Some(0), Some(0), Some(count)) {
                return Err(damaged());
            }
            (count, size, start, end)
        }
        Some(locator) => {
            let at = u64_at(bytes, locator + 8).and_then(|at| usize::try_from(at).ok());
            let at = at.filter(|&at| at.checked_add(END64).is_some_and(|stop| stop <= locator));
            let at = at.filter(|&at| bytes[at..].starts_with(b"PK\x06\x06")).ok_or_else(damaged)?;
            let wide = [24, 32, 40, 48].map(|field| u64_at(bytes, at + field));
            let [Some(on_disk), Some(count64), Some(size64), Some(start64)] = wide else {
                return Err(damaged());
            };
            // The old fields either agree or are full.
            let agrees = |old: u64, new: u64, full: u64| old == new || old == full;
            let agree = on_disk == count64
                && agrees(count, count64, 0xffff)
                && agrees(size, size64, 0xffff_ffff)
                && agrees(start, start64, 0xffff_ffff);
            if !agree {
                return Err(damaged());
            }
            (count64, size64, start64, at)
        }
    };
    if count > MAX_MEMBERS {
        return Err(format!("its zip directory claims {count} members, expected at most {MAX_MEMBERS}"));
    }
    let range = start.checked_add(size).filter(|&e| e <= stop as u64 && size >= count * ENTRY as u64);
    let range = range.map(|e| start as usize..e as usize).ok_or_else(damaged)?;
    Ok((range, count))
}

/// An entry of the directory.
struct Entry<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    compressed_size: u64,
    size: u64,
    header: u64,
    /// Where the next entry starts.
    end: usize,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8], at: usize, limit: usize) -> Option<Self> {
        let bytes = &bytes[..limit];
        if !bytes.get(at..)?.starts_with(b"PK\x01\x02") {
            return None;
        }
        let length = |field: usize| u16_at(bytes, at + field).map(usize::from);
        let name_end = at + ENTRY + length(28)?;
        let extra_end = name_end + length(30)?;
        let end = extra_end + length(32)?;
        if end > limit {
            return None;
        }
        let mut wide =
            [u32_at(bytes, at + 24)?, u32_at(bytes, at + 20)?, u32_at(bytes, at + 42)?].map(u64::from);
        widen(&mut wide, &bytes[name_end..extra_end])?;
        let [size, compressed_size, header] = wide;
        Some(Self {
            name: &bytes[at + ENTRY..name_end],
            flags: u16_at(bytes, at + 8)?,
            method: u16_at(bytes, at + 10)?,
            compressed_size,
            size,
            header,
            end,
        })
    }

    /// The bytes of header and data together, and the member; its local header must say the same name.
    fn locate(&self, bytes: &[u8], directory: usize) -> Option<(Range<usize>, Member)> {
        let bytes = &bytes[..directory];
        let header = usize::try_from(self.header).ok()?;
        if !bytes.get(header..)?.starts_with(b"PK\x03\x04") {
            return None;
        }
        let length = |field: usize| u16_at(bytes, header + field).map(usize::from);
        let name = header + 30;
        let name_end = name + length(26)?;
        let start = name_end + length(28)?;
        if bytes.get(name..name_end)? != self.name {
            return None;
        }
        let end = start.checked_add(usize::try_from(self.compressed_size).ok()?)?;
        let (compressed, encrypted) = (self.method != 0, self.flags & 1 != 0);
        let plain = !compressed && !encrypted;
        if end > bytes.len() || (plain && self.compressed_size != self.size) {
            return None;
        }
        Some((header..end, Member { data: start..end, compressed, encrypted }))
    }
}

/// Replaces the full ones of `[size, compressed size, header]` by the 64-bit values of the zip64 extra field, where those
/// stand in this order.
fn widen(fields: &mut [u64; 3], extra: &[u8]) -> Option<()> {
    if fields.iter().all(|&field| field != 0xffff_ffff) {
        return Some(());
    }
    let mut pos = 0;
    while u16_at(extra, pos)? != 1 {
        pos += 4 + usize::from(u16_at(extra, pos + 2)?);
    }
    let end = pos + 4 + usize::from(u16_at(extra, pos + 2)?);
    let values = extra.get(pos + 4..end)?;
    let mut values = values.as_chunks::<8>().0.iter().map(|&b| u64::from_le_bytes(b));
    for field in fields.iter_mut().filter(|field| **field == 0xffff_ffff) {
        *field = values.next()?;
    }
    Some(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

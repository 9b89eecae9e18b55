//! Members of a tar: walked by their headers, with seeks over what is not read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use tar::Archive;
use xmore_files::open_regular;

use super::image_ref::Span;
use crate::error::{AtPath, Result};

/// Most bytes that describe one member: long names and PAX records, which are held in memory.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// One regular file in a tar.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its name, which may be any bytes.
    pub name: &'a [u8],
    /// Where its data are; all of them are there.
    pub span: Span,
    /// Whether it is a link or has holes, so that its data are not simply in its span.
    pub indirect: bool,
}

/// Calls `visit` with each file of the tar and a reader of its data.
///
/// Gives `None` if the tar is whole, else what is wrong from some point on; what came before was visited.
///
/// # Errors
/// [`crate::MemoryError::Io`] if the file cannot be opened or `visit` says so.
pub fn walk(
    path: &Path,
    visit: &mut dyn FnMut(Member<'_>, &mut dyn Read) -> io::Result<()>,
) -> Result<Option<String>> {
    let file = open_regular(path).at("open", path)?;
    let length = file.metadata().at("open", path)?.len();
    let budget = Rc::new(Cell::new(0));
    let at_end = Rc::new(Cell::new(false));
    let input = Budgeted {
        inner: BufReader::new(file),
        position: 0,
        budget: Rc::clone(&budget),
        at_end: Rc::clone(&at_end),
    };
    let mut archive = Archive::new(input);
    let mut entries = archive.entries_with_seek().at("read", path)?;
    let mut last = None::<String>;
    loop {
        budget.set(MAX_DESCRIPTION_BYTES);
        let after = || last.as_ref().map_or("at its beginning".to_owned(), |name| format!("after {name:?}"));
        let mut entry = match entries.next() {
            None if at_end.get() => {
                return Ok(Some(format!("it ends {} without an end mark, so it may be cut off", after())));
            }
            None => return Ok(None),
            Some(Err(error)) => return Ok(Some(format!("damaged {}: {error}", after()))),
            Some(Ok(entry)) => entry,
        };
        let span = Span { offset: entry.raw_file_position(), len: entry.size() };
        let bytes = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        let indirect = kind.is_hard_link() || kind.is_symlink() || kind.is_gnu_sparse();
        if !indirect && span.offset.checked_add(span.len).is_none_or(|end| end > length) {
            let name = String::from_utf8_lossy(&bytes);
            return Ok(Some(format!("it ends within {name:?} ({} bytes of data)", span.len)));
        }
        if indirect || kind.is_file() || kind.is_contiguous() {
            // Data are bounded by their span.
            budget.set(u64::MAX);
            let member = Member { name: &bytes, span, indirect };
            visit(member, &mut entry).at("read", path)?;
        }
        last = Some(String::from_utf8_lossy(&bytes).into_owned());
    }
}

/// Whether these first bytes of a file are a tar's: a header whose checksum is right, or the zeros of an empty one.
pub(super) fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<512>() else { return false };
    if block.iter().all(|&b| b == 0) {
        return true;
    }
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    let field: u32 = block[148..156].iter().map(|&b| u32::from(b)).sum();
    tar::Header::from_byte_slice(block).cksum().is_ok_and(|checksum| checksum == sum - field + 8 * 32)
}

/// A reader that gives up after a number of bytes, skips ahead within its buffer, and tells when the file has ended.
struct Budgeted {
    inner: BufReader<File>,
    position: u64,
    budget: Rc<Cell<u64>>,
    at_end: Rc<Cell<bool>>,
}

impl Read for Budgeted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let allowed = self.budget.get().min(out.len() as u64) as usize;
        if allowed == 0 && !out.is_empty() {
            let message = format!("a member is described by more than {MAX_DESCRIPTION_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let read = self.inner.read(&mut out[..allowed])?;
        self.at_end.set(read == 0 && allowed > 0);
        self.budget.set(self.budget.get() - read as u64);
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Budgeted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(by) => {
                self.inner.seek_relative(by)?;
                self.position = self.position.saturating_add_signed(by);
            }
            to => self.position = self.inner.seek(to)?,
        }
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tar of these members, as the `tar` crate writes it.
    fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Names and data of a tar's members, and what is wrong with it.
    fn walked(bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, Option<String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut members = Vec::new();
        let damage = walk(file.path(), &mut |member, input| {
            let mut data = Vec::new();
            if !member.indirect {
                input.read_to_end(&mut data)?;
                let span = member.span.offset as usize..(member.span.offset + member.span.len) as usize;
                assert_eq!(bytes[span], data);
            }
            members.push((String::from_utf8_lossy(member.name).into_owned(), data));
            Ok(())
        });
        (members, damage.unwrap())
    }

    #[test]
    fn members_are_found_whatever_the_length_of_their_names() {
        let long = format!("{}/b.jpg", "a".repeat(300));
        let (members, damage) = walked(&tar_of(&[("x.jpg", b"one"), (&long, &[7; 1300]), ("y.txt", b"")]));
        let names: Vec<_> = members.iter().map(|(name, data)| (name.as_str(), data.len())).collect();
        assert_eq!(names, [("x.jpg", 3), (long.as_str(), 1300), ("y.txt", 0)]);
        assert_eq!(damage, None);
    }

    #[test]
    fn what_comes_before_a_cut_is_kept() {
        let whole = tar_of(&[("a.txt", b"first"), ("b.txt", &[1; 600]), ("c.txt", b"third")]);
        for (length, kept, message) in [
            (512 * 2 + 512 + 100, 1, "ends within \"b.txt\""),
            (512 * 2 + 512 + 1024, 2, "without an end mark"),
            (512 * 2 + 100, 1, "damaged after \"a.txt\""),
            (100, 0, "damaged at its beginning"),
        ] {
            let (members, damage) = walked(&whole[..length]);
            let damage = damage.unwrap();
            assert!(members.len() == kept && damage.contains(message), "{length}: {members:?} {damage}");
        }
    }

    #[test]
    fn a_size_that_lies_takes_no_memory() {
        // A long name, and PAX records, of 4 GiB that are not there but for 3 MiB.
        for kind in [b'L', b'x'] {
            let mut header = tar::Header::new_gnu();
            header.set_path("long").unwrap();
            header.set_size(4 << 30);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_cksum();
            let bytes = [&header.as_bytes()[..], &[b'a'; 3 << 20]].concat();
            let (members, damage) = walked(&[tar_of(&[("a.txt", b"x")])[..1024].to_vec(), bytes].concat());
            assert_eq!(members.len(), 1);
            assert!(damage.unwrap().contains("described by more than"));
        }
    }

    #[test]
    fn a_tar_is_known_by_its_first_header() {
        assert!(is_tar(&tar_of(&[("a", b"")])));
        assert!(is_tar(&tar_of(&[])));
        assert!(!is_tar(&[0; 100]) && !is_tar(b"PAR1") && !is_tar(&[b'a'; 1024]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn damage_never_panics_and_leaves_what_came_before(
            cut in prop::option::of(0usize..6000),
            flips in prop::collection::vec((0usize..6000, any::<u8>()), 0..6)
        ) {
            let names: Vec<String> = (0..5).map(|i| format!("{i:03}.txt")).collect();
            let members: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), n.as_bytes())).collect();
            let mut bytes = tar_of(&members);
            let first = flips.iter().map(|&(at, _)| at).chain(cut).min().unwrap_or(bytes.len());
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut.unwrap_or(usize::MAX));
            let (found, _) = walked(&bytes);
            let whole = (first / 1024).min(5);
            prop_assert!(found.len() >= whole);
            for (i, (name, data)) in found[..whole].iter().enumerate() {
                prop_assert_eq!((name, &data[..]), (&names[i], names[i].as_bytes()));
            }
        }
    }
}

//! Pages of a column of strings, unpacked and checked within bounds before the parquet crate decodes them, whatever they claim.
//!
//! The crate believes what pages say of themselves: how many values a dictionary has, how many lengths follow, and how far gzip goes on.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};

use super::grammar::PAGE_HEADER;
use super::thrift::{Fault, Walk};
use super::unpack::{check, unpack};

/// Most bytes that a page unpacks to, and that are unpacked for one read.
pub(super) const MAX_PAGE_BYTES: usize = 256 << 20;
/// A page may be larger where it is stored as large: images do not shrink.
const MAX_GROWTH: usize = 4;
/// Most bytes of a page as it is stored. The format allows for 2 GiB.
const MAX_STORED_BYTES: usize = 1 << 30;
/// Most bytes of a page's header, which may hold its least and greatest value, and those that are read first.
const MAX_HEADER_BYTES: u64 = 16 << 20;
const USUAL_HEADER_BYTES: u64 = 512;
/// Most values of a dictionary: writers stop at a few megabytes.
const MAX_DICTIONARY_VALUES: usize = 4 << 20;
/// Most values of a page whose lengths are decoded ahead, and of the lists of one read.
const MAX_PAGE_VALUES: usize = 16 << 20;
const MAX_LIST_VALUES: usize = 4 << 20;
/// Most bytes of a page of strings that share prefixes, of which each may be as long as the page.
const MAX_PREFIXED_BYTES: usize = 4 << 20;

/// A file that several columns read from.
pub(super) struct Stored {
    file: Mutex<File>,
    length: u64,
}

impl Stored {
    /// Takes an open file.
    pub fn new(file: File) -> io::Result<Stored> {
        let length = file.metadata()?.len();
        Ok(Stored { file: Mutex::new(file), length })
    }

    /// Reads at a place, whatever other threads read meanwhile.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read(out)
    }
}

impl Length for Stored {
    fn len(&self) -> u64 {
        self.length
    }
}

/// A place in a file.
pub(super) struct At {
    file: Arc<Stored>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, out)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// A page's header and what follows, looked over when it is first read.
pub(super) struct Header {
    at: At,
    bytes: Option<Cursor<Vec<u8>>>,
}

impl Header {
    fn load(&mut self) -> io::Result<Cursor<Vec<u8>>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len() as u64;
            let more = (before * 15).clamp(USUAL_HEADER_BYTES, MAX_HEADER_BYTES - before);
            let read = (&mut self.at).take(more).read_to_end(&mut bytes)? as u64;
            let fault = match PAGE_HEADER.check(&mut Walk::new(&bytes)) {
                Ok(()) => return Ok(Cursor::new(bytes)),
                Err(fault) => fault,
            };
            if fault == Fault::Malformed || read < more || bytes.len() as u64 == MAX_HEADER_BYTES {
                let what = if fault == Fault::Malformed { "malformed" } else { "cut off" };
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a page's header is {what}")));
            }
        }
    }
}

impl Read for Header {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = match &mut self.bytes {
            Some(bytes) => bytes,
            None => {
                let loaded = self.load()?;
                self.bytes.insert(loaded)
            }
        };
        bytes.read(out)
    }
}

/// The file, as the parquet crate's reader of pages asks for it.
pub(super) struct Shared(Arc<Stored>);

impl Length for Shared {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for Shared {
    type T = Header;

    /// The crate asks in this way for pages' headers alone, and not always reads what it asked for.
    fn get_read(&self, start: u64) -> Result<Header> {
        Ok(Header { at: At { file: Arc::clone(&self.0), offset: start }, bytes: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.0.length);
        if end.is_none() || length > MAX_STORED_BYTES {
            let message = format!("{length} bytes from {start} on, in a file of {} bytes", self.0.length);
            return Err(ParquetError::EOF(message));
        }
        let mut bytes = Vec::with_capacity(length);
        At { file: Arc::clone(&self.0), offset: start }.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on, found {}", bytes.len())));
        }
        Ok(bytes.into())
    }
}

/// What one read may take: bytes unpacked, and values of lists.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Used {
    bytes: AtomicUsize,
    values: AtomicUsize,
    /// The dictionary and the page that are held.
    held: [AtomicUsize; 2],
}

impl Used {
    /// Begins another read.
    pub fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.values.store(0, Ordering::Relaxed);
    }

    /// Bytes of the dictionary and the page that are held.
    pub fn held(&self) -> usize {
        self.held.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

/// The pages of a chunk of a column.
pub(super) struct Pages {
    /// Gives pages as they are stored.
    raw: SerializedPageReader<Shared>,
    codec: Compression,
    /// Greatest levels of repetition and definition.
    levels: (i16, i16),
    used: Arc<Used>,
    /// Whether the chunk's dictionary was given out, or waits to be.
    has_dictionary: bool,
    /// A dictionary that was passed over, for the page that needs it.
    waiting: Option<Page>,
}

impl Pages {
    /// Pages of the chunk that this describes.
    pub fn new(
        file: &Arc<Stored>,
        chunk: &ColumnChunkMetaData,
        rows: usize,
        used: Arc<Used>,
    ) -> Result<Pages> {
        let codec = chunk.compression();
        let column = chunk.column_descr();
        let levels = (column.max_rep_level(), column.max_def_level());
        let raw = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let raw = SerializedPageReader::new(Arc::new(Shared(Arc::clone(file))), &raw, rows, None)?;
        Ok(Pages { raw, codec, levels, used, has_dictionary: false, waiting: None })
    }

    fn unpacked(&mut self, mut page: Page) -> Result<Page> {
        let (buffer, levels_length, compressed) = match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => (buf, 0, true),
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, .. } => {
                let length = (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize);
                (buf, length, *is_compressed)
            }
        };
        if levels_length > buffer.len() {
            return Err(ParquetError::EOF("levels that are longer than their page".to_owned()));
        }
        if compressed && self.codec != Compression::UNCOMPRESSED {
            let limit = MAX_PAGE_BYTES.max(buffer.len().saturating_mul(MAX_GROWTH));
            let mut unpacked = buffer[..levels_length].to_vec();
            // A page of nulls has nothing to unpack.
            if buffer.len() > levels_length {
                unpack(self.codec, &buffer[levels_length..], &mut unpacked, limit)?;
            }
            unpacked.shrink_to_fit();
            *buffer = unpacked.into();
        }
        let length = buffer.len();
        self.used.held[usize::from(page.is_data_page())].store(length, Ordering::Relaxed);
        let used = self.used.bytes.fetch_add(length, Ordering::Relaxed);
        if used > 0 {
            check(used + length, MAX_PAGE_BYTES.max(length))?;
        }
        self.check_values(&page)?;
        let by_dictionary = [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY].contains(&page.encoding());
        if page.is_dictionary_page() {
            self.has_dictionary = true;
        } else if by_dictionary && !self.has_dictionary {
            // The crate takes it for granted that there is one.
            let missing = || ParquetError::General("values of a dictionary that is not there".to_owned());
            let dictionary = self.raw.take_deferred_dictionary()?.ok_or_else(missing)?;
            self.waiting = Some(self.unpacked(dictionary)?);
        }
        Ok(page)
    }

    /// Refuses counts that the page cannot hold, or that would take more memory than any writer's.
    fn check_values(&self, page: &Page) -> Result<()> {
        let count = page.num_values() as usize;
        let too_many = |what: &str, limit: usize| {
            Err(ParquetError::General(format!("{count} values in {what}, at most {limit} are read")))
        };
        if page.is_dictionary_page() {
            // Each value has a length of four bytes.
            let limit = MAX_DICTIONARY_VALUES.min(page.buffer().len() / 4);
            return if count > limit { too_many("a dictionary", limit) } else { Ok(()) };
        }
        if let Page::DataPage { def_level_encoding, rep_level_encoding, .. } = page {
            let levels = [(self.levels.0, *rep_level_encoding), (self.levels.1, *def_level_encoding)];
            #[expect(deprecated, reason = "old files have it")]
            let known = [Encoding::RLE, Encoding::BIT_PACKED];
            if levels.iter().any(|(greatest, encoding)| *greatest > 0 && !known.contains(encoding)) {
                return Err(ParquetError::General("levels in an encoding that is none of theirs".to_owned()));
            }
        }
        if self.levels.0 > 0 && self.used.values.fetch_add(count, Ordering::Relaxed) + count > MAX_LIST_VALUES
        {
            return too_many("lists", MAX_LIST_VALUES);
        }
        let prefixed = match page.encoding() {
            Encoding::DELTA_BYTE_ARRAY => true,
            Encoding::DELTA_LENGTH_BYTE_ARRAY => false,
            _ => return Ok(()),
        };
        if count > MAX_PAGE_VALUES {
            return too_many("a page of lengths", MAX_PAGE_VALUES);
        }
        if prefixed && page.buffer().len() > MAX_PREFIXED_BYTES {
            let message = format!("a page of shared prefixes is longer than {MAX_PREFIXED_BYTES} bytes");
            return Err(ParquetError::General(message));
        }
        let malformed = || ParquetError::General("lengths that do not fit their page".to_owned());
        let mut data = self.values_of(page).ok_or_else(malformed)?;
        for _ in 0..1 + usize::from(prefixed) {
            let (_, end) =
                delta_lengths(data).filter(|(lengths, _)| *lengths <= count).ok_or_else(malformed)?;
            data = &data[end..];
        }
        Ok(())
    }

    /// A data page's values, behind its levels.
    fn values_of<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        let mut data = page.buffer().as_ref();
        match page {
            Page::DataPage { def_level_encoding, rep_level_encoding, .. } => {
                let levels = [(self.levels.0, rep_level_encoding), (self.levels.1, def_level_encoding)];
                for (_, encoding) in levels.into_iter().filter(|(greatest, _)| *greatest > 0) {
                    let (length, rest) =
                        data.split_first_chunk::<4>().filter(|_| *encoding == Encoding::RLE)?;
                    data = rest.get(u32::from_le_bytes(*length) as usize..)?;
                }
                Some(data)
            }
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                data.get(*def_levels_byte_len as usize + *rep_levels_byte_len as usize..)
            }
            Page::DictionaryPage { .. } => None,
        }
    }
}

/// The number of values that a stream of packed differences claims to have, and where it ends.
fn delta_lengths(data: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    let number = |at: &mut usize| -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *data.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    let block = usize::try_from(number(&mut at)?).ok()?;
    let blocks = usize::try_from(number(&mut at)?).ok()?;
    let count = usize::try_from(number(&mut at)?).ok()?;
    number(&mut at)?;
    let each = block.checked_div(blocks)?;
    if each == 0 || count > MAX_PAGE_VALUES {
        return None;
    }
    // The first value is in the header.
    let mut left = count.saturating_sub(1);
    while left > 0 {
        number(&mut at)?;
        let widths = data.get(at..at.checked_add(blocks)?)?;
        at += blocks;
        for &width in widths {
            if left == 0 {
                break;
            }
            at = at.checked_add(each.checked_mul(usize::from(width))? / 8)?;
            left = left.saturating_sub(each);
        }
    }
    (at <= data.len()).then_some((count, at))
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.raw.get_next_page()?;
        page.map(|page| self.unpacked(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.raw.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.raw.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.raw.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        if self.waiting.is_some() {
            return Ok(self.waiting.take());
        }
        let page = self.raw.take_deferred_dictionary()?;
        page.map(|page| self.unpacked(page)).transpose()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.raw.at_record_boundary()
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

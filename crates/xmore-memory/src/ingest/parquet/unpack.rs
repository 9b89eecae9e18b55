//! Compressed pages, unpacked up to a limit: the parquet crate's gzip and brotli read on to the end whatever a page claims to hold.

use std::io::Read;

use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};

/// Shortest output that is allowed for LZ4, whose blocks do not say how long they are; no block grows by more than this factor.
const LZ4_GROWTH: usize = 255;

/// Why a codec is not read, `None` if it is.
pub(super) fn unread(codec: Compression) -> Option<&'static str> {
    matches!(codec, Compression::LZO).then_some("LZO")
}

/// Appends the unpacked bytes to `out`, at most `limit` of them.
pub(super) fn unpack(codec: Compression, packed: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<()> {
    let start = out.len();
    match codec {
        Compression::UNCOMPRESSED => {
            check(packed.len(), limit)?;
            out.extend_from_slice(packed);
        }
        Compression::SNAPPY => {
            let length = snap::raw::decompress_len(packed)?;
            check(length, limit)?;
            out.resize(start + length, 0);
            snap::raw::Decoder::new().decompress(packed, &mut out[start..])?;
        }
        Compression::GZIP(_) => read_all(flate2::read::MultiGzDecoder::new(packed), out, limit)?,
        Compression::BROTLI(_) => read_all(brotli_decompressor::Decompressor::new(packed, 4096), out, limit)?,
        Compression::ZSTD(_) => {
            // Memory that is reserved and not written to costs nothing.
            let said = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
            let length = said.and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
            check(length, limit)?;
            let unpacked = zstd::bulk::decompress(packed, length)?;
            out.extend_from_slice(&unpacked);
        }
        Compression::LZ4_RAW => lz4_block(packed, out, limit)?,
        Compression::LZ4 => {
            // Hadoop's frames, as the format says; older writers left the standard frames or bare blocks.
            let mut hadoop = Vec::new();
            if hadoop_lz4(packed, &mut hadoop, limit).is_ok() {
                out.extend_from_slice(&hadoop);
            } else if packed.starts_with(&[0x04, 0x22, 0x4d, 0x18]) {
                read_all(lz4_flex::frame::FrameDecoder::new(packed), out, limit)?;
            } else {
                lz4_block(packed, out, limit)?;
            }
        }
        Compression::LZO => return Err(ParquetError::NYI("LZO".to_owned())),
    }
    Ok(())
}

/// Refuses what is longer than the limit.
pub(super) fn check(length: usize, limit: usize) -> Result<()> {
    if length <= limit {
        return Ok(());
    }
    Err(ParquetError::General(format!("a page unpacks to more than {limit} bytes")))
}

fn read_all(input: impl Read, out: &mut Vec<u8>, limit: usize) -> Result<()> {
    let read = input.take(limit as u64 + 1).read_to_end(out)?;
    check(read, limit)
}

fn lz4_block(packed: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<()> {
    let start = out.len();
    let most = packed.len().saturating_mul(LZ4_GROWTH).min(limit);
    // Fresh zeros are the system's and cost nothing until they are written to.
    let mut unpacked = vec![0; most];
    let length = lz4_flex::block::decompress_into(packed, &mut unpacked).map_err(|error| match error {
        lz4_flex::block::DecompressError::OutputTooSmall { .. } if most == limit => {
            ParquetError::General(format!("a page unpacks to more than {limit} bytes"))
        }
        error => ParquetError::External(Box::new(error)),
    })?;
    unpacked.truncate(length);
    if start == 0 {
        unpacked.shrink_to_fit();
        *out = unpacked;
    } else {
        out.extend_from_slice(&unpacked);
    }
    Ok(())
}

/// Frames of an unpacked length, a packed length, both big-endian, and a block.
fn hadoop_lz4(mut packed: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<()> {
    let malformed = || ParquetError::General("an LZ4 frame is malformed".to_owned());
    while !packed.is_empty() {
        let (head, rest) = packed.split_first_chunk::<8>().ok_or_else(malformed)?;
        let number =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (unpacked, stored) = (number(0), number(4));
        let block = rest.get(..stored).ok_or_else(malformed)?;
        let start = out.len();
        check(start.saturating_add(unpacked), limit)?;
        if unpacked > stored.saturating_mul(LZ4_GROWTH) {
            return Err(malformed());
        }
        out.resize(start + unpacked, 0);
        let length = lz4_flex::block::decompress_into(block, &mut out[start..]);
        if length.ok() != Some(unpacked) {
            return Err(malformed());
        }
        packed = &rest[stored..];
    }
    Ok(())
}

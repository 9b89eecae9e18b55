//! What a JPEG file says of itself before its first scan: whether nvJPEG may be asked to decode it.
//!
//! nvJPEG writes as much as the file it read says, into memory of the size read here: both must agree, and files that decoders read differently are left to
//! the processor.

use super::JpegError;

/// A file that nvJPEG may decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: usize,
}

/// Reads a file's header and looks for its end.
///
/// # Errors
/// [`JpegError::Broken`] and [`JpegError::Unsupported`].
pub(super) fn read(file: &[u8]) -> Result<Header, JpegError> {
    use JpegError::{Broken, Unsupported};
    const CUT: JpegError = Broken { what: "the file ends in its header" };
    let Some(mut rest) = file.strip_prefix(&[0xff, 0xd8]) else {
        return Err(Broken { what: "no JPEG signature" });
    };
    let mut frame = None;
    let mut untransformed = false;
    loop {
        let [first, marker, after @ ..] = rest else { return Err(CUT) };
        match (first, marker) {
            // A fill byte.
            (0xff, 0xff) => {
                rest = &rest[1..];
                continue;
            }
            (0xff, 0x02..=0xcf | 0xda..) => {}
            _ => return Err(Broken { what: "no segment where one belongs" }),
        }
        let [high, low, ..] = after else { return Err(CUT) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let segment = after.get(2..length).ok_or(CUT)?;
        rest = &after[length..];
        match marker {
            0xda => break,
            0xc0..=0xc2 if frame.is_some() => return Err(Unsupported { what: "several frames" }),
            0xc0..=0xc2 => frame = Some(read_frame(segment)?),
            // Huffman tables.
            0xc4 => {}
            0xc3..=0xcf => return Err(Unsupported { what: "lossless, hierarchical or arithmetic coding" }),
            // Adobe's transform 0: components are red, green and blue.
            0xee if segment.starts_with(b"Adobe") => untransformed = segment.get(11) == Some(&0),
            _ => {}
        }
    }
    let header = frame.ok_or(Broken { what: "a scan before the frame" })?;
    if untransformed && header.components == 3 {
        return Err(Unsupported { what: "components that are RGB" });
    }
    let ends = file.ends_with(&[0xff, 0xd9]) || rest.windows(2).any(|pair| pair == [0xff, 0xd9]);
    if ends { Ok(header) } else { Err(Broken { what: "the file has no end" }) }
}

/// Reads a frame header's segment.
fn read_frame(segment: &[u8]) -> Result<Header, JpegError> {
    use JpegError::{Broken, Unsupported};
    let [precision, y1, y0, x1, x0, count, components @ ..] = segment else {
        return Err(Broken { what: "a short frame header" });
    };
    let header = Header {
        width: usize::from(u16::from_be_bytes([*x1, *x0])),
        height: usize::from(u16::from_be_bytes([*y1, *y0])),
        components: usize::from(*count),
    };
    if *precision != 8 {
        return Err(Unsupported { what: "samples that have not 8 bits" });
    }
    if header.components != 1 && header.components != 3 {
        return Err(Unsupported { what: "components that are neither 1 nor 3" });
    }
    if header.width == 0 || header.height == 0 {
        return Err(Unsupported { what: "no width or height in the frame header" });
    }
    let ids: Vec<u8> = components.chunks_exact(3).map(|component| component[0]).collect();
    if components.len() != 3 * header.components {
        return Err(Broken { what: "a frame header of another length" });
    }
    if ids == *b"RGB" {
        return Err(Unsupported { what: "components that are RGB" });
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).expect("short").to_be_bytes();
        [&[0xff, marker], length.as_slice(), content].concat()
    }

    fn frame(precision: u8, height: u16, width: u16, ids: &[u8]) -> Vec<u8> {
        let ([y1, y0], [x1, x0]) = (height.to_be_bytes(), width.to_be_bytes());
        let mut content = vec![precision, y1, y0, x1, x0, ids.len() as u8];
        content.extend(ids.iter().flat_map(|&id| [id, 0x11, 0]));
        segment(0xc0, &content)
    }

    /// Signature, segments, a scan, the end.
    fn file(segments: &[Vec<u8>]) -> Vec<u8> {
        let scan = segment(0xda, &[1, 1, 0, 0, 63, 0]);
        [&[0xff, 0xd8], segments.concat().as_slice(), &scan, &[1, 2, 3, 0xff, 0xd9]].concat()
    }

    #[test]
    fn a_frame_says_the_size() {
        let plain = file(&[segment(0xe1, b"Exif\0\0\xff\xd8\xff\xd9"), frame(8, 480, 640, &[1, 2, 3])]);
        assert_eq!(read(&plain), Ok(Header { width: 640, height: 480, components: 3 }));
        let filled = file(&[vec![0xff, 0xff], frame(8, 7, 9, &[1])]);
        assert_eq!(read(&filled), Ok(Header { width: 9, height: 7, components: 1 }));
        let behind = [plain.as_slice(), b"behind the end"].concat();
        assert!(read(&behind).is_ok());
    }

    #[test]
    fn what_ends_early_is_broken() {
        let whole = file(&[segment(0xe1, b"Exif\0\0\xff\xd8\xff\xd9"), frame(8, 480, 640, &[1, 2, 3])]);
        for length in 0..whole.len() {
            assert!(matches!(read(&whole[..length]), Err(JpegError::Broken { .. })), "{length} bytes");
        }
    }

    #[test]
    fn what_decoders_read_differently_is_left_to_the_processor() {
        let adobe =
            |transform| segment(0xee, &[b"Adobe".as_slice(), &[0, 100, 0, 0, 0, 0, transform]].concat());
        let three = frame(8, 4, 4, &[1, 2, 3]);
        let unsupported = [
            file(&[frame(12, 4, 4, &[1, 2, 3])]),
            file(&[frame(8, 4, 4, &[1, 2, 3, 4])]),
            file(&[frame(8, 0, 4, &[1, 2, 3])]),
            file(&[frame(8, 4, 4, b"RGB")]),
            file(&[adobe(0), three.clone()]),
            file(&[three.clone(), three.clone()]),
            file(&[segment(0xc9, &three[4..])]),
        ];
        for (i, file) in unsupported.iter().enumerate() {
            assert!(matches!(read(file), Err(JpegError::Unsupported { .. })), "file {i}: {:?}", read(file));
        }
        assert!(read(&file(&[adobe(1), three])).is_ok());
        assert!(read(&file(&[adobe(0), frame(8, 4, 4, &[1])])).is_ok());
    }
}

//! The orientation that a file's Exif data tells: cameras store pixels as the sensor lay and say how to turn them.

use image::metadata::Orientation as Turn;

/// Bytes of an Exif block that are looked at: its first directory lies at the beginning.
const MOST: usize = 1 << 20;

/// The turn that a block of Exif data asks for; none if it is damaged or says nothing sensible.
///
/// The block may begin with `Exif\0\0`, as in JPEG and in some WebP and PNG files.
pub(super) fn turn_of(exif: &[u8]) -> Turn {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Turn::from_exif_chunk(&tiff[..tiff.len().min(MOST)]).unwrap_or(Turn::NoTransforms)
}

/// The Exif block of a JPEG file, if it has one: the first APP1 segment that begins with `Exif`.
pub(super) fn in_jpeg(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    loop {
        let rest = bytes.get(at..)?;
        // Fill bytes may stand before a marker.
        let &[0xff, marker, ref segment @ ..] = rest else { return None };
        match marker {
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            // Pixels: metadata stands before them.
            0xd9 | 0xda => return None,
            _ => {
                let length = usize::from(u16::from_be_bytes(*segment.first_chunk()?));
                let body = segment.get(2..length.min(segment.len()));
                if marker == 0xe1
                    && let Some(exif) = body.filter(|body| body.starts_with(b"Exif\0\0"))
                {
                    return Some(exif);
                }
                at += 2 + length.max(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Exif block of one entry.
    fn block(little: bool, tag: u16, kind: u16, value: u16) -> Vec<u8> {
        let u16s = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let u32s = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let head: &[u8] = if little { b"II" } else { b"MM" };
        [
            head,
            &u16s(42),
            &u32s(8),
            &u16s(1),
            &u16s(tag),
            &u16s(kind),
            &u32s(1),
            &u16s(value),
            &[0; 2],
            &[0; 4],
        ]
        .concat()
    }

    fn jpeg(segments: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        for (marker, body) in segments {
            bytes.extend([0xff, *marker]);
            bytes.extend((body.len() as u16 + 2).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    #[test]
    fn all_eight_values_are_read_in_both_byte_orders() {
        for value in 1..=8 {
            for little in [false, true] {
                let block = block(little, 0x112, 3, value);
                assert_eq!(turn_of(&block).to_exif(), value as u8);
                let with_name = [&b"Exif\0\0"[..], &block].concat();
                assert_eq!(turn_of(&with_name).to_exif(), value as u8);
            }
        }
    }

    #[test]
    fn damage_turns_nothing() {
        for (tag, kind, value) in
            [(0x112, 3, 0), (0x112, 3, 9), (0x112, 3, 65535), (0x112, 2, 6), (0x113, 3, 6)]
        {
            assert_eq!(turn_of(&block(true, tag, kind, value)), Turn::NoTransforms, "{tag} {kind} {value}");
        }
        let mut far = block(true, 0x112, 3, 6);
        far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(turn_of(&far), Turn::NoTransforms);
        assert_eq!(turn_of(b""), Turn::NoTransforms);
        assert_eq!(turn_of(b"Exif\0\0"), Turn::NoTransforms);
    }

    #[test]
    fn a_jpegs_exif_is_found_behind_other_segments() {
        let exif = [&b"Exif\0\0"[..], &block(false, 0x112, 3, 6)].concat();
        let file = jpeg(&[
            (0xe0, b"JFIF\0"),
            (0xe1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
            (0xe1, &exif),
            (0xda, b""),
        ]);
        assert_eq!(in_jpeg(&file).map(turn_of), Some(Turn::Rotate90));
        let behind_the_pixels = jpeg(&[(0xda, b""), (0xe1, &exif)]);
        assert_eq!(in_jpeg(&behind_the_pixels), None);
        for end in 0..file.len() {
            in_jpeg(&file[..end]);
        }
    }

    #[test]
    fn no_block_panics() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            turn_of(&bytes);
            in_jpeg(&bytes);
            let block = [&b"II*\0\x08\0\0\0"[..], &bytes].concat();
            turn_of(&block);
        });
    }
}

//! The one table of image formats: names, extensions, signatures, and which of them are read.

use std::fmt;
use std::path::Path;

use super::input::{Input, Picture};
use super::{ImageError, ico, jpeg, plain, png, tiff, webp};

/// Bytes at the beginning of a file that [`ImageFormat::of_content`] needs to tell every format.
pub const HEAD_BYTES: usize = 64;

/// A format's decoder.
pub(super) type Decode = fn(&Input) -> Result<Picture, ImageError>;

/// One image format.
pub struct ImageFormat {
    /// As people call it: `JPEG`.
    pub name: &'static str,
    /// Extensions in lower case, without the dot, the usual one first.
    pub extensions: &'static [&'static str],
    /// Media types, the registered one first.
    pub media_types: &'static [&'static str],
    /// Its decoder; formats without one are known only so that messages can name them.
    pub(super) decode: Option<Decode>,
    /// Whether a file begins as this format does; `None` for formats without a signature, which only a name tells.
    signature: Option<fn(&[u8]) -> bool>,
}

impl ImageFormat {
    /// The format that a file's extension says, in any case; the file is not looked at.
    pub fn of_name(path: &Path) -> Option<&'static Self> {
        Self::of_extension(path.extension()?.to_str()?)
    }

    /// The format with this extension, in any case.
    pub fn of_extension(extension: &str) -> Option<&'static Self> {
        let extension = extension.to_ascii_lowercase();
        IMAGE_FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str()))
    }

    /// The format that a file's first bytes ([`HEAD_BYTES`] are enough) say.
    pub fn of_content(head: &[u8]) -> Option<&'static Self> {
        IMAGE_FORMATS.iter().find(|format| format.signature.is_some_and(|matches| matches(head)))
    }

    /// The format of a file with this name and these first bytes: what the content says; the name where the content says nothing, or where
    /// several formats share a signature (camera raw files begin as TIFF does).
    pub fn of(path: &Path, head: &[u8]) -> Option<&'static Self> {
        let named = Self::of_name(path);
        match Self::of_content(head) {
            Some(format) if named.is_some_and(|named| named == &CAMERA_RAW && format == &TIFF) => named,
            Some(format) => Some(format),
            // The content would have shown a format that has a signature.
            None => named.filter(|format| format.signature.is_none() || !format.is_read()),
        }
    }

    /// The same for a whole file: the end of a TGA file may tell it too.
    pub(super) fn of_bytes(path: &Path, bytes: &[u8]) -> Option<&'static Self> {
        Self::of(path, bytes).or_else(|| {
            let is_tga = |format: &&Self| **format == TGA && bytes.ends_with(b"TRUEVISION-XFILE.\0");
            IMAGE_FORMATS.iter().find(is_tga)
        })
    }

    /// Whether it is decoded; the other formats are known only so that messages can name them.
    pub fn is_read(&self) -> bool {
        self.decode.is_some()
    }

    /// Formats that are read, in the order of the table.
    pub fn read() -> impl Iterator<Item = &'static Self> {
        IMAGE_FORMATS.iter().filter(|format| format.is_read())
    }
}

/// A row is its name.
impl PartialEq for ImageFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ImageFormat {}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every format that is known. Where signatures overlap, the more exact one comes first.
pub static IMAGE_FORMATS: &[ImageFormat] = &[
    JPEG, PNG, WEBP, GIF, BMP, CAMERA_RAW, TIFF, PNM, ICO, QOI, TGA, AVIF, HEIC, JPEG_XL, JPEG_2000,
    PHOTOSHOP, SVG,
];

const JPEG: ImageFormat = ImageFormat {
    name: "JPEG",
    extensions: &["jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp"],
    media_types: &["image/jpeg", "image/jpg", "image/pjpeg"],
    decode: Some(jpeg::decode),
    signature: Some(|head| head.starts_with(&[0xff, 0xd8, 0xff])),
};

const PNG: ImageFormat = ImageFormat {
    name: "PNG",
    extensions: &["png", "apng"],
    media_types: &["image/png", "image/apng"],
    decode: Some(png::decode),
    signature: Some(|head| head.starts_with(b"\x89PNG\r\n\x1a\n")),
};

const WEBP: ImageFormat = ImageFormat {
    name: "WebP",
    extensions: &["webp"],
    media_types: &["image/webp"],
    decode: Some(webp::decode),
    signature: Some(|head| head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP")),
};

const GIF: ImageFormat = ImageFormat {
    name: "GIF",
    extensions: &["gif"],
    media_types: &["image/gif"],
    decode: Some(plain::gif),
    signature: Some(|head| head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a")),
};

const BMP: ImageFormat = ImageFormat {
    name: "BMP",
    extensions: &["bmp", "dib"],
    media_types: &["image/bmp", "image/x-ms-bmp"],
    decode: Some(plain::bmp),
    signature: Some(|head| {
        // Two letters are not enough: the length of the second header must be one that exists.
        let length = head.get(14..18).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")));
        head.starts_with(b"BM") && matches!(length, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
    }),
};

/// Most of these begin as TIFF does and hold a small preview where a TIFF has its picture, so the name must tell them.
const CAMERA_RAW: ImageFormat = ImageFormat {
    name: "camera raw",
    extensions: &[
        "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "raf", "orf", "rw2", "pef", "srw",
        "3fr", "iiq",
    ],
    media_types: &["image/x-adobe-dng", "image/x-canon-cr2", "image/x-nikon-nef", "image/x-sony-arw"],
    decode: None,
    signature: Some(|head| {
        let is_cr2 = head.starts_with(b"II*\0") && head.get(8..10) == Some(b"CR");
        let olympus = [&b"IIRO"[..], b"IIRS", b"MMOR"].iter().any(|start| head.starts_with(start));
        is_cr2
            || olympus
            || head.starts_with(b"IIU\0")
            || head.starts_with(b"FUJIFILMCCD-RAW")
            || has_brand(head, &[b"crx "])
    }),
};

const TIFF: ImageFormat = ImageFormat {
    name: "TIFF",
    extensions: &["tif", "tiff"],
    media_types: &["image/tiff"],
    decode: Some(tiff::decode),
    signature: Some(|head| {
        [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|start| head.starts_with(start))
    }),
};

const PNM: ImageFormat = ImageFormat {
    name: "PNM",
    extensions: &["pnm", "ppm", "pgm", "pbm", "pam"],
    media_types: &[
        "image/x-portable-anymap",
        "image/x-portable-pixmap",
        "image/x-portable-graymap",
        "image/x-portable-bitmap",
    ],
    decode: Some(plain::pnm),
    signature: Some(|head| {
        matches!(head, [b'P', b'1'..=b'6', b' ' | b'\t' | b'\n' | b'\r' | b'#', ..] | [b'P', b'7', b'\n', ..])
    }),
};

const ICO: ImageFormat = ImageFormat {
    name: "ICO",
    extensions: &["ico"],
    media_types: &["image/vnd.microsoft.icon", "image/x-icon"],
    decode: Some(ico::decode),
    // The reserved byte of the first entry is 0 in every icon; four bytes alone would match other files.
    signature: Some(|head| {
        head.starts_with(&[0, 0, 1, 0]) && head.get(4..6) != Some(&[0, 0]) && head.get(9) == Some(&0)
    }),
};

const QOI: ImageFormat = ImageFormat {
    name: "QOI",
    extensions: &["qoi"],
    media_types: &["image/qoi"],
    decode: Some(plain::qoi),
    signature: Some(|head| head.starts_with(b"qoif")),
};

const TGA: ImageFormat = ImageFormat {
    name: "TGA",
    extensions: &["tga", "icb", "vda"],
    media_types: &["image/x-tga", "image/x-targa"],
    decode: Some(plain::tga),
    signature: None,
};

const AVIF: ImageFormat = ImageFormat {
    name: "AVIF",
    extensions: &["avif", "avifs"],
    media_types: &["image/avif"],
    decode: None,
    signature: Some(|head| has_brand(head, &[b"avif", b"avis"])),
};

const HEIC: ImageFormat = ImageFormat {
    name: "HEIC",
    extensions: &["heic", "heif", "hif", "heics", "heifs"],
    media_types: &["image/heic", "image/heif"],
    decode: None,
    signature: Some(|head| {
        has_brand(
            head,
            &[
                b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
                b"mif2",
            ],
        )
    }),
};

const JPEG_XL: ImageFormat = ImageFormat {
    name: "JPEG XL",
    extensions: &["jxl"],
    media_types: &["image/jxl"],
    decode: None,
    signature: Some(|head| head.starts_with(&[0xff, 0x0a]) || head.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n")),
};

const JPEG_2000: ImageFormat = ImageFormat {
    name: "JPEG 2000",
    extensions: &["jp2", "j2k", "jpf", "jpx", "j2c"],
    media_types: &["image/jp2", "image/jpx"],
    decode: None,
    signature: Some(|head| {
        head.starts_with(b"\0\0\0\x0cjP  \r\n\x87\n") || head.starts_with(&[0xff, 0x4f, 0xff, 0x51])
    }),
};

const PHOTOSHOP: ImageFormat = ImageFormat {
    name: "Photoshop",
    extensions: &["psd", "psb"],
    media_types: &["image/vnd.adobe.photoshop"],
    decode: None,
    signature: Some(|head| head.starts_with(b"8BPS")),
};

const SVG: ImageFormat = ImageFormat {
    name: "SVG",
    extensions: &["svg", "svgz"],
    media_types: &["image/svg+xml"],
    decode: None,
    signature: Some(|head| head.starts_with(b"<svg")),
};

/// Whether an ISO media file (`ftyp` box first) has one of these brands, as its major one or among the compatible ones in `head`.
fn has_brand(head: &[u8], brands: &[&[u8; 4]]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<4>() else { return false };
    let Some(body) = rest.strip_prefix(b"ftyp") else { return false };
    let length = (u32::from_be_bytes(*length) as usize).saturating_sub(8).min(body.len());
    let (words, _) = body[..length].as_chunks::<4>();
    // The second word is the version.
    words.iter().enumerate().any(|(i, word)| i != 1 && brands.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_content(head: &[u8]) -> Option<&'static str> {
        ImageFormat::of_content(head).map(|format| format.name)
    }

    fn ftyp(brands: &[&[u8; 4]]) -> Vec<u8> {
        let length = (8 + 4 * (brands.len() + 1)) as u32;
        let mut head = [&length.to_be_bytes()[..], b"ftyp", brands[0], &[0; 4]].concat();
        brands[1..].iter().for_each(|brand| head.extend_from_slice(*brand));
        head
    }

    #[test]
    fn names_and_extensions_are_unique_and_lower_case() {
        let mut extensions: Vec<_> = IMAGE_FORMATS.iter().flat_map(|format| format.extensions).collect();
        assert!(extensions.iter().all(|e| **e == e.to_ascii_lowercase() && !e.contains('.')));
        let all = extensions.len();
        extensions.sort_unstable();
        extensions.dedup();
        assert_eq!(extensions.len(), all);
        let mut names: Vec<_> = IMAGE_FORMATS.iter().map(|format| format.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), IMAGE_FORMATS.len());
    }

    #[test]
    fn a_name_tells_by_its_extension_in_any_case() {
        for (name, format) in [
            ("a.jpg", Some("JPEG")),
            ("x/A.JFIF", Some("JPEG")),
            ("a.tar.PNG", Some("PNG")),
            ("a.HEIC", Some("HEIC")),
            ("a.b/c", None),
            (".jpg", None),
            ("a.jpg ", None),
            ("notes.txt", None),
        ] {
            assert_eq!(ImageFormat::of_name(Path::new(name)).map(|f| f.name), format, "{name}");
        }
    }

    #[test]
    fn content_tells_by_signatures() {
        let icon: &[u8] = &[0, 0, 1, 0, 1, 0, 16, 16, 0, 0, 1, 0];
        for (head, format) in [
            (&b"\xff\xd8\xff\xe0"[..], Some("JPEG")),
            (b"\x89PNG\r\n\x1a\n", Some("PNG")),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some("WebP")),
            (b"RIFF\0\0\0\0WAVEfmt ", None),
            (b"GIF89a", Some("GIF")),
            (b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", Some("BMP")),
            (b"BMW and other makers of cars", None),
            (b"II*\0\x08\0\0\0", Some("TIFF")),
            (b"MM\0+\0\x08\0\0", Some("TIFF")),
            (b"II*\0\x10\0\0\0CR\x02\0", Some("camera raw")),
            (b"P6\n3 2\n255\n", Some("PNM")),
            (b"P7\nWIDTH 1\n", Some("PNM")),
            (b"P6x", None),
            (icon, Some("ICO")),
            (b"\0\0\x01\0\0\0\0\0\0\0", None),
            (b"qoif\0", Some("QOI")),
            (b"\xff\x0a\0", Some("JPEG XL")),
            (b"\0\0\0\x0cJXL \r\n\x87\n", Some("JPEG XL")),
            (b"\0\0\0\x0cjP  \r\n\x87\n", Some("JPEG 2000")),
            (b"8BPS\0\x01", Some("Photoshop")),
            (b"", None),
            (b"\0", None),
        ] {
            assert_eq!(by_content(head), format, "{head:?}");
        }
    }

    #[test]
    fn brands_tell_heic_from_avif_and_films() {
        for (brands, format) in [
            (&[b"heic", b"mif1"][..], Some("HEIC")),
            (&[b"mif1", b"heic"], Some("HEIC")),
            (&[b"mif1", b"avif", b"miaf"], Some("AVIF")),
            (&[b"avif"], Some("AVIF")),
            (&[b"msf1"], Some("HEIC")),
            (&[b"crx "], Some("camera raw")),
            (&[b"isom", b"mp42"], None),
        ] {
            assert_eq!(by_content(&ftyp(brands)), format, "{brands:?}");
        }
        // The version is no brand, a box that claims too much or too little is no panic.
        assert_eq!(by_content(b"\0\0\0\x10ftypisomavif"), None);
        assert_eq!(by_content(b"\xff\xff\xff\xffftypavif"), Some("AVIF"));
        assert_eq!(by_content(b"\0\0\0\0ftypavif"), None);
    }

    #[test]
    fn content_decides_before_a_name() {
        let of = |name: &str, head: &[u8]| ImageFormat::of(Path::new(name), head).map(|format| format.name);
        assert_eq!(of("b.pic", b"\xff\xd8\xff\xe0"), Some("JPEG"));
        assert_eq!(of("a.heic", b"\xff\xd8\xff\xe0"), Some("JPEG"));
        assert_eq!(of("a.tga", b"\0\0\x02\0"), Some("TGA"));
        assert_eq!(of("a.tga", b"\x89PNG\r\n\x1a\n"), Some("PNG"));
        assert_eq!(of("a.dng", b"II*\0\x08\0\0\0"), Some("camera raw"));
        assert_eq!(of("a.tif", b"II*\0\x08\0\0\0"), Some("TIFF"));
        assert_eq!(of("a.jpg", b"<!doctype html>"), None);
        assert_eq!(of("a.svg", b"<?xml version=\"1.0\"?>"), Some("SVG"));
        assert_eq!(of("a.txt", b"hello"), None);
    }

    #[test]
    fn no_head_panics() {
        proptest::proptest!(|(head: Vec<u8>)| {
            ImageFormat::of(Path::new("a"), &head);
        });
    }
}

//! PNG to RGB, a row at a time: neither 16-bit samples nor transparency ever take the whole image's memory.

use std::io::Cursor;

use image::metadata::Orientation as Turn;
use png::{ColorType, Decoder, DecodingError, Limits, Reader, Transformations};

use super::canvas::{Canvas, Layout, Samples, to_rgb};
use super::input::{Input, Picture};
use super::{ImageError, exif};

/// What the decoder may take besides rows: chunks and its inflater.
const DECODER_BYTES: u64 = 1 << 20;

/// Where the rows of the seven passes of an interlaced image lie: first column and step, first row and step.
const ADAM7: [(usize, usize, usize, usize); 7] =
    [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)];

/// Decodes a PNG file's bytes; of an animated one the image that viewers without animation show.
///
/// Of 16 bits the high byte is taken, as Pillow does, but for grey, which Pillow cuts at 255.
pub(super) fn decode(input: &Input) -> Result<Picture, ImageError> {
    let broken = |error: DecodingError| input.broken(error);
    let limits = Limits { bytes: (input.bytes.len() as u64).saturating_add(64 << 20) as usize };
    let mut decoder = Decoder::new_with_limits(Cursor::new(input.bytes), limits);
    // They are not used, and may unpack to a thousand times their size.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let (width, height) = decoder.read_header_info().map_err(broken)?.size();
    // Rows of up to 8 bytes a pixel: the packed one, the one before, the unpacked one, and its RGB.
    let reservation = input.admit(width, height, DECODER_BYTES + 4 * 8 * u64::from(width))?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let channels = match reader.output_color_type().0 {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(input.broken("a palette was not expanded")),
    };
    let layout = Layout { channels, samples: Samples::U8 };
    let several = reader.info().animation_control.is_some_and(|control| control.num_frames > 1);
    let turn = input.turn(|| in_chunks(input.bytes).map_or(Turn::NoTransforms, exif::turn_of));
    let mut canvas = Canvas::new(width, height, turn);
    let (width, height) = (width as usize, height as usize);
    if reader.info().interlaced {
        interlaced(input, &mut reader, layout, width, height, &mut canvas)?;
    } else {
        let mut rows = Vec::new();
        for y in 0..height {
            to_rgb(next_row(input, &mut reader)?, layout, input.alpha, &mut rows);
            let whole = rows.len() / (3 * width);
            if whole == Canvas::ROWS || y + 1 == height {
                canvas.put(y + 1 - whole, &rows);
                rows.clear();
            }
        }
    }
    // Reads the end of the pixels with its checksums.
    reader.next_row().map_err(broken)?;
    Ok(Picture { image: canvas.finish(), several, reservation })
}

fn interlaced(
    input: &Input,
    reader: &mut Reader<Cursor<&[u8]>>,
    layout: Layout,
    width: usize,
    height: usize,
    canvas: &mut Canvas,
) -> Result<(), ImageError> {
    let mut rgb = Vec::new();
    for (left, right_by, top, down_by) in ADAM7 {
        if left >= width {
            continue;
        }
        for y in (top..height).step_by(down_by) {
            rgb.clear();
            to_rgb(next_row(input, reader)?, layout, input.alpha, &mut rgb);
            for (x, pixel) in (left..width).step_by(right_by).zip(rgb.as_chunks::<3>().0) {
                canvas.put_pixel(x, y, *pixel);
            }
        }
    }
    Ok(())
}

fn next_row<'a>(input: &Input, reader: &'a mut Reader<Cursor<&[u8]>>) -> Result<&'a [u8], ImageError> {
    let row = reader.next_interlaced_row().map_err(|error| input.broken(error))?;
    Ok(row.ok_or_else(|| input.broken("fewer rows than its header says"))?.data())
}

/// The Exif chunk, which may stand before or behind the pixels.
fn in_chunks(png: &[u8]) -> Option<&[u8]> {
    let mut rest = png.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (kind, body) = after.split_first_chunk::<4>()?;
        if kind == b"eXIf" {
            return body.get(..length);
        }
        rest = body.get(length.checked_add(4)?..)?;
    }
}

//! What the decoders of the `image` crate share: from its pixels to upright RGB.

use image::metadata::Orientation as Turn;
use image::{ColorType, ImageDecoder, Limits};

use super::ImageError;
use super::canvas::{Canvas, Layout, Samples, to_rgb};
use super::input::{Input, Picture};

/// What decoders may allocate besides what is counted by pixels.
const MORE_BYTES: u64 = 1 << 20;

/// Decodes what `decoder` has read the header of. `working` is the decoder's own memory for an image of so many pixels, in bytes, besides
/// the pixels that it gives.
pub(super) fn decode(
    input: &Input,
    mut decoder: impl ImageDecoder,
    turn: Turn,
    several: bool,
    working: impl Fn(u64) -> u64,
) -> Result<Picture, ImageError> {
    let (width, height) = decoder.dimensions();
    let layout = layout(decoder.color_type()).ok_or_else(|| {
        input.broken(format_args!("pixels of type {:?} are not read", decoder.color_type()))
    })?;
    let pixels = u64::from(width) * u64::from(height);
    let own = working(pixels).saturating_add(MORE_BYTES);
    let direct = layout == Layout::RGB8 && turn == Turn::NoTransforms;
    let given = pixels.saturating_mul(layout.bytes_per_pixel() as u64);
    let reservation = input.admit(width, height, if direct { own } else { own.saturating_add(given) })?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(given.saturating_add(own));
    decoder.set_limits(limits).map_err(|error| input.broken(error))?;
    let mut canvas = Canvas::new(width, height, turn);
    match canvas.whole() {
        Some(whole) if direct => decoder.read_image(whole).map_err(|error| input.broken(error))?,
        _ => {
            let given = usize::try_from(given).map_err(|error| input.broken(error))?;
            let mut stored = vec![0; given];
            decoder.read_image(&mut stored).map_err(|error| input.broken(error))?;
            let stride = width as usize * layout.bytes_per_pixel();
            let mut rgb = Vec::with_capacity(width as usize * 3 * Canvas::ROWS);
            for (i, rows) in stored.chunks(stride * Canvas::ROWS).enumerate() {
                rgb.clear();
                to_rgb(rows, layout, input.alpha, &mut rgb);
                canvas.put(i * Canvas::ROWS, &rgb);
            }
        }
    }
    Ok(Picture { image: canvas.finish(), several, reservation })
}

fn layout(color: ColorType) -> Option<Layout> {
    let samples = match color {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => Samples::U8,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => Samples::U16,
        ColorType::Rgb32F | ColorType::Rgba32F => Samples::F32,
        _ => return None,
    };
    Some(Layout { channels: color.channel_count(), samples })
}

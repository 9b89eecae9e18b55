//! Rows of decoded pixels to one upright 8-bit RGB image, without a copy of the whole.

use image::RgbImage;
use image::metadata::Orientation as Turn;

use super::Alpha;

/// What the samples of a decoded row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Bytes.
    U8,
    /// Two bytes in the machine's order; the high one is kept, as Pillow does for colors.
    U16,
    /// 32-bit floats in the machine's order, 0 to 1.
    F32,
}

/// How the pixels of a decoded row lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// 1: grey, 2: grey and alpha, 3: RGB, 4: RGB and alpha.
    pub channels: u8,
    /// What each channel's sample is.
    pub samples: Samples,
}

impl Layout {
    pub(super) const RGB8: Self = Self { channels: 3, samples: Samples::U8 };

    pub(super) fn bytes_per_pixel(self) -> usize {
        let sample = match self.samples {
            Samples::U8 => 1,
            Samples::U16 => 2,
            Samples::F32 => 4,
        };
        sample * usize::from(self.channels)
    }
}

/// Appends a row's pixels as 8-bit RGB.
pub fn to_rgb(row: &[u8], layout: Layout, alpha: Alpha, out: &mut Vec<u8>) {
    match layout.samples {
        Samples::U8 => bytes_to_rgb(row, layout.channels, alpha, out),
        Samples::U16 => {
            let high = |pair: &[u8; 2]| (u16::from_ne_bytes(*pair) >> 8) as u8;
            let bytes: Vec<u8> = row.as_chunks::<2>().0.iter().map(high).collect();
            bytes_to_rgb(&bytes, layout.channels, alpha, out);
        }
        Samples::F32 => {
            // A value that is no number becomes 0.
            let byte = |four: &[u8; 4]| (f32::from_ne_bytes(*four).clamp(0.0, 1.0) * 255.0).round() as u8;
            let bytes: Vec<u8> = row.as_chunks::<4>().0.iter().map(byte).collect();
            bytes_to_rgb(&bytes, layout.channels, alpha, out);
        }
    }
}

fn bytes_to_rgb(row: &[u8], channels: u8, alpha: Alpha, out: &mut Vec<u8>) {
    let over_white = |c: u8, a: u8| {
        let (c, a) = (u32::from(c), u32::from(a));
        ((c * a + 255 * (255 - a) + 127) / 255) as u8
    };
    match (channels, alpha) {
        (1, _) => out.extend(row.iter().flat_map(|&v| [v; 3])),
        (2, Alpha::Drop) => out.extend(row.as_chunks::<2>().0.iter().flat_map(|&[v, _]| [v; 3])),
        (2, Alpha::White) => {
            out.extend(row.as_chunks::<2>().0.iter().flat_map(|&[v, a]| [over_white(v, a); 3]));
        }
        (3, _) => out.extend_from_slice(row),
        (_, Alpha::Drop) => out.extend(row.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b])),
        (_, Alpha::White) => {
            out.extend(
                row.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, a]| [r, g, b].map(|c| over_white(c, a))),
            );
        }
    }
}

/// The image that rows are put into, in the order in which they are stored; it comes out upright.
pub(super) struct Canvas {
    /// Of the stored image.
    width: usize,
    /// Of the stored image.
    height: usize,
    turn: Turn,
    data: Vec<u8>,
}

impl Canvas {
    /// Rows that are best put together: a turned row is written down a column, and columns side by side share cache lines.
    pub(super) const ROWS: usize = 16;

    pub(super) fn new(width: u32, height: u32, turn: Turn) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, turn, data: vec![0; width * height * 3] }
    }

    /// All the stored image's memory, for decoders that write where they like; only where nothing is turned.
    pub(super) fn whole(&mut self) -> Option<&mut [u8]> {
        (self.turn == Turn::NoTransforms).then_some(self.data.as_mut_slice())
    }

    /// Puts RGB rows at stored row `y` and the following ones.
    pub(super) fn put(&mut self, y: usize, rows: &[u8]) {
        let stride = self.width * 3;
        if self.turn == Turn::NoTransforms {
            self.data[y * stride..][..rows.len()].copy_from_slice(rows);
            return;
        }
        let count = rows.len() / stride;
        let pixels = self.data.as_chunks_mut::<3>().0;
        for x in 0..self.width {
            for row in 0..count {
                let (pixel, _) =
                    rows[row * stride + x * 3..].split_first_chunk::<3>().expect("inside the row");
                pixels[place(self.turn, self.width, self.height, x, y + row)] = *pixel;
            }
        }
    }

    /// Puts one pixel at its stored place.
    pub(super) fn put_pixel(&mut self, x: usize, y: usize, pixel: [u8; 3]) {
        self.data.as_chunks_mut::<3>().0[place(self.turn, self.width, self.height, x, y)] = pixel;
    }

    /// The upright image.
    pub(super) fn finish(self) -> RgbImage {
        let (width, height) =
            if swaps(self.turn) { (self.height, self.width) } else { (self.width, self.height) };
        RgbImage::from_raw(width as u32, height as u32, self.data).expect("the buffer has the image's size")
    }
}

/// Whether the upright image is as wide as the stored one is high.
fn swaps(turn: Turn) -> bool {
    matches!(turn, Turn::Rotate90 | Turn::Rotate270 | Turn::Rotate90FlipH | Turn::Rotate270FlipH)
}

/// Index of a stored pixel in the upright image.
fn place(turn: Turn, width: usize, height: usize, x: usize, y: usize) -> usize {
    let (right, below) = (width - 1 - x, height - 1 - y);
    match turn {
        Turn::NoTransforms => y * width + x,
        Turn::FlipHorizontal => y * width + right,
        Turn::Rotate180 => below * width + right,
        Turn::FlipVertical => below * width + x,
        Turn::Rotate90FlipH => x * height + y,
        Turn::Rotate90 => x * height + below,
        Turn::Rotate270FlipH => right * height + below,
        Turn::Rotate270 => right * height + y,
    }
}

#[cfg(test)]
mod tests {
    use image::DynamicImage;

    use super::*;

    #[test]
    fn turns_are_those_of_the_image_crate_however_rows_are_put() {
        let stored = RgbImage::from_fn(5, 40, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
        for exif in 1..=8 {
            let turn = Turn::from_exif(exif).unwrap();
            let mut expected = DynamicImage::ImageRgb8(stored.clone());
            expected.apply_orientation(turn);
            for rows in [1, 7, Canvas::ROWS, 40] {
                let mut canvas = Canvas::new(5, 40, turn);
                for (i, rows_of) in stored.as_raw().chunks(rows * 15).enumerate() {
                    canvas.put(i * rows, rows_of);
                }
                assert_eq!(canvas.finish(), expected.to_rgb8(), "{turn:?} by {rows}");
            }
            let mut canvas = Canvas::new(5, 40, turn);
            for (x, y, pixel) in stored.enumerate_pixels() {
                canvas.put_pixel(x as usize, y as usize, pixel.0);
            }
            assert_eq!(canvas.finish(), expected.to_rgb8(), "{turn:?} by pixels");
        }
    }

    #[test]
    fn every_layout_becomes_rgb() {
        let rgb = |row: &[u8], channels, samples, alpha| {
            let mut out = Vec::new();
            to_rgb(row, Layout { channels, samples }, alpha, &mut out);
            out
        };
        let wide: Vec<u8> = [0x1234u16, 0xff00].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let floats: Vec<u8> = [0.5f32, 2.0, -1.0, f32::NAN].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(rgb(&[7], 1, Samples::U8, Alpha::Drop), [7, 7, 7]);
        assert_eq!(rgb(&[7, 0], 2, Samples::U8, Alpha::Drop), [7, 7, 7]);
        assert_eq!(rgb(&[7, 0], 2, Samples::U8, Alpha::White), [255; 3]);
        assert_eq!(rgb(&[1, 2, 3, 9], 4, Samples::U8, Alpha::Drop), [1, 2, 3]);
        assert_eq!(rgb(&[0, 0, 0, 128], 4, Samples::U8, Alpha::White), [127; 3]);
        assert_eq!(rgb(&wide, 1, Samples::U16, Alpha::Drop), [0x12, 0x12, 0x12, 255, 255, 255]);
        assert_eq!(
            rgb(&floats, 1, Samples::F32, Alpha::Drop),
            [128, 128, 128, 255, 255, 255, 0, 0, 0, 0, 0, 0]
        );
    }
}

//! Image files to squares of bytes on a card: headers are read on the processor; nvJPEG decodes, and Pillow's resampling follows.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use image::metadata::Orientation as Turn;
use rayon::prelude::*;
use xmore_cuda::{Buffer, CudaError, JpegDecoder, JpegError, Limits, ResizeImage, Resizer, Stream};
use xmore_files::image::{JpegHeader, inspect_jpeg};

use crate::device::DecodedFile;
use crate::preprocess::{Interpolation, Placement, Preprocess};

use super::Images;

/// Pixels that are on the card together at most, of one image or several: 0.8 gigabytes. Larger images are the processor's.
const MAX_PIXELS: usize = 256 << 20;
/// Squares behind those of a batch: a pass may take as many images more than there are.
const PADDING: usize = 32;
/// Buffers of squares that are kept to be used again: for a batch that is encoded, one that is decoded, and one between.
const MAX_SPARE: usize = 3;

/// Files whose headers were read.
pub(super) struct Planned<'f> {
    /// How many files there were.
    files: usize,
    images: Vec<Plan<'f>>,
    taps: HashMap<Axis, xmore_cuda::Taps>,
}

/// A file, and what becomes of its image.
struct Plan<'f> {
    index: usize,
    file: &'f [u8],
    header: JpegHeader,
    placement: Placement,
    columns: Axis,
    rows: Axis,
    far_from_square: bool,
}

/// What the weights of an axis depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Axis {
    input: u32,
    output: u32,
    start: u32,
    count: u32,
}

impl Axis {
    fn taps(self) -> xmore_cuda::Taps {
        let positions = Interpolation::Bicubic.taps(self.input, self.output, self.start, self.count);
        let positions: Vec<(usize, &[i32])> =
            positions.iter().map(|taps| (taps.first, taps.weights.as_slice())).collect();
        xmore_cuda::Taps::new(&positions)
    }
}

impl<'f> Planned<'f> {
    /// Reads the headers of those files that may be decoded on a card.
    pub(super) fn new(files: &[&'f [u8]], preprocess: &Preprocess) -> Self {
        let plan = |(index, &file): (usize, &&'f [u8])| Plan::new(index, file, preprocess);
        let images: Vec<Plan> = files.par_iter().enumerate().filter_map(plan).collect();
        let axes: HashSet<Axis> = images.iter().flat_map(|plan| [plan.columns, plan.rows]).collect();
        let taps = axes.into_par_iter().map(|axis| (axis, axis.taps())).collect();
        Self { files: files.len(), images, taps }
    }
}

impl<'f> Plan<'f> {
    fn new(index: usize, file: &'f [u8], preprocess: &Preprocess) -> Option<Self> {
        let header = inspect_jpeg(file, &preprocess.options(MAX_PIXELS as u64))?;
        let (width, height) = match header.turn {
            Turn::NoTransforms | Turn::FlipHorizontal | Turn::FlipVertical | Turn::Rotate180 => {
                (header.width, header.height)
            }
            _ => (header.height, header.width),
        };
        let placement = preprocess.placement(width, height);
        let region = placement.region;
        let axis = |input, output, start, count| Axis { input, output, start, count };
        Some(Self {
            index,
            file,
            header,
            placement,
            columns: axis(width, placement.width, region.x, region.width),
            rows: axis(height, placement.height, region.y, region.height),
            far_from_square: preprocess.is_far_from_square(width, height),
        })
    }

    /// The resize of the image, whose stored pixels begin at `offset` of `pixels`.
    fn resize<'a>(
        &self,
        pixels: &'a Buffer,
        offset: usize,
        taps: &'a HashMap<Axis, xmore_cuda::Taps>,
    ) -> ResizeImage<'a> {
        let (first, right, down) =
            steps(self.header.turn, self.header.width as usize, self.header.height as usize);
        let pixels = xmore_cuda::Pixels::Device {
            buffer: pixels,
            offset: offset + first * 3,
            x_step: right * 3,
            y_step: down * 3,
        };
        ResizeImage {
            pixels,
            width: self.columns.input as usize,
            height: self.rows.input as usize,
            columns: &taps[&self.columns],
            rows: &taps[&self.rows],
            x: self.placement.x as usize,
            y: self.placement.y as usize,
        }
    }
}

/// Where the upright image's first pixel is in the stored one, and how far from a pixel to its right and lower neighbor: in pixels.
fn steps(turn: Turn, width: usize, height: usize) -> (usize, isize, isize) {
    let (row, last) = (width as isize, width * height - 1);
    match turn {
        Turn::NoTransforms => (0, 1, row),
        Turn::FlipHorizontal => (width - 1, -1, row),
        Turn::Rotate180 => (last, -1, -row),
        Turn::FlipVertical => (last + 1 - width, 1, -row),
        Turn::Rotate90FlipH => (0, row, 1),
        Turn::Rotate90 => (last + 1 - width, -row, 1),
        Turn::Rotate270FlipH => (last, -row, -1),
        Turn::Rotate270 => (width - 1, row, -1),
    }
}

/// Decodes batches of files. Its memory grows to the largest batch and is kept.
pub(super) struct FileDecoder {
    jpeg: JpegDecoder,
    resizer: Resizer,
    stream: Stream,
    /// `[3][256]`: what each byte becomes in each channel.
    table: Arc<Buffer>,
    spare: Arc<Mutex<Vec<Buffer>>>,
}

impl FileDecoder {
    pub(super) fn new(device: &xmore_cuda::Device, preprocess: &Preprocess) -> Result<Self, CudaError> {
        let limits = Limits { image_pixels: MAX_PIXELS, batch_pixels: MAX_PIXELS };
        Ok(Self {
            jpeg: JpegDecoder::new(device, rayon::current_num_threads(), limits)?,
            resizer: Resizer::new(device, preprocess.size() as usize, preprocess.fill_color())?,
            stream: Stream::new(device)?,
            table: Arc::new(Buffer::of(device, preprocess.normalized_bytes().as_flattened())?),
            spare: Arc::default(),
        })
    }

    /// Decodes and resizes what it can. Images that nvJPEG does not decode, and single images that do not fit the card, are left out.
    pub(super) fn decode(&mut self, planned: &Planned<'_>) -> Result<DecodedImages, CudaError> {
        let square = self.resizer.square_bytes();
        // By the number of files, so that a buffer suits the next batch, too.
        let squares = self.squares((planned.files + PADDING) * square)?;
        let mut done: Vec<&Plan> = Vec::with_capacity(planned.images.len());
        let mut portions: Vec<Vec<&Plan>> = vec![planned.images.iter().collect()];
        while let Some(portion) = portions.pop() {
            match self.portion(&portion, &planned.taps, &squares, done.len()) {
                Ok((decoded, rest)) => {
                    done.extend(decoded);
                    // Without progress they are the processor's.
                    portions.extend((!rest.is_empty() && rest.len() < portion.len()).then_some(rest));
                }
                Err(error) if error.is_out_of_memory() => {
                    if portion.len() > 1 {
                        let (first, second) = portion.split_at(portion.len() / 2);
                        portions.extend([second.to_vec(), first.to_vec()]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let file = |plan: &Plan| DecodedFile { index: plan.index, far_from_square: plan.far_from_square };
        let files = done.into_iter().map(file).collect();
        let (table, spare) = (Arc::clone(&self.table), Arc::clone(&self.spare));
        Ok(DecodedImages { files, square, squares: Some(squares), table, spare })
    }

    /// Decodes and resizes images to the squares from `first` on. Returns those that are done, and those beyond the limit of a batch.
    fn portion<'p, 'f>(
        &mut self,
        portion: &[&'p Plan<'f>],
        taps: &HashMap<Axis, xmore_cuda::Taps>,
        squares: &Buffer,
        first: usize,
    ) -> Result<(Vec<&'p Plan<'f>>, Vec<&'p Plan<'f>>), CudaError> {
        let files: Vec<&[u8]> = portion.iter().map(|plan| plan.file).collect();
        let results = self.jpeg.decode(&self.stream, &files)?;
        let (mut decoded, mut rest, mut images) = (Vec::new(), Vec::new(), Vec::new());
        for (&plan, result) in portion.iter().zip(results) {
            let expected = [plan.header.width, plan.header.height].map(|length| length as usize);
            match result {
                Ok(image) if [image.width, image.height] == expected => {
                    decoded.push(plan);
                    images.push(plan.resize(self.jpeg.pixels(), image.offset, taps));
                }
                Err(JpegError::BatchFull { .. }) => rest.push(plan),
                // Whatever it is, the processor's decoder says more of it.
                Ok(_) | Err(_) => {}
            }
        }
        self.resizer.resize_behind(&self.stream, &images, squares, first)?;
        self.stream.synchronize()?;
        Ok((decoded, rest))
    }

    /// A buffer of at least so many bytes.
    fn squares(&self, bytes: usize) -> Result<Buffer, CudaError> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        match spare.iter().position(|buffer| buffer.bytes() >= bytes) {
            Some(found) => Ok(spare.swap_remove(found)),
            None => {
                // Those that are too short are not needed again.
                spare.clear();
                Buffer::new(self.stream.device(), bytes)
            }
        }
    }
}

/// Images of files on a card: squares of bytes.
pub(crate) struct DecodedImages {
    /// Of each square.
    files: Vec<DecodedFile>,
    /// Bytes of a square.
    square: usize,
    squares: Option<Buffer>,
    table: Arc<Buffer>,
    spare: Arc<Mutex<Vec<Buffer>>>,
}

impl DecodedImages {
    /// The file of each image.
    pub(crate) fn files(&self) -> &[DecodedFile] {
        &self.files
    }

    /// Some of the images, and as many behind them that a pass has `count`; what stands there is of no use.
    pub(super) fn images(&self, range: Range<usize>, count: usize) -> Images {
        let squares = self.squares.as_ref().expect("there until it is dropped");
        assert!((range.start + count) * self.square <= squares.bytes(), "{count} images from {range:?}");
        Images {
            pointer: squares.pointer() + (range.start * self.square) as u64,
            count,
            table: self.table.pointer(),
        }
    }
}

/// How many images the pass of so many takes: few numbers, so that passes are recorded and products tuned for few.
pub(super) fn pass_size(count: usize) -> usize {
    count.next_power_of_two().min(count.next_multiple_of(PADDING))
}

impl Drop for DecodedImages {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MAX_SPARE {
            spare.extend(self.squares.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, RgbImage};

    use super::*;

    #[test]
    fn steps_reach_the_pixels_of_the_turned_image() {
        let (width, height) = (5usize, 3usize);
        let stored = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        for exif in 1..=8 {
            let turn = Turn::from_exif(exif).unwrap();
            let mut expected = DynamicImage::ImageRgb8(stored.clone());
            expected.apply_orientation(turn);
            let (first, right, down) = steps(turn, width, height);
            for (x, y, pixel) in expected.to_rgb8().enumerate_pixels() {
                let at = first as isize + x as isize * right + y as isize * down;
                let found = stored.get_pixel(at as u32 % 5, at as u32 / 5);
                assert_eq!(found, pixel, "{turn:?} at {x}, {y}");
            }
        }
    }

    #[test]
    fn passes_have_few_sizes_and_end_within_the_padding() {
        let sizes: HashSet<usize> = (1..=256).map(pass_size).collect();
        assert_eq!(sizes.len(), 13);
        assert!((1..=256).all(|count| (count..count + PADDING).contains(&pass_size(count))));
        assert_eq!([1, 3, 33, 256].map(pass_size), [1, 4, 64, 256]);
    }
}

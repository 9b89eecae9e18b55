//! Many images or texts to embeddings, a batch at a time; broken images are told apart.
//!
//! Reading, decoding and encoding overlap: a thread reads the files of the batch after next, and the pool, or the encoder's device, decodes the next batch
//! beside the encoder, so that neither disk nor decoder is waited for. Batches change no number.

mod read_ahead;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use rayon::prelude::*;
use xmore_clip::{DecodedFiles, Embeddings, Loaded, Pixels, TextEmbeddings};
use xmore_files::image::MAX_PIXELS;
use xmore_memory::ingest::{ImageReader, ImageRef};

use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::partly_seen::PartlySeen;
pub use read_ahead::GivenImage;
use read_ahead::{Content, Images, ReadAhead, ReadBatch};

/// Images that are decoded and encoded together: bounds memory.
pub(crate) const BATCH: usize = 32;
/// The same where an encoder's device decodes: it takes more to keep one busy.
const DEVICE_BATCH: usize = 256;
/// Texts that are encoded together.
const TEXT_BATCH: usize = 256;

/// The embeddings of the images that could be read.
#[derive(Debug)]
pub struct EncodedImages {
    /// Unit rows `[kept, dim]`.
    pub embeddings: Embeddings,
    /// For each row, the index of its file.
    pub kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub failed: Vec<(usize, XmoreError)>,
    /// How many were looked at only in part.
    pub partly_seen: PartlySeen,
}

/// Encodes image files in order. `progress` is told how many are done.
///
/// # Errors
/// Those of loading the image tower; a broken image is no error but counted in [`EncodedImages::failed`].
pub fn encode_files(
    model: &dyn Encoder,
    files: &[PathBuf],
    progress: &mut dyn FnMut(usize),
) -> Result<EncodedImages> {
    let (mut rows, mut kept, mut failed, mut partly_seen) =
        (Vec::new(), Vec::new(), Vec::new(), PartlySeen::default());
    encode_each(&[model], files, &|| false, &mut |batch| {
        rows.extend_from_slice(batch.embeddings[0].as_slice());
        kept.extend(batch.kept);
        failed.extend(batch.failed);
        partly_seen += batch.partly_seen;
        progress(batch.end);
        true
    })?;
    Ok(EncodedImages { embeddings: Embeddings::new(rows, model.dim()), kept, failed, partly_seen })
}

/// Consecutive files, encoded.
#[derive(Debug)]
pub struct EncodedBatch {
    /// Index of the first file behind the batch.
    pub end: usize,
    /// For each row, the index of its file.
    pub kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub failed: Vec<(usize, XmoreError)>,
    /// How many of the files were looked at only in part.
    pub partly_seen: PartlySeen,
    /// Unit rows `[kept, dim]` by each of the models.
    pub embeddings: Vec<Embeddings>,
}

/// Encodes image files in order by one or several models, and hands them over batch by batch: memory does not grow with their number.
/// `take` says whether to go on. `stop` is asked now and then whether to end before the next batch, also while a file is waited for.
///
/// # Errors
/// Those of loading the image towers; a broken image is no error but counted in [`EncodedBatch::failed`].
pub fn encode_each(
    models: &[&dyn Encoder],
    files: &[PathBuf],
    stop: &(dyn Fn() -> bool + Sync),
    take: &mut dyn FnMut(EncodedBatch) -> bool,
) -> Result<()> {
    each(models, Images::Files(files), stop, take)
}

/// The same for images wherever they are: in files, tars or tables.
///
/// # Errors
/// As [`encode_each`].
pub fn encode_refs(
    models: &[&dyn Encoder],
    images: &[ImageRef],
    stop: &(dyn Fn() -> bool + Sync),
    take: &mut dyn FnMut(EncodedBatch) -> bool,
) -> Result<()> {
    each(models, Images::Refs(images), stop, take)
}

/// The same for images that another thread hands over, in batches of at least one: how many are decoded and encoded together is its choice. The channel's
/// end is the images' end. An image's index counts from the first that was handed over.
///
/// # Errors
/// As [`encode_each`].
pub fn encode_given(
    models: &[&dyn Encoder],
    batches: Receiver<Vec<GivenImage>>,
    stop: &(dyn Fn() -> bool + Sync),
    take: &mut dyn FnMut(EncodedBatch) -> bool,
) -> Result<()> {
    each(models, Images::Given(batches), stop, take)
}

fn each(
    models: &[&dyn Encoder],
    images: Images<'_>,
    stop: &(dyn Fn() -> bool + Sync),
    take: &mut dyn FnMut(EncodedBatch) -> bool,
) -> Result<()> {
    struct Each<'a>(&'a mut dyn FnMut(EncodedBatch) -> bool);
    impl Sink for Each<'_> {
        fn take(&mut self, batch: Batch, images: Embeddings, _: TextEmbeddings) -> Result<bool> {
            let Batch { end, kept, failed, partly_seen, others, .. } = batch;
            let embeddings = std::iter::once(images).chain(others).collect();
            Ok((self.0)(EncodedBatch { end, kept, failed, partly_seen, embeddings }))
        }
    }
    let Some((&model, others)) = models.split_first() else { return Ok(()) };
    run(&Encoders { model, others }, images, stop, &mut Each(take))
}

/// What becomes of batches of images, in their order.
pub(crate) trait Sink {
    /// Texts to be encoded together with a batch of images.
    fn texts(&mut self, _batch: &Batch) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Takes a batch with the embeddings of the images that could be read and of the texts; says whether to go on.
    fn take(&mut self, batch: Batch, images: Embeddings, texts: TextEmbeddings) -> Result<bool>;
}

/// Consecutive images, decoded.
pub(crate) struct Batch {
    /// Index of the first image behind it.
    pub end: usize,
    /// Indices of the images that could be read.
    pub kept: Vec<usize>,
    /// Indices of the others, and why.
    pub failed: Vec<(usize, XmoreError)>,
    /// How many were looked at only in part.
    pub partly_seen: PartlySeen,
    /// Embeddings by the encoders beside the first.
    others: Vec<Embeddings>,
}

/// Encodes images in order and hands them to `sink` batch by batch.
///
/// # Errors
/// Those of loading the towers, and the sink's.
pub(crate) fn encode_images(model: &dyn Encoder, images: &[ImageRef], sink: &mut dyn Sink) -> Result<()> {
    run(&Encoders { model, others: &[] }, Images::Refs(images), &|| false, sink)
}

/// The models that encode the same images.
struct Encoders<'a> {
    model: &'a dyn Encoder,
    others: &'a [&'a dyn Encoder],
}

impl<'a> Encoders<'a> {
    fn all(&self) -> impl Iterator<Item = &'a dyn Encoder> {
        std::iter::once(self.model).chain(self.others.iter().copied())
    }
}

/// A batch's images for one encoder.
struct Prepared<'m> {
    /// Those that its device decoded, of which some may not be kept.
    on_device: Option<DecodedFiles<'m>>,
    /// The others.
    pixels: Vec<Pixels>,
    /// For each image that is kept, its row among those of the device; `None` of the others.
    rows: Vec<Option<usize>>,
}

impl Prepared<'_> {
    /// Unit rows of the images that are kept.
    fn encode(&self, model: &dyn Encoder) -> Result<Embeddings> {
        let others = encode_pixels(model, &self.pixels)?;
        let Some(on_device) = &self.on_device else { return Ok(others) };
        Ok(merged(&on_device.encode()?, &others, &self.rows))
    }
}

/// For each of `rows` that row of `on_device`, or where there is none the next of the others.
fn merged(on_device: &Embeddings, others: &Embeddings, rows: &[Option<usize>]) -> Embeddings {
    let dim = others.dim();
    let mut others = others.rows();
    let row = |row: &Option<usize>| match row {
        Some(row) => Some(on_device.row(*row)),
        None => others.next(),
    };
    let rows: Vec<&[f32]> = rows.iter().filter_map(row).collect();
    Embeddings::new(rows.concat(), dim)
}

/// One image as it was prepared for one encoder.
enum Image {
    /// By its device: the row, and whether the image is far from a square.
    OnDevice(usize, bool),
    Loaded(Loaded),
}

impl Image {
    fn is_first_of_several(&self) -> bool {
        matches!(self, Self::Loaded(loaded) if loaded.first_of_several)
    }

    fn is_far_from_square(&self) -> bool {
        match self {
            Self::OnDevice(_, far_from_square) => *far_from_square,
            Self::Loaded(loaded) => loaded.far_from_square,
        }
    }
}

fn run(
    encoders: &Encoders<'_>,
    images: Images<'_>,
    stop: &(dyn Fn() -> bool + Sync),
    sink: &mut dyn Sink,
) -> Result<()> {
    let on_device = encoders.all().any(|model| model.decodes_files());
    let mut ahead = ReadAhead::start(images, if on_device { DEVICE_BATCH } else { BATCH })?;
    let mut next = decode_next(encoders, ahead.next(stop))?;
    while let Some((mut batch, prepared)) = next {
        let texts = sink.texts(&batch)?;
        let (encoded, following) = rayon::join(
            || {
                let mut by_model = Vec::with_capacity(prepared.len());
                for (model, prepared) in encoders.all().zip(prepared) {
                    by_model.push(prepared.encode(model)?);
                }
                Ok::<_, XmoreError>((by_model, encode_texts(encoders.model, &texts, &mut |_| {})?))
            },
            || decode_next(encoders, ahead.next(stop)),
        );
        let (mut by_model, texts) = encoded?;
        batch.others = by_model.split_off(1);
        let Some(images) = by_model.pop() else { break };
        if !sink.take(batch, images, texts)? {
            break;
        }
        next = following?;
    }
    Ok(())
}

/// Decodes what was read for each encoder; an image is kept if all of them can use it.
fn decode_next<'m>(
    encoders: &Encoders<'m>,
    read: Option<ReadBatch>,
) -> Result<Option<(Batch, Vec<Prepared<'m>>)>> {
    let Some(read) = read else { return Ok(None) };
    let end = read.last().map_or(0, |(i, ..)| i + 1);
    let on_device = encoders.all().map(|model| decode_on_device(model, &read)).collect::<Result<Vec<_>>>()?;
    let decode = |n: usize, content: &Content, name: &Path| -> Result<Vec<Image>> {
        let prepare = |(model, (_, places)): (&dyn Encoder, &(_, HashMap<usize, _>))| match places.get(&n) {
            Some(&(row, far_from_square)) => Ok(Image::OnDevice(row, far_from_square)),
            None => Ok(Image::Loaded(content.load(model, name)?)),
        };
        encoders.all().zip(&on_device).map(prepare).collect()
    };
    let decoded: Vec<_> = read
        .into_par_iter()
        .enumerate()
        .map(|(n, (i, content, name))| (i, content.and_then(|content| decode(n, &content, &name))))
        .collect();
    let empty = |(on_device, _)| Prepared { on_device, pixels: Vec::new(), rows: Vec::new() };
    let mut prepared: Vec<Prepared> = on_device.into_iter().map(empty).collect();
    let (kept, failed, others) = (Vec::new(), Vec::new(), Vec::new());
    let mut batch = Batch { end, kept, failed, partly_seen: PartlySeen::default(), others };
    for (i, result) in decoded {
        match result {
            Ok(images) => {
                batch.kept.push(i);
                batch.partly_seen.count(
                    images.iter().any(Image::is_first_of_several),
                    images.iter().any(Image::is_far_from_square),
                );
                for (prepared, image) in prepared.iter_mut().zip(images) {
                    match image {
                        Image::OnDevice(row, _) => prepared.rows.push(Some(row)),
                        Image::Loaded(loaded) => {
                            prepared.rows.push(None);
                            prepared.pixels.push(loaded.pixels);
                        }
                    }
                }
            }
            Err(error) => batch.failed.push((i, error)),
        }
    }
    Ok(Some((batch, prepared)))
}

/// Images that an encoder's device decoded, and for each file's place in the batch its row and whether it is far from a square.
type OnDevice<'m> = (Option<DecodedFiles<'m>>, HashMap<usize, (usize, bool)>);

/// Decodes those files that the encoder's device can.
fn decode_on_device<'m>(model: &'m dyn Encoder, read: &ReadBatch) -> Result<OnDevice<'m>> {
    if !model.decodes_files() {
        return Ok((None, HashMap::new()));
    }
    let readable =
        read.iter().enumerate().filter_map(|(n, (_, content, _))| Some((n, content.as_ref().ok()?.file()?)));
    let (places, files): (Vec<usize>, Vec<&[u8]>) = readable.unzip();
    let decoded = model.decode_files(&files)?;
    let rows = decoded.iter().flat_map(DecodedFiles::files).enumerate();
    let rows = rows.map(|(row, file)| (places[file.index], (row, file.far_from_square))).collect();
    Ok((decoded, rows))
}

/// Checks that an image can be read and decoded.
///
/// # Errors
/// Why not.
pub(crate) fn check_readable(model: &dyn Encoder, reader: &ImageReader, image: &ImageRef) -> Result<()> {
    let bytes = reader.read(image)?;
    model.load(&bytes, &PathBuf::from(image.to_string()), MAX_PIXELS)?;
    Ok(())
}

fn encode_pixels(model: &dyn Encoder, pixels: &[Pixels]) -> Result<Embeddings> {
    // Without an image the tower need not even be loaded.
    if pixels.is_empty() { Ok(Embeddings::new(Vec::new(), model.dim())) } else { model.embed_images(pixels) }
}

/// Encodes texts in order. `progress` is told how many are done.
///
/// # Errors
/// Those of [`xmore_clip::Model::encode_texts`].
pub fn encode_texts<S: AsRef<str> + Sync>(
    model: &dyn Encoder,
    texts: &[S],
    progress: &mut dyn FnMut(usize),
) -> Result<TextEmbeddings> {
    let mut rows = Vec::with_capacity(texts.len() * model.dim());
    let (mut truncated, mut done) = (0, 0);
    for batch in texts.chunks(TEXT_BATCH) {
        let batch: Vec<&str> = batch.iter().map(AsRef::as_ref).collect();
        let encoded = model.embed_texts(&batch)?;
        rows.extend_from_slice(encoded.embeddings.as_slice());
        truncated += encoded.truncated;
        done += batch.len();
        progress(done);
    }
    Ok(TextEmbeddings { embeddings: Embeddings::new(rows, model.dim()), truncated })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::NamedModel;

    /// The tiny model, and files of which every seventh is no picture.
    fn files(dir: &Path, count: usize) -> (NamedModel, Vec<PathBuf>) {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../xmore-clip/tests/fixtures");
        let model = NamedModel::open(&format!("local-dir:{fixtures}/tiny")).unwrap();
        let picture = |i: usize| {
            let name = ["wide.png", "grey.png", "large.png", "tall.png"][i % 4];
            std::fs::read(format!("{fixtures}/images/{name}")).unwrap()
        };
        let write = |i: usize| {
            let path = dir.join(format!("{i}.png"));
            std::fs::write(&path, if i % 7 == 3 { b"no picture".to_vec() } else { picture(i) }).unwrap();
            path
        };
        (model, (0..count).map(write).collect())
    }

    #[test]
    fn batches_have_the_rows_of_all_files_by_every_model() {
        let dir = tempfile::tempdir().unwrap();
        let (model, files) = files(dir.path(), 3 * BATCH + 5);
        let whole = encode_files(&model, &files, &mut |_| {}).unwrap();
        assert_eq!(whole.kept.len() + whole.failed.len(), files.len());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (mut kept, mut failed, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        encode_each(&[&model, &model], &files, &|| false, &mut |batch| {
            first.extend_from_slice(batch.embeddings[0].as_slice());
            second.extend_from_slice(batch.embeddings[1].as_slice());
            kept.extend(batch.kept);
            failed.extend(batch.failed.into_iter().map(|(i, _)| i));
            ends.push(batch.end);
            true
        })
        .unwrap();
        assert_eq!((&first[..], &second[..]), (whole.embeddings.as_slice(), whole.embeddings.as_slice()));
        assert_eq!(kept, whole.kept);
        assert_eq!(failed, whole.failed.iter().map(|(i, _)| *i).collect::<Vec<_>>());
        assert_eq!(ends, [BATCH, 2 * BATCH, 3 * BATCH, files.len()]);
    }

    #[test]
    fn images_that_are_handed_over_have_the_rows_of_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (model, files) = files(dir.path(), 50);
        let whole = encode_files(&model, &files, &mut |_| {}).unwrap();
        let given = |(i, path): (usize, &PathBuf)| match i % 3 {
            0 => GivenImage::Path(path.clone()),
            1 => GivenImage::Bytes { bytes: std::fs::read(path).unwrap(), name: path.clone() },
            _ => match image::open(path) {
                Ok(pixels) => GivenImage::Pixels(pixels.to_rgb8()),
                Err(_) => GivenImage::Path(path.clone()),
            },
        };
        let images: Vec<GivenImage> = files.iter().enumerate().map(given).collect();
        let (send, batches) = sync_channel(1);
        let (mut rows, mut kept, mut failed, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(move || images.chunks(7).for_each(|batch| send.send(batch.to_vec()).unwrap()));
            encode_given(&[&model], batches, &|| false, &mut |batch| {
                rows.extend_from_slice(batch.embeddings[0].as_slice());
                kept.extend(batch.kept);
                failed.extend(batch.failed.into_iter().map(|(i, _)| i));
                ends.push(batch.end);
                true
            })
            .unwrap();
        });
        assert_eq!(rows, whole.embeddings.as_slice());
        assert_eq!(kept, whole.kept);
        assert_eq!(failed, whole.failed.iter().map(|(i, _)| *i).collect::<Vec<_>>());
        assert_eq!(ends, [7, 14, 21, 28, 35, 42, 49, 50]);
    }

    #[test]
    fn rows_of_the_device_and_the_processor_are_put_in_the_images_order() {
        let on_device = Embeddings::new(vec![10.0, 11.0, 20.0, 21.0, 30.0, 31.0], 2);
        let others = Embeddings::new(vec![1.0, 2.0, 3.0, 4.0], 2);
        // The second row of the device is of an image that is not kept.
        let found = merged(&on_device, &others, &[Some(2), None, Some(0), None]);
        assert_eq!(found.as_slice(), [30.0, 31.0, 1.0, 2.0, 10.0, 11.0, 3.0, 4.0]);
        let none = Embeddings::new(Vec::new(), 2);
        assert_eq!(merged(&on_device, &none, &[Some(1)]).as_slice(), [20.0, 21.0]);
        assert_eq!(merged(&none, &others, &[None, None]).as_slice(), others.as_slice());
    }

    #[test]
    fn it_ends_where_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let (model, files) = files(dir.path(), 3 * BATCH);
        let mut ends = Vec::new();
        encode_each(&[&model], &files, &|| false, &mut |batch| {
            ends.push(batch.end);
            false
        })
        .unwrap();
        assert_eq!(ends, [BATCH]);
        let taken = Cell::new(0);
        encode_each(&[&model], &files, &|| true, &mut |_| {
            taken.set(taken.get() + 1);
            true
        })
        .unwrap();
        assert_eq!(taken.get(), 0);
        // Also while nothing is handed over.
        let (send, batches) = sync_channel(1);
        encode_given(&[&model], batches, &|| true, &mut |_| unreachable!("nothing was handed over")).unwrap();
        drop(send);
    }
}

//! Features of Flickr8k from our own engine, kept on disk between runs.

use std::borrow::Cow;
use std::error::Error;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use image::RgbImage;
use image::imageops::{crop_imm, flip_horizontal};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use xmore::NamedModel;
use xmore_clip::ClipError;
use xmore_files::image::{DecodeOptions, Orientation, decode_file};
use xmore_memory::ingest::{InputFormat, Source, SourceOptions};

/// Photos held out of training, to measure retrieval on.
const HELD_OUT: usize = 1000;
/// Seed of the held-out photos: they are those with the smallest SHA-256 of "{seed}/{file name}".
const SPLIT_SEED: u32 = 0;

/// Which photos of Flickr8k are used. The others take part in nothing: neither in training nor in the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Photos {
    /// All photos
    All,
    /// Photos whose file name has a SHA-256 that begins with an even byte (about half): the others can then be a memory of photos
    /// that the heads were not trained on
    EvenHash,
}

impl Photos {
    fn include(self, file: &Path) -> bool {
        match self {
            Self::All => true,
            Self::EvenHash => Sha256::digest(file_name(file).as_bytes())[0].is_multiple_of(2),
        }
    }
}

/// Flickr8k: photos, captions, and which photo a caption is of.
pub struct Pairs {
    /// Image features of the photos as they are and in other [`View`]s, `[photos, width]` each.
    pub images: Vec<Array2<f32>>,
    /// Text features of the captions, `[captions, width]`.
    pub captions: Array2<f32>,
    /// For each caption, its photo.
    pub photo: Vec<usize>,
    /// Photos that are not trained on, in order.
    pub held_out: Vec<usize>,
}

impl Pairs {
    /// For each photo, whether it is held out.
    pub fn is_held_out(&self) -> Vec<bool> {
        let mut held = vec![false; self.images[0].nrows()];
        self.held_out.iter().for_each(|&photo| held[photo] = true);
        held
    }
}

/// Extracts or reads the features of Flickr8k, and keeps those of the photos that are used.
pub fn flickr(model: &NamedModel, csv: &Path, photos: Photos, cache: &Path) -> Result<Pairs, Box<dyn Error>> {
    let pairs = Source::detect(csv, InputFormat::Table, &SourceOptions::default())?.read()?.pairs;
    let files: Vec<PathBuf> = pairs.iter().map(|pair| PathBuf::from(pair.image.to_string())).collect();
    let texts: Vec<&str> = pairs.iter().flat_map(|pair| &pair.captions).map(String::as_str).collect();
    let used: Vec<usize> = (0..files.len()).filter(|&n| photos.include(&files[n])).collect();
    // For each caption that is used, its row among all captions and the place of its photo among those used.
    let (mut rows, mut photo, mut first) = (Vec::new(), Vec::new(), 0);
    for (n, pair) in pairs.iter().enumerate() {
        let captions = first..first + pair.captions.len();
        first = captions.end;
        if let Ok(place) = used.binary_search(&n) {
            photo.extend(captions.clone().map(|_| place));
            rows.extend(captions);
        }
    }
    // Always of all photos, so that one cache serves every choice.
    let mut images = Vec::new();
    for view in View::ALL {
        let name = format!("flickr8k-{view:?}").to_lowercase();
        images.push(cached_images(model, cache, &name, &files, view)?.select(Axis(0), &used));
    }
    let captions = cached_texts(model, cache, "flickr8k-captions", &texts)?.select(Axis(0), &rows);
    let is_held_out = held_out(&files);
    let held_out = (0..used.len()).filter(|&place| is_held_out[used[place]]).collect();
    Ok(Pairs { images, captions, photo, held_out })
}

/// For each photo, whether it is held out.
fn held_out(files: &[PathBuf]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_cached_key(|&n| Sha256::digest(format!("{SPLIT_SEED}/{}", file_name(&files[n]))));
    let mut held = vec![false; files.len()];
    order.iter().take(HELD_OUT).for_each(|&n| held[n] = true);
    held
}

fn file_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// A photo as it is, or changed: augmentation that is made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Plain,
    Mirrored,
    /// A random part of at least a third of the area, mirrored half of the time.
    CropA,
    /// Another such part.
    CropB,
}

impl View {
    const ALL: [View; 4] = [View::Plain, View::Mirrored, View::CropA, View::CropB];

    fn of(self, image: RgbImage, n: usize) -> RgbImage {
        match self {
            View::Plain => image,
            View::Mirrored => flip_horizontal(&image),
            View::CropA => crop(&image, 2 * n as u64),
            View::CropB => crop(&image, 2 * n as u64 + 1),
        }
    }
}

fn crop(image: &RgbImage, seed: u64) -> RgbImage {
    let mut rng = fastrand::Rng::with_seed(seed);
    let area = (1.0 / 3.0 + 2.0 / 3.0 * rng.f64()).sqrt();
    // Between 3 : 4 and 4 : 3.
    let stretch = ((2.0 * rng.f64() - 1.0) * (4f64 / 3.0).ln() / 2.0).exp();
    let side = |length: u32, factor: f64| ((f64::from(length) * factor) as u32).clamp(1, length);
    let (width, height) = (side(image.width(), area * stretch), side(image.height(), area / stretch));
    let (x, y) = (rng.u32(0..=image.width() - width), rng.u32(0..=image.height() - height));
    let part = crop_imm(image, x, y, width, height).to_image();
    if rng.bool() { flip_horizontal(&part) } else { part }
}

/// Image features `[files, width]` of one view, from the cache where they are there.
pub fn cached_images(
    model: &NamedModel,
    cache: &Path,
    name: &str,
    files: &[PathBuf],
    view: View,
) -> Result<Array2<f32>, Box<dyn Error>> {
    cached(cache, model.tower_names()[0], name, || images(model, files, view))
}

/// Text features `[texts, width]`, from the cache where they are there.
pub fn cached_texts(
    model: &NamedModel,
    cache: &Path,
    name: &str,
    all: &[&str],
) -> Result<Array2<f32>, Box<dyn Error>> {
    cached(cache, model.tower_names()[1], name, || texts(model, all))
}

fn images(model: &NamedModel, files: &[PathBuf], view: View) -> Result<Array2<f32>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (part, batch) in files.chunks(64).enumerate() {
        let prepared = batch.par_iter().enumerate().map(|(n, file)| {
            let options = DecodeOptions::with_orientation(Orientation::Stored);
            let decoded = decode_file(file, model.preprocess().alpha(), &options)
                .map_err(|source| ClipError::Image { path: file.clone(), source })?;
            let image = decoded.into_image();
            Ok(model.preprocess().prepare(&view.of(image, part * 64 + n)))
        });
        let pixels = prepared.collect::<xmore_clip::Result<Vec<_>>>()?;
        rows.extend_from_slice(model.image_features(&pixels)?.as_slice());
        if part % 16 == 0 {
            eprintln!("{} of {} images", part * 64, files.len());
        }
    }
    let width = rows.len() / files.len();
    Ok(Array2::from_shape_vec((files.len(), width), rows)?)
}

/// Text features `[texts, width]`.
pub fn texts(model: &NamedModel, texts: &[&str]) -> Result<Array2<f32>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (n, batch) in texts.chunks(512).enumerate() {
        rows.extend_from_slice(model.text_features(batch)?.0.as_slice());
        if n % 16 == 0 {
            eprintln!("{} of {} texts", n * 512, texts.len());
        }
    }
    let width = rows.len() / texts.len();
    Ok(Array2::from_shape_vec((texts.len(), width), rows)?)
}

/// Reads a tower's table from the cache, or makes it and puts it there. The tower's files and the inputs are taken to be the same every
/// time: remove the folder when they change.
fn cached(
    cache: &Path,
    tower: &str,
    name: &str,
    make: impl FnOnce() -> Result<Array2<f32>, Box<dyn Error>>,
) -> Result<Array2<f32>, Box<dyn Error>> {
    let path = cache.join(format!("{}-{name}.safetensors", tower.replace(['/', '\\'], "-")));
    if path.is_file() {
        return read_table(&std::fs::read(&path)?, "rows");
    }
    let table = make()?;
    std::fs::create_dir_all(cache)?;
    let bytes: Vec<u8> = table.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, table.shape().to_vec(), &bytes)?;
    safetensors::serialize_to_file([("rows", view)], None, &path)?;
    Ok(table)
}

fn read_table(bytes: &[u8], name: &str) -> Result<Array2<f32>, Box<dyn Error>> {
    let all = SafeTensors::deserialize(bytes)?;
    let tensor = all.tensor(name)?;
    let values: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let &[rows, width] = tensor.shape() else { return Err("expected a table".into()) };
    Ok(ArrayView2::from_shape((rows, width), &values)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_of_photos_goes_by_the_hash_of_the_plain_file_name() {
        // `printf %s NAME | sha256sum` begins with 32 and 93.
        let (even, odd) = ("1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg");
        for folder in ["", "photos/", "/somewhere/else/"] {
            assert!(Photos::EvenHash.include(Path::new(&format!("{folder}{even}"))));
            assert!(!Photos::EvenHash.include(Path::new(&format!("{folder}{odd}"))));
            assert!(Photos::All.include(Path::new(&format!("{folder}{odd}"))));
        }
    }
}

//! Images as Python programs hold them: paths, bytes, file objects, PIL images and arrays.
//!
//! PIL, torch and the like are never imported: what an object is shows in its attributes.

use std::path::PathBuf;

use image::metadata::Orientation as Turn;
use image::{DynamicImage, RgbImage};
use numpy::{PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray3, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyException, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyIterator, PyMemoryView, PyString, PyTuple};
use xmore::{Encoder, GivenImage, NamedModel, Orientation};
use xmore_files::image::{Alpha, Layout, MAX_PIXELS, MAX_SIDE, Samples, to_rgb};

use crate::errors::classes::ImageError;

/// What an image has to be.
const EXPECTED: &str =
    "a path, bytes, a file object, a PIL image, or a uint8 array of shape [height, width, 3]";
/// The tag of the orientation in Exif data.
const EXIF_ORIENTATION: u16 = 0x112;

/// How the model that images are for takes them.
#[derive(Clone, Copy)]
pub(crate) struct ImageOptions {
    alpha: Alpha,
    orientation: Orientation,
}

impl ImageOptions {
    pub(crate) fn of(model: &NamedModel) -> Self {
        Self { alpha: model.preprocess().alpha(), orientation: model.orientation() }
    }
}

/// Why an object gives no image.
pub(crate) enum NoImage {
    /// It is an image, but cannot be read.
    Unreadable(PyErr),
    /// It is none: the program's mistake.
    Argument(PyErr),
}

impl From<NoImage> for PyErr {
    fn from(error: NoImage) -> Self {
        match error {
            NoImage::Unreadable(error) | NoImage::Argument(error) => error,
        }
    }
}

/// The kinds of objects, by what they have.
enum Kind {
    Path,
    Bytes,
    Pil,
    File,
    /// With `__array_interface__`.
    Array,
    /// With `__dlpack__`.
    DlPack,
}

impl Kind {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = object.py();
        let has = |name: &Bound<'_, PyString>| object.hasattr(name);
        Ok(Some(if object.is_instance_of::<PyString>() || has(intern!(py, "__fspath__"))? {
            Self::Path
        } else if is_bytes(object) {
            Self::Bytes
        } else if has(intern!(py, "getexif"))? && has(intern!(py, "convert"))? {
            Self::Pil
        } else if has(intern!(py, "__array_interface__"))? {
            Self::Array
        } else if has(intern!(py, "__dlpack__"))? {
            Self::DlPack
        } else if has(intern!(py, "read"))? {
            Self::File
        } else {
            return Ok(None);
        }))
    }
}

fn is_bytes(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyBytes>()
        || object.is_instance_of::<PyByteArray>()
        || object.is_instance_of::<PyMemoryView>()
}

/// Images that were handed over: one, or several to go through.
pub(crate) struct Images<'py> {
    pub(crate) items: Bound<'py, PyIterator>,
    /// How many, where that is known.
    pub(crate) len: Option<usize>,
    /// Whether it is one image, not a list of one.
    pub(crate) single: bool,
}

impl<'py> Images<'py> {
    /// Tells one image from several: an array of four dimensions is several, one of three is an image.
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let single = match Kind::of(object)? {
            None => false,
            Some(Kind::Array | Kind::DlPack) => !is_of_several(object)?,
            Some(_) => true,
        };
        if single {
            let items = PyTuple::new(object.py(), [object])?.try_iter()?;
            return Ok(Self { items, len: Some(1), single });
        }
        let items = object.try_iter().map_err(|_| not_an_image(object, "images"))?;
        // Generators have no length.
        Ok(Self { items, len: object.len().ok(), single })
    }
}

/// Whether an array is one of images or of objects, such as paths.
fn is_of_several(array: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = array.py();
    let dimensions = array.getattr_opt(intern!(py, "ndim"))?.and_then(|ndim| ndim.extract::<usize>().ok());
    let kind = array.getattr_opt(intern!(py, "dtype"))?.and_then(|dtype| dtype.getattr("kind").ok());
    let kind = kind.and_then(|kind| kind.extract::<String>().ok());
    Ok(dimensions == Some(4) || kind.is_some_and(|kind| matches!(kind.as_str(), "O" | "U" | "S")))
}

fn not_an_image(object: &Bound<'_, PyAny>, what: &str) -> PyErr {
    let found = object.get_type().fully_qualified_name();
    let found = found.map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    let expected = if what == "images" {
        format!("images: {EXPECTED}, or several of them")
    } else {
        EXPECTED.to_owned()
    };
    PyTypeError::new_err(format!("expected {expected}; found {found}"))
}

/// Reads an object as an image. `name` stands for it in errors where it has no name of its own.
pub(crate) fn read(
    object: &Bound<'_, PyAny>,
    name: &str,
    options: ImageOptions,
) -> Result<GivenImage, NoImage> {
    let bytes = |bytes: Vec<u8>| GivenImage::Bytes { bytes, name: PathBuf::from(name) };
    match Kind::of(object).map_err(NoImage::Argument)? {
        None => Err(NoImage::Argument(not_an_image(object, "image"))),
        Some(Kind::Path) => Ok(GivenImage::Path(object.extract().map_err(NoImage::Argument)?)),
        Some(Kind::Bytes) => Ok(bytes(bytes_of(object).map_err(NoImage::Argument)?)),
        Some(Kind::File) => Ok(bytes(contents(object)?)),
        Some(Kind::Pil) => pil(object, name, options).map(GivenImage::Pixels),
        Some(Kind::Array) => array(object, name).map(GivenImage::Pixels).map_err(NoImage::Argument),
        Some(Kind::DlPack) => {
            let numpy = object.py().import("numpy").map_err(NoImage::Argument)?;
            let view = numpy.call_method1("from_dlpack", (object,)).map_err(NoImage::Argument)?;
            array(&view, name).map(GivenImage::Pixels).map_err(NoImage::Argument)
        }
    }
}

fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match object.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => {
            let bytes = object.py().get_type::<PyBytes>().call1((object,))?;
            Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
        }
    }
}

/// What a file object holds from where it stands to its end.
fn contents(file: &Bound<'_, PyAny>) -> Result<Vec<u8>, NoImage> {
    let read = file.call_method0(intern!(file.py(), "read")).map_err(unreadable)?;
    if !is_bytes(&read) {
        let message = "expected a file object that is opened in binary mode, whose `read` gives bytes";
        return Err(NoImage::Argument(PyTypeError::new_err(message)));
    }
    bytes_of(&read).map_err(NoImage::Argument)
}

/// An error of another library on an image that it cannot read. What is no `Exception`, such as Ctrl-C, is none of the image's.
fn unreadable(error: PyErr) -> NoImage {
    Python::attach(|py| match error.is_instance_of::<PyException>(py) {
        true => NoImage::Unreadable(error),
        false => NoImage::Argument(error),
    })
}

/// A PIL image's pixels, which are those that its file is decoded to: upright, as the model treats transparency.
fn pil(image: &Bound<'_, PyAny>, name: &str, options: ImageOptions) -> Result<RgbImage, NoImage> {
    let py = image.py();
    let mode: String = image.getattr("mode").and_then(|mode| mode.extract()).map_err(NoImage::Argument)?;
    let size = image.getattr("size").and_then(|size| size.extract::<(u32, u32)>());
    let (width, height) = size.map_err(NoImage::Argument)?;
    check_size(u64::from(width), u64::from(height), name).map_err(NoImage::Argument)?;
    let (mode, layout) = match mode.as_str() {
        // Pillow cuts these at 255; a file's high byte is taken.
        "I;16" | "I;16L" | "I;16B" | "I;16N" => {
            (mode.as_str(), Layout { channels: 1, samples: Samples::U16 })
        }
        "I" | "F" => {
            let message = format!(
                "{name}: a PIL image of mode {mode} has no fixed range of values; expected another mode: convert it to L or RGB"
            );
            return Err(NoImage::Argument(PyValueError::new_err(message)));
        }
        // Also where transparency is dropped: Pillow warns of palettes with transparency that become RGB at once.
        _ if has_alpha(image, &mode).map_err(unreadable)? => {
            ("RGBA", Layout { channels: 4, samples: Samples::U8 })
        }
        _ => ("RGB", Layout { channels: 3, samples: Samples::U8 }),
    };
    let converted = match layout.samples {
        Samples::U16 => image.clone(),
        _ => image.call_method1(intern!(py, "convert"), (mode,)).map_err(unreadable)?,
    };
    let bytes = converted.call_method0(intern!(py, "tobytes")).map_err(unreadable)?;
    let mut bytes = bytes_of(&bytes).map_err(NoImage::Argument)?;
    if layout.samples == Samples::U16 {
        // In the machine's order, as rows of files are.
        let big = mode == "I;16B" || mode == "I;16N" && cfg!(target_endian = "big");
        if big != cfg!(target_endian = "big") {
            bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|sample| sample.reverse());
        }
    }
    let pixels = match layout.channels {
        3 => bytes,
        _ => {
            let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
            to_rgb(&bytes, layout, options.alpha, &mut pixels);
            pixels
        }
    };
    let found = pixels.len();
    let pixels = RgbImage::from_raw(width, height, pixels).filter(|pixels| pixels.as_raw().len() == found);
    let pixels = pixels.ok_or_else(|| {
        let message = format!("{name}: expected {width}x{height} pixels, found {found} bytes of RGB");
        NoImage::Unreadable(ImageError::new_err(message))
    })?;
    match options.orientation {
        Orientation::Stored => Ok(pixels),
        Orientation::Exif => Ok(turned(pixels, exif_orientation(image).map_err(unreadable)?)),
    }
}

fn has_alpha(image: &Bound<'_, PyAny>, mode: &str) -> PyResult<bool> {
    let of_mode = matches!(mode, "RGBA" | "LA" | "PA" | "La" | "RGBa");
    Ok(of_mode || image.getattr("info")?.contains("transparency")?)
}

fn exif_orientation(image: &Bound<'_, PyAny>) -> PyResult<Turn> {
    let exif = image.call_method0(intern!(image.py(), "getexif"))?;
    let value = exif.call_method1(intern!(image.py(), "get"), (EXIF_ORIENTATION,))?;
    // A damaged value is none, as in a file.
    Ok(value.extract::<u8>().ok().and_then(Turn::from_exif).unwrap_or(Turn::NoTransforms))
}

fn turned(pixels: RgbImage, turn: Turn) -> RgbImage {
    if turn == Turn::NoTransforms {
        return pixels;
    }
    let mut image = DynamicImage::ImageRgb8(pixels);
    image.apply_orientation(turn);
    image.into_rgb8()
}

/// The pixels of an array, or of an object that numpy makes one of without a copy.
fn array(object: &Bound<'_, PyAny>, name: &str) -> PyResult<RgbImage> {
    let py = object.py();
    let array = py.import("numpy")?.call_method1("asarray", (object,))?;
    let array = array.cast::<PyUntypedArray>()?;
    let pixels = array.cast::<numpy::PyArray3<u8>>().ok().filter(|_| array.shape().get(2) == Some(&3));
    let Some(pixels) = pixels else {
        let (dtype, shape) = (array.dtype(), array.shape());
        let message = format!(
            "{name}: expected a uint8 array of shape [height, width, 3], found {dtype} of shape {shape:?}"
        );
        let is_bytes = dtype.is_equiv_to(&numpy::dtype::<u8>(py));
        return Err(if is_bytes { PyValueError::new_err(message) } else { PyTypeError::new_err(message) });
    };
    let pixels: PyReadonlyArray3<'_, u8> = pixels.try_readonly()?;
    let pixels = pixels.as_array();
    let (height, width) = (pixels.shape()[0], pixels.shape()[1]);
    check_size(width as u64, height as u64, name)?;
    let values = match pixels.as_slice() {
        Some(values) => values.to_vec(),
        None => pixels.iter().copied().collect(),
    };
    RgbImage::from_raw(width as u32, height as u32, values)
        .ok_or_else(|| PyValueError::new_err(format!("{name}: expected {width}x{height} pixels")))
}

/// The limits of files' sizes, which are those of all images.
fn check_size(width: u64, height: u64, name: &str) -> PyResult<()> {
    if width == 0 || height == 0 {
        return Err(PyValueError::new_err(format!(
            "{name}: expected an image of at least one pixel, found {width}x{height}"
        )));
    }
    if width.max(height) > u64::from(MAX_SIDE) || width * height > MAX_PIXELS {
        let message = format!(
            "{name}: {width}x{height} pixels, at most {MAX_PIXELS} are taken and {MAX_SIDE} along a side"
        );
        return Err(PyValueError::new_err(message));
    }
    Ok(())
}

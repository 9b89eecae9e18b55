//! The libraries' errors as Python's: the one place that says which class an error becomes.

use std::io;
use std::path::Path;

use pyo3::exceptions::{
    PyConnectionError, PyFileExistsError, PyFileNotFoundError, PyIndexError, PyKeyboardInterrupt, PyOSError,
    PyPermissionError, PyValueError,
};
use pyo3::prelude::*;
use xmore::{RetrievalError, XmoreError};
use xmore_clip::ClipError;
use xmore_eval::EvalError;
use xmore_hub::fetch::FetchError;
use xmore_hub::{HubError, ModelError};
use xmore_memory::{MemoryError, RemoteError, StoreError, WriteError};

/// Classes that the package defines.
pub(crate) mod classes {
    pyo3::import_exception!(xmore._errors, XmoreError);
    pyo3::import_exception!(xmore._errors, ModelMismatch);
    pyo3::import_exception!(xmore._errors, ImageError);
}

/// What an error is to a Python program.
enum Kind<'a> {
    /// The operating system refused something.
    Os(&'a Path, &'a io::Error),
    /// Something that is named is not there.
    NotFound,
    /// Something is there already.
    Exists,
    NotPermitted,
    /// A server does not answer.
    Unreachable,
    /// An argument makes no sense.
    Value,
    /// An index beyond the end.
    Index,
    /// Embeddings of another model.
    Mismatch,
    /// An image cannot be decoded.
    Image,
    /// The user asked to stop.
    Interrupt,
    /// Anything else, such as a damaged file.
    Other,
}

/// Raises an error of the libraries.
pub(crate) trait OrRaise<T> {
    /// The value, or the error as a Python exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Into<XmoreError>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| raised(&error.into()))
    }
}

/// An error of the libraries as a Python exception.
pub(crate) fn raised(error: &XmoreError) -> PyErr {
    exception(of_xmore(error), error.to_string())
}

/// The same for an evaluation's.
pub(crate) fn raised_by_evaluation(error: &EvalError) -> PyErr {
    exception(of_eval(error), error.to_string())
}

fn exception(kind: Kind<'_>, message: String) -> PyErr {
    match kind {
        // Python chooses the class by the number: FileNotFoundError, PermissionError, …
        Kind::Os(path, source) => match source.raw_os_error() {
            Some(number) => PyOSError::new_err((number, without_number(source), path.as_os_str().to_owned())),
            None if source.kind() == io::ErrorKind::NotFound => PyFileNotFoundError::new_err(message),
            None => PyOSError::new_err(message),
        },
        Kind::NotFound => PyFileNotFoundError::new_err(message),
        Kind::Exists => PyFileExistsError::new_err(message),
        Kind::NotPermitted => PyPermissionError::new_err(message),
        Kind::Unreachable => PyConnectionError::new_err(message),
        Kind::Value => PyValueError::new_err(message),
        Kind::Index => PyIndexError::new_err(message),
        Kind::Mismatch => classes::ModelMismatch::new_err(message),
        Kind::Image => classes::ImageError::new_err(message),
        Kind::Interrupt => PyKeyboardInterrupt::new_err(()),
        Kind::Other => classes::XmoreError::new_err(message),
    }
}

/// What the system says, without the number that Rust appends and Python puts before.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" (os error").map_or(text.clone(), |(text, _)| text.to_owned())
}

fn of_xmore(error: &XmoreError) -> Kind<'_> {
    match error {
        XmoreError::Clip(error) => of_clip(error),
        XmoreError::Memory(error) => of_memory(error),
        XmoreError::Model(error) => of_model(error),
        XmoreError::Io { path, source, .. } => Kind::Os(path, source),
        XmoreError::NotThisModel { .. } | XmoreError::Retrieval(RetrievalError::ModelMismatch { .. }) => {
            Kind::Mismatch
        }
        XmoreError::Label(_)
        | XmoreError::Retrieval(_)
        | XmoreError::Calibration(_)
        | XmoreError::MethodNeedsMemory { .. }
        | XmoreError::MethodNotPrepared { .. }
        | XmoreError::MethodWithoutSigmoids { .. }
        | XmoreError::ModelWithoutSigmoids
        | XmoreError::UnknownScores { .. }
        | XmoreError::UnknownMethod { .. }
        | XmoreError::EmbeddingLengths { .. } => Kind::Value,
        XmoreError::Interrupted => Kind::Interrupt,
        _ => Kind::Other,
    }
}

fn of_clip(error: &ClipError) -> Kind<'_> {
    match error {
        ClipError::Io { path, source } => Kind::Os(path, source),
        ClipError::MissingFile { .. } => Kind::NotFound,
        ClipError::Image { .. } => Kind::Image,
        ClipError::PixelCount { .. }
        | ClipError::Tokens { .. }
        | ClipError::Context { .. }
        | ClipError::Precision { .. }
        | ClipError::Cleaning { .. }
        | ClipError::Tokenize { .. } => Kind::Value,
        _ => Kind::Other,
    }
}

fn of_model(error: &ModelError) -> Kind<'_> {
    match error {
        ModelError::Clip(error) => of_clip(error),
        ModelError::Io { path, source, .. } => Kind::Os(path, source),
        ModelError::NoModelThere { .. }
        | ModelError::Hub(HubError::NotCached { .. } | HubError::NotFound { .. })
        | ModelError::Fetch(FetchError::ModelIncomplete { .. } | FetchError::PipMissing { .. }) => {
            Kind::NotFound
        }
        ModelError::Fetch(FetchError::Io { path, source, .. }) => Kind::Os(path, source),
        ModelError::Hub(HubError::Io { path, source, .. }) => Kind::Os(path, source),
        ModelError::Hub(HubError::Unreachable { .. }) => Kind::Unreachable,
        ModelError::Hub(HubError::Denied { .. }) => Kind::NotPermitted,
        ModelError::Hub(HubError::BadRepo { .. } | HubError::Setting { .. })
        | ModelError::UnknownModel { .. }
        | ModelError::UnsupportedModel { .. }
        | ModelError::NoPretrained { .. }
        | ModelError::UnknownPretrained { .. }
        | ModelError::UnusedPretrained { .. }
        | ModelError::OtherArchitecture { .. } => Kind::Value,
        _ => Kind::Other,
    }
}

fn of_memory(error: &MemoryError) -> Kind<'_> {
    match error {
        MemoryError::Io { path, source, .. } => Kind::Os(path, source),
        MemoryError::Image { image, .. } if !Path::new(image).exists() => Kind::NotFound,
        MemoryError::Image { .. } => Kind::Image,
        MemoryError::Vector(_)
        | MemoryError::Source(_)
        | MemoryError::Remote(RemoteError::Location { .. })
        | MemoryError::Store(StoreError::NotAMemory { .. }) => Kind::Value,
        MemoryError::Store(StoreError::NoSuchPair { .. }) => Kind::Index,
        MemoryError::Write(WriteError::OtherModel { .. }) => Kind::Mismatch,
        MemoryError::Write(WriteError::AlreadyExists { .. } | WriteError::NotEmpty { .. }) => Kind::Exists,
        MemoryError::Remote(RemoteError::Unreachable { .. }) => Kind::Unreachable,
        _ => Kind::Other,
    }
}

fn of_eval(error: &EvalError) -> Kind<'_> {
    match error {
        EvalError::Xmore(error) => of_xmore(error),
        EvalError::Clip(error) => of_clip(error),
        EvalError::Memory(error) => of_memory(error),
        EvalError::Io { path, source, .. } => Kind::Os(path, source),
        EvalError::NoCacheFolder { .. } => Kind::Other,
        _ => Kind::Value,
    }
}

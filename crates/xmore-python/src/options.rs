//! Choices by their names.

use std::path::PathBuf;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use regex::Regex;
use xmore::{Label, LabelFile, Labels, Method, Orientation, Pipeline, Precision, ResizeMode, Template};
use xmore_memory::store::{Modality, Mode};

use crate::errors::OrRaise;
use crate::feed::OnError;

/// The error of a name that is none of those there are.
pub(crate) fn unknown(argument: &str, known: &[&str], found: &str) -> PyErr {
    PyValueError::new_err(format!("{argument}: expected one of {}, found {found:?}", known.join(", ")))
}

/// A choice from a table of names.
fn choose<T: Copy>(argument: &str, table: &[(&str, T)], found: &str) -> PyResult<T> {
    let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    let choice = table.iter().find(|(name, _)| *name == found);
    choice.map(|(_, choice)| *choice).ok_or_else(|| unknown(argument, &known, found))
}

/// A number format by its short name or by that in a model's identity; none of `auto`.
pub(crate) fn precision(name: &str) -> PyResult<Option<Precision>> {
    let formats = Precision::ALL.map(|precision| (precision.short_name(), Some(precision)));
    let known: Vec<_> = formats.into_iter().chain([("auto", None)]).collect();
    Precision::named(name).map_or_else(|| choose("precision", &known, name), |found| Ok(Some(found)))
}

pub(crate) fn on_error(name: &str) -> PyResult<OnError> {
    choose("on_error", &[("raise", OnError::Raise), ("nan", OnError::Nan), ("skip", OnError::Skip)], name)
}

pub(crate) fn modality(name: &str) -> PyResult<Modality> {
    choose("by", &[("image", Modality::Image), ("caption", Modality::Text)], name)
}

pub(crate) fn mode(name: &str) -> PyResult<Mode> {
    choose(
        "mode",
        &[("create", Mode::Create), ("append", Mode::Append), ("overwrite", Mode::Overwrite)],
        name,
    )
}

pub(crate) fn orientation(name: &str) -> PyResult<Orientation> {
    let known = [Orientation::Exif, Orientation::Stored].map(|choice| (choice.name(), choice));
    choose("orientation", &known, name)
}

pub(crate) fn resize_mode(name: &str) -> PyResult<ResizeMode> {
    choose("resize_mode", &ResizeMode::ALL.map(|mode| (mode.name(), mode)), name)
}

/// A value that is parsed as the command line does.
pub(crate) fn parsed<T: std::str::FromStr>(argument: &str, text: &str) -> PyResult<T>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| PyValueError::new_err(format!("{argument}: {error}; found {text:?}")))
}

/// A regular expression for captions.
pub(crate) fn pattern(text: &str) -> PyResult<Regex> {
    Regex::new(text).map_err(|error| PyValueError::new_err(format!("caption_filter: {error}")))
}

/// A batch's number of images.
pub(crate) fn batch_size(asked: usize) -> PyResult<usize> {
    match asked {
        0 => Err(PyValueError::new_err("batch_size: expected at least 1, found 0")),
        size => Ok(size),
    }
}

/// A method by its name; `auto` is the pipeline's default.
pub(crate) fn method(name: &str, pipeline: &Pipeline) -> PyResult<Method> {
    if name == "auto" { Ok(pipeline.default_method()) } else { name.parse::<Method>().or_raise() }
}

/// A text.
fn text(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<String> {
    match object.cast::<PyString>() {
        Ok(text) => Ok(text.to_cow()?.into_owned()),
        Err(_) => {
            let found = object.get_type().name()?;
            Err(PyTypeError::new_err(format!("{argument}: expected a string, found {found}")))
        }
    }
}

/// The texts of an iterable, or one.
pub(crate) fn texts(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if object.is_instance_of::<PyString>() {
        return Ok(vec![text(argument, object)?]);
    }
    let items = object.try_iter().map_err(|_| not_of_texts(argument, object))?;
    items.map(|item| text(argument, &item?)).collect()
}

/// Prompts; the default one where none are given.
pub(crate) fn templates(given: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Template>> {
    let Some(given) = given else { return Ok(vec![Template::default()]) };
    texts("templates", given)?.into_iter().map(Template::new).collect::<Result<_, _>>().or_raise()
}

fn not_of_texts(argument: &str, object: &Bound<'_, PyAny>) -> PyErr {
    match object.get_type().name() {
        Ok(found) => PyTypeError::new_err(format!("{argument}: expected strings, found {found}")),
        Err(error) => error,
    }
}

/// Labels: names, a dict with a prompt or several for each name, dicts with `label`, `prompts` and `synonyms`, a list as it is typed, or the
/// path of a file.
pub(crate) fn labels(object: &Bound<'_, PyAny>) -> PyResult<Labels> {
    if let Ok(list) = object.cast::<PyString>() {
        return Labels::parse(&list.to_cow()?).or_raise();
    }
    if object.hasattr("__fspath__")? {
        let path: PathBuf = object.extract()?;
        return LabelFile::read(&path, None).and_then(|file| file.labels()).or_raise();
    }
    let labels: Vec<Label> = match object.cast::<PyDict>() {
        Ok(prompts) => prompts
            .iter()
            .map(|(name, prompts)| {
                let prompts = texts("labels", &prompts)?;
                Ok(Label { prompts, ..Label::new(text("labels", &name)?) })
            })
            .collect::<PyResult<_>>()?,
        Err(_) => {
            let items = object.try_iter().map_err(|_| not_of_texts("labels", object))?;
            items.map(|item| label(&item?)).collect::<PyResult<_>>()?
        }
    };
    Labels::with_prompts(labels).or_raise()
}

fn label(item: &Bound<'_, PyAny>) -> PyResult<Label> {
    let Ok(fields) = item.cast::<PyDict>() else { return Ok(Label::new(text("labels", item)?)) };
    let mut label = Label::default();
    for (key, value) in fields {
        match text("labels", &key)?.as_str() {
            "label" => label.name = text("labels", &value)?,
            "prompts" => label.prompts = texts("labels", &value)?,
            "synonyms" => label.synonyms = texts("labels", &value)?,
            other => return Err(unknown("labels", &["label", "prompts", "synonyms"], other)),
        }
    }
    Ok(label)
}

//! Progress, shown by the package's own Python code: by tqdm where it is installed.

use pyo3::prelude::*;
use xmore_hub::fetch::FetchEvent;

/// What a job tells of how far it is.
pub(crate) enum Event {
    /// So many are done of so many.
    Done(u64, Option<u64>),
    /// A step begins: its name, and its bytes where they are known.
    Fetching(String, Option<u64>),
    /// It has come to so many bytes.
    Fetched(u64),
    /// Something to know.
    Note(String),
}

impl Event {
    /// What a download tells.
    pub(crate) fn of(event: FetchEvent<'_>) -> Option<Self> {
        Some(match event {
            FetchEvent::Started { what, total } => Self::Fetching(what.to_owned(), total),
            FetchEvent::Bytes { done, .. } => Self::Fetched(done),
            FetchEvent::Note { message } => Self::Note(message.to_owned()),
            _ => return None,
        })
    }
}

/// Progress of one call: nothing is shown, and nothing of Python called, unless it is wanted.
pub(crate) struct Progress<'py> {
    bar: Option<Bound<'py, PyAny>>,
}

impl<'py> Progress<'py> {
    /// Progress in things of this unit.
    pub(crate) fn new(py: Python<'py>, wanted: bool, unit: &str) -> PyResult<Self> {
        let bar = wanted.then(|| py.import("xmore._progress")?.call_method1("Bar", (unit,))).transpose()?;
        Ok(Self { bar })
    }

    /// Shows what a job has told, if it has.
    pub(crate) fn show(&self, event: Option<Event>) -> PyResult<()> {
        let (Some(bar), Some(event)) = (&self.bar, event) else { return Ok(()) };
        match event {
            Event::Done(done, total) => bar.call_method1("done", (done, total))?,
            Event::Fetching(what, total) => bar.call_method1("fetching", (what, total))?,
            Event::Fetched(done) => bar.call_method1("done", (done, None::<u64>))?,
            Event::Note(text) => bar.call_method1("note", (text,))?,
        };
        Ok(())
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            // An error on the way is the one to raise.
            let _ = bar.call_method0("close");
        }
    }
}

//! Progress on standard error: bars on a terminal, a plain line now and then elsewhere.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{
    DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle, TermLike,
};
use xmore_hub::fetch::FetchEvent;

use crate::messages::tell;

/// Between two lines where standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A bar of `len` steps of `unit` ("images", "captions"): position, rate and time left. Where standard error is no terminal, the same
/// as a line every 5 s, so that a short run prints nothing.
pub(crate) fn bar(len: u64, unit: &str) -> ProgressBar {
    let (target, template) = if io::stderr().is_terminal() {
        (ProgressDrawTarget::stderr(), "{prefix} [{bar:32}] {pos}/{len} · {rate} · {eta} left")
    } else {
        (plain(), "{prefix}: {pos} of {len}, {rate}, {eta} left")
    };
    let bar = ProgressBar::with_draw_target(Some(len), target).with_finish(ProgressFinish::AndClear);
    bar.set_style(style(template));
    bar.set_prefix(unit.to_owned());
    bar
}

/// The same, for work of which `done` was done before: the rate is that of the rest.
pub(crate) fn bar_from(done: u64, len: u64, unit: &str) -> ProgressBar {
    let bar = bar(len, unit);
    bar.set_position(done);
    bar.reset_eta();
    bar
}

/// A bar that appears with the first progress, when the total is known.
pub(crate) struct DeferredBar {
    unit: &'static str,
    bar: Option<ProgressBar>,
}

impl DeferredBar {
    pub(crate) fn new(unit: &'static str) -> Self {
        Self { unit, bar: None }
    }

    /// Shows how much of `total` is done; what is done at the first call was done before.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        self.bar.get_or_insert_with(|| bar_from(done, total, self.unit)).set_position(done);
    }
}

impl Drop for DeferredBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows the events of a download.
pub(crate) fn fetch_progress() -> impl Fn(FetchEvent<'_>) {
    let current: RefCell<Option<ProgressBar>> = RefCell::default();
    let terminal = io::stderr().is_terminal();
    move |event| match event {
        FetchEvent::Started { what, total } => {
            if !terminal {
                let size = total.map_or(String::new(), |bytes| format!(" ({})", DecimalBytes(bytes)));
                tell!("fetching {what}{size}");
            }
            *current.borrow_mut() = Some(fetch_bar(what, total, terminal));
        }
        FetchEvent::Bytes { done, .. } => {
            if let Some(bar) = &*current.borrow() {
                bar.set_position(done);
            }
        }
        FetchEvent::Done { what } => {
            if let Some(bar) = current.borrow_mut().take() {
                bar.finish_and_clear();
            }
            if terminal {
                tell!("fetched {what}");
            }
        }
        FetchEvent::Note { message } => match &*current.borrow() {
            Some(bar) => bar.suspend(|| tell!("{message}")),
            None => tell!("{message}"),
        },
        _ => {}
    }
}

fn fetch_bar(what: &str, total: Option<u64>, terminal: bool) -> ProgressBar {
    let (target, template) = match (terminal, total) {
        (true, Some(_)) => (
            ProgressDrawTarget::stderr(),
            "{prefix} [{bar:32}] {decimal_bytes}/{decimal_total_bytes} · {decimal_bytes_per_sec} · {eta} left",
        ),
        (true, None) => (ProgressDrawTarget::stderr(), "{spinner} {prefix} {decimal_bytes}"),
        (false, Some(_)) => (
            plain(),
            "{prefix}: {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        ),
        (false, None) => (plain(), "{prefix}: {decimal_bytes}"),
    };
    let bar = ProgressBar::with_draw_target(total, target).with_finish(ProgressFinish::AndClear);
    bar.set_style(style(template));
    bar.set_prefix(what.to_owned());
    bar
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("our own templates are well-formed");
    style.progress_chars("=> ").with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A rate that cannot be written is left out.
        let _ = write!(out, "{:.1}/s", state.per_sec());
    })
}

fn plain() -> ProgressDrawTarget {
    let lines = PlainLines(Mutex::new((Instant::now(), String::new())));
    ProgressDrawTarget::term_like_with_hz(Box::new(lines), 1)
}

/// A "terminal" that shows the bar's text as a new line, at most every [`LINE_EVERY`]; holds the time of the last line and the text
/// since the last flush.
#[derive(Debug)]
struct PlainLines(Mutex<(Instant, String)>);

impl PlainLines {
    fn add(&self, text: &str) -> io::Result<()> {
        if let Ok(mut state) = self.0.lock() {
            state.1.push_str(text);
        }
        Ok(())
    }
}

impl TermLike for PlainLines {
    fn width(&self) -> u16 {
        200
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let Ok(mut state) = self.0.lock() else { return Ok(()) };
        let text = std::mem::take(&mut state.1);
        let text = text.trim();
        if !text.is_empty() && state.0.elapsed() >= LINE_EVERY {
            state.0 = Instant::now();
            writeln!(io::stderr(), "{text}")?;
        }
        Ok(())
    }
}

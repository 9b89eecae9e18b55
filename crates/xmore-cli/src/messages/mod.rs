//! Messages on standard error: control characters are shown escaped, and a closed standard error is no failure.

pub(crate) mod images;
pub(crate) mod labels;
pub(crate) mod pairs;

use std::io::{self, Write};

/// Tells the user something on standard error; formatted as by `eprintln!`.
macro_rules! tell {
    ($($format:tt)*) => {
        $crate::messages::line(&format!($($format)*))
    };
}
pub(crate) use tell;

/// Writes one message, which may have several lines. Names, captions, labels and what servers send may be part of it.
pub(crate) fn line(message: &str) {
    // There is no other place to report this failure, and `eprintln!` would panic.
    let _ = writeln!(io::stderr().lock(), "{}", xmore_files::escape_lines(message));
}

/// A number of things: "1 pair", "2 pairs".
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

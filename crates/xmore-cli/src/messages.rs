//! Messages on standard error: what acts on terminals is shown escaped, and a reader that has gone is no failure.

use std::io::{self, Write};

/// Tells the user something on standard error; formatted as by `eprintln!`.
macro_rules! tell {
    ($($format:tt)*) => {
        $crate::messages::line(&format!($($format)*))
    };
}
pub(crate) use tell;

/// Writes one message, which may have several lines. Names, captions, labels and what servers say may be part of it.
pub(crate) fn line(message: &str) {
    // There is no other place to report this failure, and `eprintln!` would panic.
    let _ = writeln!(io::stderr().lock(), "{}", xmore_files::escape_lines(message));
}

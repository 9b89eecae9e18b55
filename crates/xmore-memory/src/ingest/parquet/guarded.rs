//! Calls of the parquet crate, which panics on some damaged pages.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::damage::damaged;
use crate::error::Result;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be caught and become an error of damage, so that a panic hook need not report it.
pub fn catches_panics() -> bool {
    GUARDED.get()
}

/// Runs what calls the parquet crate. What causes panics and is known is refused before; a panic all the same is damage.
/// The reader is not used after it: a cursor that failed is dropped.
pub(super) fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(before);
    result.unwrap_or_else(|_| {
        Err(damaged(path, "a parquet file".to_owned(), "pages that cannot be decoded".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage_and_is_marked_as_caught() {
        assert!(!catches_panics());
        let path = Path::new("a.parquet");
        let result: Result<()> = guarded(path, || {
            assert!(catches_panics());
            panic!("a test");
        });
        assert!(result.unwrap_err().to_string().contains("pages that cannot be decoded"));
        assert!(!catches_panics());
        assert_eq!(guarded(path, || Ok(1)).unwrap(), 1);
    }
}

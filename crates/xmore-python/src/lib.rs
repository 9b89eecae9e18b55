//! The module `xmore._native`: models, memories, classification and evaluation for the Python package, and the command line tool.
//!
//! `python/xmore/` has the classes that users see, with types and documentation; here is what they stand on. Nothing here computes on a thread of
//! Python's: `job` hands all work to a thread pool and waits without the interpreter's lock.

mod answer;
mod classifier;
mod command;
mod errors;
mod evaluate;
mod feed;
mod images;
mod job;
mod memory;
mod model;
mod options;
mod progress;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::answer::Answer;
    #[pymodule_export]
    use crate::classifier::Classifier;
    #[pymodule_export]
    use crate::command::run_command_line;
    #[pymodule_export]
    use crate::evaluate::evaluate;
    #[pymodule_export]
    use crate::memory::{Memory, StoredRows, build_memory, verify_memory};
    #[pymodule_export]
    use crate::model::Model;

    use super::{Bound, PyModule, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        use pyo3::types::PyModuleMethods;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        xmore_cli::hide_caught_panics();
        crate::job::watch_forks(module)
    }
}

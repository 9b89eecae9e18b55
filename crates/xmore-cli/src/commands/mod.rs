//! One module for each command, each with its `run`.

pub(crate) mod classify;
pub(crate) mod demo;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod serve;

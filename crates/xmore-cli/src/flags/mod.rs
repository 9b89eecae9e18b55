//! Groups of flags that several commands share, a file each. They import no command.

pub(crate) mod calibration;
pub(crate) mod checkpoints;
pub(crate) mod effect;
pub(crate) mod filter;
pub(crate) mod folders;
pub(crate) mod labels;
pub(crate) mod model;
pub(crate) mod output;
pub(crate) mod remote;
pub(crate) mod retrieval;
pub(crate) mod skips;
pub(crate) mod values;

//! The calibration that scores are given with.

use std::path::PathBuf;

use clap::Args;
use xmore::Calibration;

use crate::error::Result;

/// The file as a flag.
#[derive(Clone, Debug, Args)]
pub(crate) struct CalibrationArgs {
    /// Calibrate scores with this file, which `xmore eval --fit` wrote for the same model, memory and options
    ///
    /// Its threshold, if it has one, acts as --min-score unless that is given.
    #[arg(long, value_name = "FILE", env = "XMORE_CALIBRATION")]
    pub(crate) calibration: Option<PathBuf>,
}

impl CalibrationArgs {
    /// The flag.
    pub(crate) const FLAGS: &[&str] = &["calibration"];

    /// Reads the file, if one is named.
    pub(crate) fn read(&self) -> Result<Option<Calibration>> {
        Ok(self.calibration.as_deref().map(Calibration::read).transpose()?)
    }
}

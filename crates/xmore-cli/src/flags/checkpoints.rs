//! How often work on a memory is made durable.

use std::time::Duration;

use clap::Args;
use xmore::BuildOptions;

/// How much work a killed run may lose.
#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Most seconds of work that a killed run loses
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = BuildOptions::default().checkpoint_every.as_secs_f64(),
        value_parser = seconds,
        env = "XMORE_CHECKPOINT_SECONDS"
    )]
    checkpoint_seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|s: &f64| (0.0..=86_400.0).contains(s))
        .ok_or_else(|| "expected seconds, 0 to 86400".to_owned())
}

impl CheckpointArgs {
    /// Time between two checkpoints.
    pub(crate) fn every(&self) -> Duration {
        Duration::from_secs_f64(self.checkpoint_seconds)
    }
}

//! The `xmore` command: flags in, one `run` for each command, data on stdout, everything else on stderr.

// Messages go through `messages::tell`, data through `output`.
#![warn(clippy::print_stderr, clippy::print_stdout)]

mod cli;
mod commands;
mod error;
mod fallback;
mod flags;
mod hints;
mod html;
mod images;
mod interrupt;
mod messages;
mod output;
mod progress;
mod setup;
mod skip_limit;
mod threads;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::flags::effect::Given;
use crate::messages::tell;

fn main() -> ExitCode {
    let mut command = Cli::command();
    let matches = command.get_matches_mut();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(error) = cli.command.check(&Given::of(&matches, &command)) {
        return ExitCode::from(error.report());
    }
    threads::exit_where_memory_is_refused();
    if !cli.command.handles_signals() {
        interrupt::install();
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !xmore_memory::ingest::catches_panics() {
            report(panic);
        }
    }));
    if let Some(bytes) = cli.decode_memory {
        xmore_files::image::set_decode_memory(bytes);
    }
    let result = threads::start(cli.threads).and_then(|()| cli.command.run());
    if let Some(report) = xmore_clip::profile_report() {
        tell!("{report}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}

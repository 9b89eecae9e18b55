//! The `xmore` command: flags in, one `run` for each command, data on stdout, everything else on stderr.

// Messages go through `messages::tell`, data through `files`.
#![warn(clippy::print_stderr, clippy::print_stdout)]

mod args;
mod commands;
mod csv_output;
mod error;
mod files;
mod hints;
mod html;
mod images;
mod interrupt;
mod labels;
mod messages;
mod model_choice;
mod outcome;
mod progress;
mod setup;
mod table;
mod threads;

use std::process::ExitCode;

use clap::Parser;
use xmore::XmoreError;
use xmore_memory::MemoryError;
use xmore_server::ServerError;

use args::{Cli, Command};
use error::CliError;

use crate::messages::tell;

fn main() -> ExitCode {
    let cli = Cli::parse();
    threads::exit_where_memory_is_refused();
    if !matches!(cli.command, Command::Serve(_)) {
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
    let result = threads::start(cli.threads).and_then(|()| match &cli.command {
        Command::Demo(args) => commands::demo::run(args),
        Command::Classify(args) => commands::classify::run(args),
        Command::Embed(args) => commands::embed::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Memory(args) => commands::memory::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Model(args) => commands::model::run(args),
    });
    if let Some(report) = xmore_clip::profile_report() {
        tell!("{report}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has all that it wants (`| head`).
        Err(CliError::Stdout { source }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error @ CliError::Interrupted(_)) => {
            tell!("{error}");
            ExitCode::from(interrupt::exit_status())
        }
        Err(error @ CliError::NotEnough(_)) => {
            tell!("error: {error}");
            ExitCode::from(outcome::NOT_ENOUGH)
        }
        Err(error) => {
            tell!("error: {error}");
            if let Some(hint) = hints::hint(&error) {
                tell!("hint: {hint}");
            }
            let usage = matches!(
                error,
                CliError::Usage(_)
                    | CliError::Server(
                        ServerError::OpenToOthers { .. } | ServerError::WeakKey | ServerError::Origin { .. }
                    )
                    | CliError::Xmore(XmoreError::MethodNeedsMemory { .. })
                    | CliError::Memory(MemoryError::Location { .. })
                    | CliError::Xmore(XmoreError::Memory(MemoryError::Location { .. }))
            );
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

//! The `xmore` command: flags in, one `run` for each command, data on stdout, everything else on stderr.

mod args;
mod commands;
mod error;
mod files;
mod html;
mod images;
mod progress;
mod setup;
mod table;

use std::process::ExitCode;

use clap::Parser;
use xmore::XmoreError;
use xmore_memory::MemoryError;
use xmore_server::ServerError;

use args::{Cli, Command};
use error::CliError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(threads) = cli.threads {
        // Fails only if a pool exists already, and nothing has run yet.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
    }
    let result = match &cli.command {
        Command::Demo(args) => commands::demo::run(args),
        Command::Classify(args) => commands::classify::run(args),
        Command::Embed(args) => commands::embed::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Memory(args) => commands::memory::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Model(args) => commands::model::run(args),
    };
    if let Some(report) = xmore_clip::profile_report() {
        eprintln!("{report}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has gone (`| head`): nobody is left to tell, and nothing went wrong.
        Err(CliError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            let usage = matches!(
                error,
                CliError::Usage(_)
                    | CliError::Server(
                        ServerError::OpenToOthers { .. } | ServerError::WeakKey | ServerError::Origin { .. }
                    )
                    | CliError::Xmore(XmoreError::MethodNeedsMemory { .. })
                    | CliError::Memory(MemoryError::Location { .. })
            );
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

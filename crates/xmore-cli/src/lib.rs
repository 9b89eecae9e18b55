//! The `xmore` command: flags in, one `run` for each command, data on stdout, everything else on stderr.
//!
//! A library, so that other programs can be the command too: the Python package is one.

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

use std::ffi::{OsStr, OsString};
use std::sync::Once;

use clap::{Arg, Command, CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::flags::effect::Given;
use crate::messages::tell;

/// Runs the command; `arguments` begin with the program's name. Returns the exit status.
///
/// It is the program: signals, the panic hook and rayon's global pool become its own, and a signal may end the process. To be called once.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let mut command = without_empty_variables(Cli::command());
    let matches = match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => matches,
        Err(error) => return answer(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return answer(&error),
    };
    if let Err(error) = cli.command.check(&Given::of(&matches, &command)) {
        return error.report();
    }
    threads::exit_where_memory_is_refused();
    if !cli.command.handles_signals() {
        interrupt::install();
    }
    hide_caught_panics();
    if let Some(bytes) = cli.decode_memory {
        xmore_files::image::set_decode_memory(bytes);
    }
    let result = threads::start(cli.threads).and_then(|()| cli.command.run());
    if let Some(report) = xmore_clip::profile_report() {
        tell!("{report}");
    }
    match result {
        Ok(()) => 0,
        Err(error) => error.report(),
    }
}

/// An environment variable that is empty counts as one that is not set: container files and scripts write an optional one so. But an empty API key is refused,
/// where none would leave the server open to all.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let of_argument = |arg: Arg| match arg.get_env() {
        Some(name) if name != "XMORE_API_KEY" && is_empty(name) => arg.env(None::<&str>),
        _ => arg,
    };
    command.mut_args(of_argument).mut_subcommands(without_empty_variables)
}

/// Has panics print nothing where the library catches them, in this process: it has an error for each.
pub fn hide_caught_panics() {
    static HIDDEN: Once = Once::new();
    HIDDEN.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !xmore_memory::ingest::catches_panics() {
                report(panic);
            }
        }));
    });
}

/// Prints what clap says of arguments, such as the help that was asked for; returns the exit status.
fn answer(said: &clap::Error) -> u8 {
    // As clap's own `exit` has it: there is no other place to report this failure.
    let _ = said.print();
    u8::try_from(said.exit_code()).unwrap_or(2)
}

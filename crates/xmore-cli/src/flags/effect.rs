//! Flags that would have no effect are errors: each command has a table of [`NoEffect`], which is held against what was given.

use std::collections::HashMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::error::{CliError, Result};

/// When flags of a command have no effect, and why.
pub(crate) struct NoEffect<A: 'static> {
    /// The flags, by the names of their fields: groups, which several entries may share.
    pub(crate) flags: &'static [&'static [&'static str]],
    /// Whether these arguments leave them without effect.
    pub(crate) when: fn(&A) -> bool,
    /// What follows "has no effect".
    pub(crate) because: &'static str,
}

/// The flags that stand on the command line. What the environment sets is meant for many commands, so it may be without effect on one.
pub(crate) struct Given(HashMap<String, String>);

impl Given {
    /// Those of the command that `matches` leads to.
    pub(crate) fn of(mut matches: &ArgMatches, mut command: &Command) -> Self {
        while let Some((name, below)) = matches.subcommand() {
            let Some(found) = command.find_subcommand(name) else { break };
            (matches, command) = (below, found);
        }
        let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let flags = command.get_arguments().filter(|arg| is_given(arg.get_id().as_str())).filter_map(|arg| {
            // `-k` is usual, `--k` is not.
            let long = arg.get_long().filter(|long| long.len() > 1).map(|long| format!("--{long}"));
            let spelled = long.or_else(|| arg.get_short().map(|short| format!("-{short}")))?;
            Some((arg.get_id().to_string(), spelled))
        });
        Self(flags.collect())
    }

    /// # Errors
    /// [`CliError::Usage`] that names the flags of the first entry of the table that are given and have no effect.
    pub(crate) fn check<A>(&self, table: &[NoEffect<A>], args: &A) -> Result<()> {
        for entry in table {
            let flags = entry.flags.iter().copied().flatten();
            let given: Vec<&str> = flags.filter_map(|&flag| self.0.get(flag)).map(String::as_str).collect();
            if !given.is_empty() && (entry.when)(args) {
                let have = if given.len() == 1 { "has" } else { "have" };
                let message = format!("{} {have} no effect {}", given.join(" and "), entry.because);
                return Err(CliError::Usage(message));
            }
        }
        Ok(())
    }

    /// The first of the flags that is given, as it is spelled.
    pub(crate) fn first(&self, flags: &[&str]) -> Option<&str> {
        flags.iter().find_map(|&flag| self.0.get(flag)).map(String::as_str)
    }
}

//! How requests to a remote index are made, and what to do while it cannot be reached.

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};
use xmore::IfUnreachable;
use xmore_memory::retriever::{Location, RemoteOptions};

/// How requests to a remote index are made.
#[derive(Clone, Args)]
pub(crate) struct RemoteArgs {
    /// Token that a remote index asks for (Milvus: USER:PASSWORD or an API key; PostgreSQL: the password)
    #[arg(
        long,
        env = "XMORE_MEMORY_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Retrieval"
    )]
    pub(crate) memory_token: Option<String>,
    /// Seconds that one request to a remote index may take
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = RemoteOptions::default().timeout.as_secs(),
        env = "XMORE_MEMORY_TIMEOUT",
        help_heading = "Retrieval"
    )]
    pub(crate) memory_timeout: u64,
}

impl fmt::Debug for RemoteArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token.
        self.options().fmt(f)
    }
}

impl RemoteArgs {
    /// The flags, for tables of what has no effect.
    pub(crate) const FLAGS: &[&str] = &["memory_token", "memory_timeout"];

    /// The options of every request.
    pub(crate) fn options(&self) -> RemoteOptions {
        let mut options = RemoteOptions::default();
        options.token = self.memory_token.clone().filter(|token| !token.is_empty());
        options.timeout = Duration::from_secs(self.memory_timeout.max(1));
        options
    }
}

/// Whether the pairs of a location need no requests.
pub(crate) fn is_on_this_machine(location: &str) -> bool {
    location.parse::<Location>().is_ok_and(|location| !location.is_remote())
}

/// What to do without a remote index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum IfUnreachableArg {
    /// End with an error
    #[default]
    Fail,
    /// Classify by the image alone, and say so
    ZeroShot,
}

impl From<IfUnreachableArg> for IfUnreachable {
    fn from(arg: IfUnreachableArg) -> Self {
        match arg {
            IfUnreachableArg::Fail => Self::Fail,
            IfUnreachableArg::ZeroShot => Self::ZeroShot,
        }
    }
}

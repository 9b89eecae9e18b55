//! What can go wrong with a remote index.

/// A remote index that cannot be reached or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Where pairs are was given in a form that cannot be understood.
    #[error("{text:?} is not a location of pairs: expected {expected}")]
    Location {
        /// What was given, without a password.
        text: String,
        /// The form expected.
        expected: &'static str,
    },

    /// A remote index does not answer, or is not up yet, even after retries.
    #[error(
        "cannot reach {location} ({attempts} attempt{} made): {reason}",
        if *attempts == 1 { "" } else { "s" }
    )]
    Unreachable {
        /// The remote index as the user named it.
        location: String,
        /// How often the request was sent.
        attempts: u32,
        /// What went wrong last.
        reason: String,
    },

    /// A remote index answers, but refuses, or what it says makes no sense.
    #[error("{location}: {reason}")]
    Refused {
        /// The remote index as the user named it.
        location: String,
        /// What it said, and what was expected.
        reason: String,
    },
}

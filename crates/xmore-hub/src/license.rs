//! Licenses of models, and whether they forbid commercial use.

use std::borrow::Cow;
use std::fmt;

use crate::fetch::{FetchEvent, Progress};
use crate::names::ModelName;
use crate::table;

/// A license by its identifier, as the hub writes it: `mit`, `apache-2.0`, `cc-by-nc-4.0`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct License(Cow<'static, str>);

/// An identifier is a word; what is longer is none.
const MAX_LENGTH: usize = 64;
/// Non-commercial licenses whose identifiers do not say so. Apple's "Machine Learning Research Model" license grants use "exclusively for
/// Research Purposes", which it defines as non-commercial (github.com/apple/ml-mobileclip, LICENSE_MODELS).
const NON_COMMERCIAL: [&str; 1] = ["apple-amlr"];

impl License {
    /// The license of an identifier; nothing for one that is empty or is not like an identifier.
    pub fn new(id: impl Into<Cow<'static, str>>) -> Option<Self> {
        let id = id.into();
        let fits = (1..=MAX_LENGTH).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte));
        fits.then_some(Self(id))
    }

    /// The identifier.
    pub fn id(&self) -> &str {
        &self.0
    }

    /// Whether it is known to forbid commercial use. Of most licenses with names of their own nothing is known here.
    pub fn forbids_commercial_use(&self) -> bool {
        let id = self.0.to_ascii_lowercase();
        let says_so = |part| part == "nc" || part == "noncommercial";
        id.split(['-', '_']).any(says_so)
            || id.contains("non-commercial")
            || NON_COMMERCIAL.contains(&id.as_str())
    }
}

impl fmt::Display for License {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// The license of a model, where it is known without asking anyone.
pub fn license(name: &ModelName) -> Option<License> {
    match name {
        ModelName::Bundled(model) => License::new(model.license),
        ModelName::Pretrained(entry) => entry.license.clone(),
        ModelName::Hub(repo) => {
            table::pretrained().iter().find(|entry| entry.repo == repo.name())?.license.clone()
        }
        _ => None,
    }
}

/// Tells of a license that forbids commercial use, as a model is fetched.
pub(crate) fn note(model: &str, license: Option<&License>, progress: Progress) {
    if let Some(license) = license.filter(|license| license.forbids_commercial_use()) {
        let message = format!("{model} may not be used commercially: its license is {license}");
        progress(FetchEvent::Note { message: &message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licenses_that_forbid_commercial_use() {
        for (id, forbids) in [
            ("cc-by-nc-4.0", true),
            ("CC-BY-NC-SA-4.0", true),
            ("cc-by-nc-nd-4.0", true),
            ("apple-amlr", true),
            ("fair-noncommercial-research-license", true),
            ("some-non-commercial", true),
            ("mit", false),
            ("apache-2.0", false),
            ("cc-by-4.0", false),
            ("openrail", false),
            ("other", false),
            // "nc" inside a word.
            ("ncsa", false),
        ] {
            assert_eq!(License::new(id).unwrap().forbids_commercial_use(), forbids, "{id}");
        }
    }

    #[test]
    fn what_is_no_identifier() {
        for text in ["", "a b", "a\nb", "é", "\u{1b}[31m"] {
            assert_eq!(License::new(text), None, "{text:?}");
        }
        assert_eq!(License::new("x".repeat(MAX_LENGTH + 1)), None);
    }
}

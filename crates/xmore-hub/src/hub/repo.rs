//! The name of a repository with a revision of it, checked: it becomes part of addresses and paths.

use std::fmt;
use std::str::FromStr;

use super::HubError;

const MAIN: &str = "main";

/// `org/name` or `org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepoId {
    name: String,
    revision: String,
}

impl RepoId {
    /// `org/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Branch, tag or commit; `main` where none is written.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl FromStr for RepoId {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let bad = |reason| Err(HubError::BadRepo { repo: text.to_owned(), reason });
        if !name.split('/').all(is_part) || name.split('/').count() > 2 || name.contains("--") {
            return bad(
                "letters, digits, dots, dashes and underscores are possible, one slash between the two parts",
            );
        }
        if !revision.split('/').all(is_part) || revision.len() > 255 {
            return bad("after @ a branch, a tag or a commit is expected");
        }
        Ok(Self { name: name.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision != MAIN { write!(f, "@{}", self.revision) } else { Ok(()) }
    }
}

fn is_part(part: &str) -> bool {
    (1..=96).contains(&part.len())
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_revisions() {
        let repo: RepoId = "laion/CLIP-ViT-B-16.x@refs/pr/1".parse().unwrap();
        assert_eq!((repo.name(), repo.revision()), ("laion/CLIP-ViT-B-16.x", "refs/pr/1"));
        assert_eq!("gpt2".parse::<RepoId>().unwrap().revision(), "main");
        assert_eq!("a/b@main".parse::<RepoId>().unwrap().to_string(), "a/b");
    }

    #[test]
    fn nothing_that_leaves_its_folder() {
        let names =
            ["", "/", "a/", "/a", "a/b/c", "../b", "a/..", "a--b/c", "a/b c", "a\\b", "a/b?x", "é/b", ".a/b"];
        for text in names.into_iter().chain(["a/b@", "a/b@../x", "a/b@x//y", "a/b@/x", "a/b@x\0", "a/b@x?y"])
        {
            assert!(text.parse::<RepoId>().is_err(), "{text}");
        }
    }
}

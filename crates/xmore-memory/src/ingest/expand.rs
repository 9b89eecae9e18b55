//! Arguments that name many files: braces and globs, where the shell has not expanded them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::Result;
use crate::ingest::SourceError;

/// Most paths that the braces of one argument may give.
const MAX_EXPANDED: usize = 1_000_000;

/// Expands arguments as a shell would: braces (`{00000..00010}`, `{a..e}`, `{0..8..2}`, `{a,b}`, several, nested), then `*`, `?`,
/// `[a-z]` and `**` against the files there are, sorted. What exists under the very name it is given by is taken as it is, and so is
/// what is not UTF-8.
///
/// # Errors
/// [`SourceError::Pattern`] if a glob matches nothing, a path that braces give does not exist, or there are too many.
/// A plain path that does not exist is left for [`Source::detect`](super::Source::detect) to refuse.
pub fn expand(arguments: &[impl AsRef<OsStr>]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        // Patterns are text.
        let Some(argument) = path.to_str().filter(|_| !path.exists()) else {
            paths.push(path.to_owned());
            continue;
        };
        let refuse = |reason: String| SourceError::Pattern { pattern: argument.to_owned(), reason }.into();
        let words = braces(argument)
            .ok_or_else(|| refuse(format!("its braces give more than {MAX_EXPANDED} paths")))?;
        let from_braces = words.len() > 1;
        for word in words {
            if Path::new(&word).exists() || (!from_braces && !is_glob(&word)) {
                paths.push(PathBuf::from(word));
            } else if is_glob(&word) {
                let before = paths.len();
                matches(&word, &mut paths).map_err(&refuse)?;
                if paths.len() == before {
                    return Err(refuse(format!("{word} matches nothing")));
                }
            } else {
                return Err(refuse(format!("{word} does not exist")));
            }
        }
    }
    Ok(paths)
}

fn is_glob(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// Adds the files that a glob matches, sorted.
fn matches(word: &str, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    // As shells do: hidden files only where the pattern begins with a dot.
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    Pattern::new(word).map_err(|e| format!("it is no glob pattern: {e}"))?;
    for path in glob::glob_with(word, options).map_err(|e| format!("it is no glob pattern: {e}"))? {
        paths.push(path.map_err(|e| format!("cannot read {}: {}", e.path().display(), e.error()))?);
    }
    Ok(())
}

/// All words that a word's braces give, in bash's order; `None` if there are too many. Braces that bash leaves alone (`{}`, `{a}`,
/// one without its partner) are left alone.
fn braces(word: &str) -> Option<Vec<String>> {
    // Words are split at their first group over and over; `done` is what precedes the groups still to come.
    let mut finished = Vec::new();
    let mut open = vec![(String::new(), word.to_owned())];
    while let Some((mut done, rest)) = open.pop() {
        let Some(group) = first_group(&rest) else {
            done.push_str(&rest);
            finished.push(done);
            continue;
        };
        if finished.len() + open.len() + group.alternatives.len() > MAX_EXPANDED {
            return None;
        }
        done.push_str(&rest[..group.start]);
        let after = &rest[group.end..];
        for alternative in group.alternatives.iter().rev() {
            open.push(match group.nested {
                true => (done.clone(), format!("{alternative}{after}")),
                false => (format!("{done}{alternative}"), after.to_owned()),
            });
        }
    }
    Some(finished)
}

/// A brace group that expands.
struct Group {
    start: usize,
    end: usize,
    alternatives: Vec<String>,
    /// Whether an alternative may hold groups itself.
    nested: bool,
}

/// The first group of a word that expands.
fn first_group(word: &str) -> Option<Group> {
    let bytes = word.as_bytes();
    // Partners of all braces, and commas at their level, in one pass.
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' => opened.push((at, Vec::new())),
            b',' => {
                if let Some((_, commas)) = opened.last_mut() {
                    commas.push(at);
                }
            }
            b'}' => {
                if let Some((start, commas)) = opened.pop() {
                    closed.push((start, at, commas));
                }
            }
            _ => {}
        }
    }
    closed.sort();
    for (start, close, commas) in closed {
        let inner = &word[start + 1..close];
        let group = |alternatives, nested| Group { start, end: close + 1, alternatives, nested };
        if !commas.is_empty() {
            let mut alternatives = Vec::with_capacity(commas.len() + 1);
            let mut from = start + 1;
            for comma in commas.into_iter().chain([close]) {
                alternatives.push(word[from..comma].to_owned());
                from = comma + 1;
            }
            return Some(group(alternatives, true));
        }
        if let Some(alternatives) = range(inner) {
            return Some(group(alternatives, false));
        }
    }
    None
}

/// `1..10`, `010..000`, `a..e`, each perhaps with `..STEP`. A range that is too long comes one longer than allowed.
fn range(inner: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = inner.split("..").collect();
    let (from, to, step) = match parts[..] {
        [from, to] => (from, to, 1),
        [from, to, step] => (from, to, step.parse::<i64>().ok()?.unsigned_abs().max(1)),
        _ => return None,
    };
    let values = |from: i64, to: i64| {
        let sign = if from <= to { 1 } else { -1 };
        let count = from.abs_diff(to) / step;
        let value = move |i: u64| from.wrapping_add(sign * (i * step) as i64);
        (0..=count).take(MAX_EXPANDED + 1).map(value)
    };
    if let (Ok(first), Ok(last)) = (from.parse::<i64>(), to.parse::<i64>()) {
        // A leading zero on either side gives all numbers the wider side's width.
        let digits = |text: &str| text.trim_start_matches(['-', '+']).len();
        let padded = |text: &str| digits(text) > 1 && text.trim_start_matches(['-', '+']).starts_with('0');
        let width = if padded(from) || padded(to) { from.len().max(to.len()) } else { 0 };
        return Some(values(first, last).map(|number| format!("{number:0width$}")).collect());
    }
    match (from.as_bytes(), to.as_bytes()) {
        ([first], [last]) if first.is_ascii_alphabetic() && last.is_ascii_alphabetic() => Some(
            values(i64::from(*first), i64::from(*last))
                .map(|byte| char::from(byte as u8).to_string())
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn braces_are_expanded_as_bash_does() {
        // Checked against bash 5.2: `printf '%s ' WORD`.
        for (word, expected) in [
            ("{00008..00011}.tar", "00008.tar 00009.tar 00010.tar 00011.tar"),
            ("{8..11}", "8 9 10 11"),
            ("{08..11}", "08 09 10 11"),
            ("{8..011}", "008 009 010 011"),
            ("{3..1}", "3 2 1"),
            ("{0..7..3}", "0 3 6"),
            ("{7..0..3}", "7 4 1"),
            ("{-1..1}", "-1 0 1"),
            ("{-01..1}", "-01 000 001"),
            ("{a..c}x", "ax bx cx"),
            ("x{a,b}y{1..2}z", "xay1z xay2z xby1z xby2z"),
            ("{a,b{1..2},c{d,e}}", "a b1 b2 cd ce"),
            ("{,a}b", "b ab"),
            ("{a}", "{a}"),
            ("{}", "{}"),
            ("{1..}", "{1..}"),
            ("{1..a}", "{1..a}"),
            ("a{b,c", "a{b,c"),
            ("a}b{c,d}", "a}bc a}bd"),
            ("{{a,b}", "{a {b"),
            ("{x{1..2}}", "{x1} {x2}"),
            ("{x,{1..3}", "{x,1 {x,2 {x,3"),
            ("a{b{c,d}", "a{bc a{bd"),
            ("{+1..3}", "1 2 3"),
            ("{1..3..-1} {1..3..0}", "1 1 1 2 1 3 2 1 2 2 2 3 3 1 3 2 3 3"),
        ] {
            assert_eq!(braces(word).unwrap().join(" "), expected, "{word}");
        }
    }

    #[test]
    fn too_many_are_refused_before_they_take_memory() {
        for word in ["{0..9999999999}", "{0..99999}{0..99999}", "{-9223372036854775808..9223372036854775807}"]
        {
            assert!(braces(word).is_none(), "{word}");
            let message = expand(&[word.to_owned()]).unwrap_err().to_string();
            assert!(message.contains("more than 1000000") && message.contains(word), "{message}");
        }
    }

    #[test]
    fn patterns_give_the_files_there_are() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00000.tar", "00001.tar", "00002.tar", "a{0..1}.csv", "b[1].csv", ".hidden.tar"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let of = |pattern: &str| -> Result<Vec<String>> {
            let paths = expand(&[format!("{}/{pattern}", dir.path().display())])?;
            Ok(paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect())
        };
        assert_eq!(of("{00001..00000}.tar").unwrap(), ["00001.tar", "00000.tar"]);
        assert_eq!(of("*.tar").unwrap(), ["00000.tar", "00001.tar", "00002.tar"]);
        assert_eq!(of("0000[02].{tar,t?r}").unwrap(), ["00000.tar", "00002.tar", "00000.tar", "00002.tar"]);
        assert_eq!(of("a{0..1}.csv").unwrap(), ["a{0..1}.csv"]);
        assert_eq!(of("b[1].csv").unwrap(), ["b[1].csv"]);
        assert_eq!(of("absent.csv").unwrap(), ["absent.csv"]);
        for (pattern, message) in [
            ("{00001..00003}.tar", "00003.tar does not exist"),
            ("*.parquet", "*.parquet matches nothing"),
            ("[.tar", "no glob pattern"),
        ] {
            let error = of(pattern).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(pattern), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_word_is_expanded_within_bounds(word in "[{},.0-9a-c]{0,24}") {
            if let Some(words) = braces(&word) {
                prop_assert!(!words.is_empty() && words.len() <= MAX_EXPANDED);
            }
        }
    }
}

//! The files of `--output`: which result goes where, and results from before.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xmore_eval::{EvalMethod, EvalReport};
use xmore_files::{NotRegular, Output, is_standard_output, read_bounded};

use super::entry::{Entry, LANGUAGE, TASK, split_name};
use crate::error::{CliError, Result};
use crate::messages::tell;
use crate::output::{output_error, write_whole};

/// Results of a run with every method, variant and number of captions have some megabytes.
const MAX_RESULTS_BYTES: u64 = 1 << 30;

/// Where the results of one model go.
pub(super) struct Outputs<'a> {
    given: &'a Path,
    model: &'a str,
    /// Whether lines of other datasets stay in a file of lines.
    keep_lines: bool,
    /// Files of lines that this run has begun, with all their lines.
    lines: BTreeMap<PathBuf, Vec<Entry>>,
}

/// What is there from before.
pub(super) enum Existing {
    Nothing,
    Same(Box<EvalReport>),
    Different,
}

impl<'a> Outputs<'a> {
    /// For results on these datasets. `keep_lines` leaves what other runs wrote in a file of lines.
    ///
    /// # Errors
    /// That two datasets would be written to one file which is none of lines, or that a file cannot be written.
    pub(super) fn new(
        given: &'a Path,
        model: &'a str,
        datasets: &[String],
        keep_lines: bool,
    ) -> Result<Self> {
        let outputs = Self { given, model, keep_lines, lines: BTreeMap::new() };
        let mut places: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for dataset in datasets {
            let path = outputs.path(dataset, "m");
            if let Some(other) = places.insert(path.clone(), dataset).filter(|_| !is_lines(&path)) {
                return Err(CliError::Usage(format!(
                    "--output {} names one file for the datasets {other} and {dataset}: give a folder or a .jsonl file, or put {{dataset}} \
                     into the name",
                    given.display()
                )));
            }
        }
        for path in places.keys().filter(|path| !path.exists() || path.is_file()) {
            // What cannot be written is found before any work; dropped, it leaves everything as it was.
            drop(Output::create(path).map_err(|error| output_error(path, error))?);
        }
        Ok(outputs)
    }

    /// The file of a result: a name with places, filled; what is there and no folder, a stream, a `.json` or `.jsonl`, as it is; else a file
    /// in the folder.
    fn path(&self, dataset: &str, method: &str) -> PathBuf {
        let (architecture, pretrained) = split_name(self.model);
        let clean = |text: &str| text.replace(['/', '\\', ':', ','], "-").replace(' ', "_");
        let fill = |text: &str| {
            text.replace("{dataset}", &clean(dataset))
                .replace("{model}", &clean(architecture))
                .replace("{pretrained}", &clean(pretrained))
                .replace("{method}", method)
                .replace("{language}", LANGUAGE)
                .replace("{task}", TASK)
        };
        let given = self.given.to_string_lossy();
        if given.contains('{') {
            return PathBuf::from(fill(&given));
        }
        if self.is_file() {
            return self.given.to_owned();
        }
        let pretrained = if pretrained.is_empty() { "" } else { "_{pretrained}" };
        self.given.join(fill(&format!("{{dataset}}_{{model}}{pretrained}_{{method}}.json")))
    }

    fn is_file(&self) -> bool {
        let path = self.given;
        !path.is_dir()
            && (path.exists()
                || is_standard_output(path)
                || path.extension().is_some_and(|extension| extension == "json")
                || is_lines(path))
    }

    /// The file that a dataset's results were written to as a list, before each had its own.
    fn former_path(&self, dataset: &str) -> PathBuf {
        let path = self.path(dataset, "");
        let name = path.file_name().map(|name| name.to_string_lossy().replace("_.json", ".json"));
        name.map_or(path.clone(), |name| path.with_file_name(name))
    }

    /// Looks for a dataset's results with these settings.
    ///
    /// # Errors
    /// That a file cannot be read, or is something else: it is not to be lost.
    pub(super) fn existing(&self, dataset: &str, settings: &Value) -> Result<(PathBuf, Existing)> {
        let mut paths: Vec<PathBuf> =
            EvalMethod::all().map(|method| self.path(dataset, method.name())).collect();
        paths.dedup();
        if paths.len() > 1 {
            paths.push(self.former_path(dataset));
        }
        let first = paths[0].clone();
        let (mut apart, mut found) = (Vec::new(), false);
        for path in paths {
            let mut entries = read(&path)?;
            entries.retain(|entry| entry.is_of(dataset, self.model));
            found |= !entries.is_empty();
            if entries.is_empty() || entries.iter().any(|entry| entry.settings() != settings) {
                continue;
            }
            if entries.iter().all(|entry| entry.methods().is_none()) {
                if let Some(report) = Entry::join(entries) {
                    return Ok((path, Existing::Same(Box::new(report))));
                }
            } else {
                apart.extend(entries);
            }
        }
        if let Some(report) = together(apart) {
            return Ok((first, Existing::Same(Box::new(report))));
        }
        Ok((first, if found { Existing::Different } else { Existing::Nothing }))
    }

    /// Writes a dataset's results, each to its file.
    ///
    /// # Errors
    /// That a file cannot be written.
    pub(super) fn write(&mut self, entries: Vec<Entry>) -> Result<()> {
        let methods: Vec<String> = entries.iter().map(|entry| entry.method().to_owned()).collect();
        let mut files: BTreeMap<PathBuf, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            files.entry(self.path(entry.dataset(), entry.method())).or_default().push(entry);
        }
        for (path, mut entries) in files {
            if is_lines(&path) {
                self.write_lines(path, entries)?;
                continue;
            }
            if entries.len() < methods.len() {
                entries = entries.into_iter().map(|entry| entry.among(&methods)).collect();
            }
            if entries.len() > 1 {
                tell!(
                    "{}: a list of {} results; `clip_benchmark build` reads files of one, which a folder gets, or a name with {{method}}",
                    path.display(),
                    entries.len()
                );
            }
            write_whole(&path, |file| {
                match entries.as_slice() {
                    [entry] => serde_json::to_writer_pretty(&mut *file, entry)?,
                    entries => serde_json::to_writer_pretty(&mut *file, entries)?,
                }
                file.write_all(b"\n")
            })?;
        }
        Ok(())
    }

    /// Writes lines behind those of this run, and of earlier runs if they are kept.
    fn write_lines(&mut self, path: PathBuf, entries: Vec<Entry>) -> Result<()> {
        if !self.lines.contains_key(&path) {
            let kept = if self.keep_lines { read(&path)? } else { Vec::new() };
            self.lines.insert(path.clone(), kept);
        }
        let lines = self.lines.entry(path.clone()).or_default();
        lines.retain(|line| entries.iter().all(|entry| !line.is_of(entry.dataset(), self.model)));
        // A stream has what was written before.
        let is_stream = is_standard_output(&path) || path.exists() && !path.is_file();
        let written = if is_stream { lines.len() } else { 0 };
        lines.extend(entries);
        write_whole(&path, |file| {
            lines[written..].iter().try_for_each(|entry| {
                serde_json::to_writer(&mut *file, entry)?;
                file.write_all(b"\n")
            })
        })
    }
}

/// Whether a file has a result in each line.
fn is_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// The report of entries that were measured together, if all of them are there.
fn together(mut entries: Vec<Entry>) -> Option<EvalReport> {
    let methods = entries.first()?.methods()?.to_vec();
    let mut ordered = Vec::new();
    for method in &methods {
        let at =
            entries.iter().position(|entry| entry.method() == method && entry.methods() == Some(&methods))?;
        ordered.push(entries.swap_remove(at));
    }
    Entry::join(ordered)
}

/// The results in a file: an object, a list, or lines. None of what is not there; streams and devices keep nothing.
fn read(path: &Path) -> Result<Vec<Entry>> {
    let bytes = match read_bounded(path, MAX_RESULTS_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound || NotRegular::of(&error).is_some() => {
            return Ok(Vec::new());
        }
        Err(reason) => return Err(CliError::Io { action: "read", path: path.to_owned(), reason }),
    };
    let parsed = if is_lines(path) {
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        lines.map(serde_json::from_slice).collect()
    } else if bytes.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(&bytes)
    } else {
        serde_json::from_slice(&bytes).map(|entry| vec![entry])
    };
    // Whatever it is, if it is not ours it is not to be lost.
    parsed.map_err(|error| {
        CliError::Failed(format!(
            "{}: expected results of xmore eval, found something else: {error}",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_asked() {
        let name = |output: &str, model: &str| {
            let outputs =
                Outputs { given: Path::new(output), model, keep_lines: false, lines: BTreeMap::new() };
            outputs.path("DTD", "xmore").display().to_string()
        };
        assert_eq!(name("out", "ViT-B-16,openai"), "out/DTD_ViT-B-16_openai_xmore.json");
        assert_eq!(name("out", "lite"), "out/DTD_lite_xmore.json");
        assert_eq!(name("x.json", "lite"), "x.json");
        assert_eq!(name("x.jsonl", "lite"), "x.jsonl");
        assert_eq!(name("-", "lite"), "-");
        #[cfg(unix)]
        assert_eq!(name("/dev/null", "lite"), "/dev/null");
        assert_eq!(
            name("b_{dataset}_{pretrained}_{model}_{method}_{language}_{task}.json", "RN50,openai"),
            "b_DTD_openai_RN50_xmore_en_zeroshot_classification.json"
        );
        assert_eq!(name("out", "local-dir:/a/b"), "out/DTD_local-dir--a-b_xmore.json");
    }

    #[test]
    fn a_list_from_before_is_looked_for_where_it_was() {
        let outputs = Outputs {
            given: Path::new("out"),
            model: "RN50,openai",
            keep_lines: true,
            lines: BTreeMap::new(),
        };
        assert_eq!(outputs.former_path("DTD"), Path::new("out/DTD_RN50_openai.json"));
    }
}

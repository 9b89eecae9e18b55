//! From encoded batches to printed answers, with a bound on the photos in between.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use xmore::{Classifier, EncodedQueries, PartlySeen};
use xmore_files::LeftOut;

use super::output::Printer;
use crate::error::{CliError, Result};
use crate::fallback::evidence;
use crate::hints::Hints;
use crate::interrupt;
use crate::messages::images::tell_partly_seen_queries;
use crate::messages::tell;
use crate::setup::Setup;

/// Photos that are classified together: one pass over the memory serves all of them.
const TOGETHER: usize = 128;
/// Photos that are encoded are classified after this time, however few they are.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Photos on their way to their answers.
pub(super) struct Stream<'a> {
    setup: &'a Setup,
    files: &'a [PathBuf],
    /// Set when the labels are embedded; `None` if that failed.
    classifier: &'a OnceLock<Option<Classifier>>,
    /// By the image alone, once the remote index cannot be reached and that is allowed.
    zero_shot: Option<Classifier>,
    printer: Printer,
    bar: ProgressBar,
    waiting: EncodedQueries,
    last: Instant,
    /// Files that have an answer or an error.
    done: usize,
    failed: usize,
    partly_seen: PartlySeen,
    hints: Hints,
    /// What was left out of folders, and the files that could not be read.
    pub(super) left_out: LeftOut,
    told: HashSet<String>,
    error: Option<CliError>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        setup: &'a Setup,
        files: &'a [PathBuf],
        classifier: &'a OnceLock<Option<Classifier>>,
        printer: Printer,
        bar: ProgressBar,
    ) -> Self {
        Self {
            setup,
            files,
            classifier,
            zero_shot: None,
            printer,
            bar,
            waiting: EncodedQueries::default(),
            last: Instant::now(),
            done: 0,
            failed: 0,
            partly_seen: PartlySeen::default(),
            hints: Hints::default(),
            left_out: LeftOut::default(),
            told: HashSet::new(),
            error: None,
        }
    }

    /// Takes a batch; says whether to go on.
    pub(super) fn take(&mut self, mut batch: EncodedQueries) -> bool {
        self.bar.set_position(batch.end as u64);
        self.failed += batch.failed.len();
        self.done += batch.failed.len();
        for (i, error) in batch.failed.drain(..) {
            self.left_out.add(error.left_out_reason(), &self.files[i]);
            self.bar.suspend(|| tell!("error: {error}"));
            self.hints.collect(&error);
        }
        self.partly_seen += std::mem::take(&mut batch.partly_seen);
        self.waiting.append(batch);
        let due = self.waiting.len() >= TOGETHER || self.last.elapsed() >= LONGEST_WAIT;
        match self.classifier.get() {
            Some(None) => return false,
            Some(Some(classifier)) if due => {
                if let Err(error) = self.answer(classifier) {
                    self.error = Some(error);
                    return false;
                }
            }
            // Without labels yet, embeddings wait; they are small.
            _ => {}
        }
        !interrupt::requested()
    }

    /// Answers what still waits, and ends the output, which is whole even after an error. Returns how many files are done, and how many of
    /// them failed.
    pub(super) fn finish(&mut self) -> Result<(usize, usize)> {
        self.bar.suspend(|| {
            tell_partly_seen_queries(self.partly_seen, &self.setup.model);
            self.hints.tell();
        });
        let Some(Some(classifier)) = self.classifier.get() else { return Ok((self.done, self.failed)) };
        if self.error.is_none() {
            self.error = self.answer(classifier).err();
        }
        let ended = self.bar.suspend(|| self.printer.end());
        match self.error.take() {
            Some(error) => Err(error),
            None => ended.map(|()| (self.done, self.failed)),
        }
    }

    fn answer(&mut self, classifier: &Classifier) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.last = Instant::now();
        let Some(queries) = waiting.queries else { return Ok(()) };
        let evidence = evidence(&self.setup.pipeline, classifier, &mut self.zero_shot, &queries)?;
        for note in evidence.iter().filter_map(|evidence| evidence.note.as_ref()) {
            if self.told.insert(note.clone()) {
                self.bar.suspend(|| tell!("{note}"));
            }
        }
        let photos = waiting.kept.iter().map(|&file| self.files[file].as_path()).zip(&evidence);
        self.bar.suspend(|| self.printer.photos(photos, classifier))?;
        self.done += evidence.len();
        Ok(())
    }
}

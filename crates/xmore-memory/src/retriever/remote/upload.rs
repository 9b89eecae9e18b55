//! A memory into a remote index: what is missing is sent, what was sent is counted, and nothing is there twice.
//!
//! Rows are kept under the memory's own ids, so sending a row again changes nothing. Which rows the remote index has is
//! asked of it each time, by counts of ranges; nothing is remembered here, so an upload may end in any way and
//! be started again from anywhere.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use super::label::other_model;
use crate::error::{MemoryError, Result};
use crate::retriever::RemoteError;
use crate::store::{Memory, ModelIdentity};

/// A range of so few rows is sent again as a whole if some are missing: sending takes less time than counting on.
const RESEND_ROWS: u64 = 4096;
/// Pairs whose texts are compared with the memory's before more is sent.
const SAMPLES: u64 = 64;
/// More requests than this at a time were no faster.
const SENDERS: usize = 2;
/// How often what is still missing at the end is sent again: a server that started anew may have lost some.
const ROUNDS: usize = 3;

/// How a new index is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexKind {
    /// Every row is compared: exact, as the search in a local memory is.
    #[default]
    Flat,
    /// The server's own choice, such as Milvus's `AUTOINDEX`: approximate, for indexes too large to scan.
    Auto,
}

/// Texts of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairMetadata {
    /// The caption.
    pub caption: String,
    /// The image's path.
    pub image_path: String,
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadProgress {
    /// Pairs that the server has.
    pub done: u64,
    /// Pairs of the memory.
    pub total: u64,
}

/// What an upload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadReport {
    /// Pairs of the memory.
    pub total: u64,
    /// Pairs that were there before.
    pub present: u64,
    /// Pairs that were sent; some of them may have been there before.
    pub sent: u64,
    /// Pairs that were left out, since their embeddings are not finite.
    pub skipped: u64,
    /// Texts that the remote index does not take as they are (too long, or with a zero character), and that were changed.
    pub changed: u64,
    /// Whether all pairs are there now and can be found. If not, the caller stopped it, and the same call goes on.
    pub complete: bool,
}

/// What a memory is uploaded to.
pub(super) trait Target: Send + Sync {
    /// What pairs are in, as the user knows it: its kind, a space, and its quoted name.
    fn name(&self) -> String;

    /// The model of its embeddings.
    fn model(&self) -> &ModelIdentity;

    /// An error about what the remote index said.
    fn remote(&self, reason: String) -> MemoryError;

    /// Number of rows with ids of a range (all if `None`), those of the last [`send`](Self::send) included.
    fn count(&self, ids: Option<Range<u64>>) -> Result<u64>;

    /// The texts of some pairs, `None` for ids that are not there.
    fn metadata(&self, ids: &[u64]) -> Result<Vec<Option<PairMetadata>>>;

    /// A text as it is kept, which may be another than the memory's.
    fn kept_text<'a>(&self, text: &'a str) -> Cow<'a, str>;

    /// How many rows of `dim` values are sent at a time.
    fn rows_of_request(&self, dim: usize) -> u64;

    /// Most requests at the same time.
    fn parallel(&self) -> usize;

    /// Sends the rows of a range; those that are there stay, or are replaced by the same.
    fn send(&self, memory: &Memory, range: Range<u64>) -> Result<Sent>;

    /// Called when all rows are there: sees to it that searches find them.
    fn finish(&self, present: u64) -> Result<()>;
}

/// What one request sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Rows in it.
    pub rows: u64,
    /// Rows left out, whose embedding is not finite.
    pub skipped: u64,
    /// Texts that were changed.
    pub changed: u64,
}

/// A remote index that can be filled, as [`Location::create`](crate::retriever::Location::create) gives it.
pub struct Upload(Box<dyn Target>);

impl Upload {
    pub(super) fn new(target: Box<dyn Target>) -> Self {
        Self(target)
    }

    /// Sends a memory's pairs that the index has not. `progress` is told after each request and returns whether
    /// to go on. At the end all pairs are counted, and are visible to searches.
    ///
    /// May be called again after any interruption, and after the memory has grown.
    ///
    /// # Errors
    /// [`RemoteError::Refused`] if the memory is of another model, the index holds other pairs, or pairs stay
    /// missing; [`RemoteError::Unreachable`] if the server is away for longer than
    /// [`upload_retry_time`](super::RemoteOptions::upload_retry_time), with how far it came. Those of reading the memory.
    pub fn run(
        &self,
        memory: &Memory,
        mut progress: impl FnMut(UploadProgress) -> bool,
    ) -> Result<UploadReport> {
        upload(self.0.as_ref(), memory, &mut progress)
    }
}

/// Fills a target; see [`Upload::run`].
pub(super) fn upload(
    target: &dyn Target,
    memory: &Memory,
    progress: &mut dyn FnMut(UploadProgress) -> bool,
) -> Result<UploadReport> {
    if let Some(reason) = other_model(&target.name(), target.model(), &memory.manifest().model) {
        return Err(target.remote(reason));
    }
    Filling { target }.run(memory, progress)
}

/// One upload.
struct Filling<'a> {
    target: &'a dyn Target,
}

impl Filling<'_> {
    fn run(&self, memory: &Memory, progress: &mut dyn FnMut(UploadProgress) -> bool) -> Result<UploadReport> {
        let total = memory.len();
        let mut report = UploadReport { total, ..UploadReport::default() };
        let mut present = self.present(total)?;
        report.present = present;
        self.check_samples(memory, present)?;
        let mut progress = |done: u64| progress(UploadProgress { done: done.min(total), total });
        if !progress(present) {
            return Ok(report);
        }
        for round in 0..ROUNDS {
            let missing = self.missing(0..total, present)?;
            if missing.is_empty() {
                break;
            }
            // Skipped and changed rows are missing or sent each time.
            (report.skipped, report.changed) = (0, 0);
            let done = if round == 0 {
                present
            } else {
                total - missing.iter().map(|r| r.end - r.start).sum::<u64>()
            };
            let mut confirmed = done;
            let go_on = self.send(memory, &missing, &mut report, &mut |sent| {
                confirmed = (done + sent).min(total);
                progress(confirmed)
            });
            if !go_on.map_err(|error| with_progress(error, confirmed, total))? {
                return Ok(report);
            }
            present = self.present(total)?;
            if present + report.skipped >= total {
                break;
            }
        }
        if present + report.skipped < total {
            let missing = total - report.skipped - present;
            return Err(self.target.remote(format!(
                "{missing} of {total} pairs are missing although the server took them all; upload again"
            )));
        }
        self.target.finish(present)?;
        report.complete = true;
        Ok(report)
    }

    /// Number of the memory's pairs that are there; other pairs are refused.
    fn present(&self, total: u64) -> Result<u64> {
        // In this order another upload of the same memory, between the two, does no harm.
        let all = self.target.count(None)?;
        let present = self.target.count(Some(0..total))?;
        if all > present {
            let (name, others) = (self.target.name(), all - present);
            return Err(self.target.remote(format!(
                "{name} holds {others} pairs beyond the memory's {total}: it is of another memory; choose another one"
            )));
        }
        Ok(present)
    }

    /// Compares texts of pairs all over the memory: another memory of the same model would be found out.
    fn check_samples(&self, memory: &Memory, present: u64) -> Result<()> {
        let total = memory.len();
        if present == 0 || total == 0 {
            return Ok(());
        }
        // Uploads fill a collection from the beginning.
        let among = if present < total { present } else { total };
        let ids: Vec<u64> = (0..SAMPLES.min(among)).map(|i| i * among / SAMPLES.min(among)).collect();
        for (id, found) in ids.iter().zip(self.target.metadata(&ids)?) {
            let Some(found) = found else { continue };
            let (caption, path) =
                (self.target.kept_text(memory.caption(*id)?), self.target.kept_text(memory.image_path(*id)?));
            if found.caption != *caption || found.image_path != *path {
                return Err(self.target.remote(format!(
                    "pair {id} of {} is {:?} of {:?}, in the memory it is {caption:?} of {path:?}: it \
                     holds another memory; choose another one",
                    self.target.name(),
                    found.caption,
                    found.image_path
                )));
            }
        }
        Ok(())
    }

    /// Ranges in which pairs are missing, found by halving; `present` is the number of pairs in `range`.
    fn missing(&self, range: Range<u64>, present: u64) -> Result<Vec<Range<u64>>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        let mut open = vec![(range, present)];
        while let Some((range, present)) = open.pop() {
            let length = range.end - range.start;
            if present >= length {
                continue;
            }
            if present == 0 || length <= RESEND_ROWS {
                match missing.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => missing.push(range),
                }
                continue;
            }
            let middle = range.start + length / 2;
            let first = self.target.count(Some(range.start..middle))?;
            // Ranges are taken from the end, so the first half goes last.
            open.push((middle..range.end, present.saturating_sub(first)));
            open.push((range.start..middle, first));
        }
        Ok(missing)
    }

    /// Sends the rows of some ranges. Returns whether all were sent, `false` if `progress` ended it.
    fn send(
        &self,
        memory: &Memory,
        ranges: &[Range<u64>],
        report: &mut UploadReport,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool> {
        let step = self.target.rows_of_request(memory.dim());
        let requests = Mutex::new(ranges.iter().flat_map(|range| {
            let end = range.end;
            (range.start..end).step_by(step as usize).map(move |from| from..end.min(from + step))
        }));
        let stop = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel::<Result<Sent>>();
        let work = |sender: mpsc::Sender<Result<Sent>>| {
            while !stop.load(Ordering::Relaxed) {
                let next = requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                let Some(range) = next else { break };
                let sent = self.target.send(memory, range);
                stop.fetch_or(sent.is_err(), Ordering::Relaxed);
                // The receiver is gone if the caller's function panicked.
                if sender.send(sent).is_err() {
                    break;
                }
            }
        };
        let mut result = Ok(true);
        thread::scope(|scope| {
            for started in 0..SENDERS.min(self.target.parallel()).max(1) {
                let to_worker = sender.clone();
                if thread::Builder::new().spawn_scoped(scope, || work(to_worker)).is_err() {
                    // With fewer threads it takes longer; without any, this one sends.
                    if started == 0 {
                        work(sender.clone());
                    }
                    break;
                }
            }
            drop(sender);
            let mut done = 0;
            for sent in receiver {
                match sent {
                    Ok(batch) => {
                        report.sent += batch.rows;
                        report.skipped += batch.skipped;
                        report.changed += batch.changed;
                        done += batch.rows;
                        if !progress(done) && result.is_ok() {
                            stop.store(true, Ordering::Relaxed);
                            result = Ok(false);
                        }
                    }
                    Err(error) if result.is_ok() => result = Err(error),
                    Err(_) => {}
                }
            }
        });
        result
    }
}

/// Adds how far an upload came to the error that ended it.
fn with_progress(error: MemoryError, confirmed: u64, total: u64) -> MemoryError {
    let add = |reason: String| {
        format!(
            "{reason}. {confirmed} of {total} pairs are there: the same upload again goes on where this one stopped"
        )
    };
    match error {
        MemoryError::Remote(RemoteError::Unreachable { location, attempts, reason }) => {
            RemoteError::Unreachable { location, attempts, reason: add(reason) }.into()
        }
        MemoryError::Remote(RemoteError::Refused { location, reason }) => {
            RemoteError::Refused { location, reason: add(reason) }.into()
        }
        other => other,
    }
}

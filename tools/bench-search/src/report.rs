//! What is printed.

use std::fmt;

use serde::Serialize;

/// The middle value; of an even number the mean of the two.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// One library in one row.
#[derive(Serialize)]
pub struct Entry {
    pub name: String,
    pub version: String,
    /// Milliseconds of each turn, the whole batch.
    pub ms: Vec<f64>,
    /// Mean share of the true best that are found.
    pub recall: f64,
    /// Why it did not run.
    pub not_run: Option<String>,
}

/// One batch size on one set of rows.
#[derive(Serialize)]
pub struct Row {
    pub rows: usize,
    pub dim: usize,
    pub batch: usize,
    pub entries: Vec<Entry>,
    /// Bytes of codes and of rows that are read for the batch at least.
    pub code_bytes: u64,
    pub row_bytes: u64,
    /// Of the whole batch: rows the codes could not exclude, rows scored exactly, queries that the bounds did not decide.
    pub candidates: u64,
    pub scored: u64,
    pub undecided: u64,
    /// Whether all results with codes had the bits of those without.
    pub same_bits: bool,
}

/// Opening, in a process of its own.
#[derive(Serialize, serde::Deserialize)]
pub struct Opened {
    pub rows: usize,
    pub ms: f64,
    /// Resident bytes before, after opening, and after one query.
    pub before: u64,
    pub opened: u64,
    pub queried: u64,
    /// The first query's time, which maps the pages.
    pub first_query_ms: f64,
}

/// Everything measured.
#[derive(Serialize)]
pub struct Report {
    pub threads: usize,
    pub n: usize,
    /// Bytes per second of a plain read.
    pub bandwidth: f64,
    pub rows: Vec<Row>,
    pub opened: Vec<Opened>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows of {}, batch of {}", self.rows, self.dim, self.batch)?;
        let ours = self.entries.first().map_or(f64::NAN, |e| median(&e.ms));
        for entry in &self.entries {
            match &entry.not_run {
                Some(why) => writeln!(f, "  {:<16} not run: {why}", entry.name)?,
                None => {
                    let (ms, least) =
                        (median(&entry.ms), entry.ms.iter().copied().fold(f64::INFINITY, f64::min));
                    writeln!(
                        f,
                        "  {:<16} {ms:>9.2} ms (least {least:.2}), {:>8.3} ms a query, {:>6.2} x ours, recall {:.4}  {}",
                        entry.name,
                        ms / self.batch as f64,
                        ms / ours,
                        entry.recall,
                        entry.version
                    )?;
                }
            }
        }
        let a_query = |n: u64| n as f64 / self.batch as f64;
        let (candidates, scored) = (a_query(self.candidates), a_query(self.scored));
        writeln!(
            f,
            "  a query: {candidates:.0} candidates, {scored:.0} scored; {} undecided; bits as without codes: {}",
            self.undecided,
            if self.same_bits { "yes" } else { "NO" }
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} threads, top {}; memory is read at {:.1} GB/s",
            self.threads,
            self.n,
            self.bandwidth / 1e9
        )?;
        for row in &self.rows {
            write!(f, "{row}")?;
            for (entry, bytes) in row.entries.iter().zip([row.code_bytes, row.row_bytes]) {
                let rate = bytes as f64 / median(&entry.ms) * 1e3;
                let share = 100.0 * rate / self.bandwidth;
                writeln!(f, "  {:<16} {:.1} GB/s, {share:.0} % of the bandwidth", entry.name, rate / 1e9)?;
            }
        }
        let mib = |a: u64, b: u64| a.saturating_sub(b) as f64 / f64::from(1 << 20);
        for o in &self.opened {
            writeln!(
                f,
                "{} rows: open {:.2} ms, {:.1} MiB resident; first query {:.1} ms, {:.1} MiB more",
                o.rows,
                o.ms,
                mib(o.opened, o.before),
                o.first_query_ms,
                mib(o.queried, o.opened)
            )?;
        }
        Ok(())
    }
}

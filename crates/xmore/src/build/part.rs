//! One part of a build that several processes divide among them: which pairs are its own, built into a memory, and recorded so that
//! [`merge_memories`](super::merge_memories) makes of all parts the memory of one build.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use xmore_files::path_to_text;
use xmore_memory::ingest::{Pair, Source};
use xmore_memory::store::{
    BUILDING_DIR, Division, Listing, ListingWriter, MANIFEST_FILE, MemoryWriter, Mode, PairKeys,
    PartialBuild, finish_interrupted,
};
use xmore_memory::{Memory, MemoryError, WriteError};

use super::part_error::PartError;
use super::plan::Plan;
use super::report::{BuildOutcome, BuildReport};
use super::sources::{Digest, Sources, append_pair, append_skip, detect};
use super::write::Build;
use super::{BuildOptions, BuildProgress, manifest_of};
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};

/// Sources are divided by whole files where each part gets at least so many. With fewer the parts would differ much in size, and listing
/// all files in every part costs little.
const FILES_PER_PART: usize = 4;
/// Most parts of a build.
const MAX_PARTS: u32 = 1_000_000;
/// Bytes by which a caption that was cut is known.
pub(super) const CAPTION_DIGEST: usize = 16;

/// Which part of a divided build: `2/8` is the second of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: u32,
    of: u32,
}

impl Part {
    /// Part `number`, from 1, of `of` parts; `None` if there is no such part.
    pub fn new(number: u32, of: u32) -> Option<Part> {
        ((1..=MAX_PARTS).contains(&of) && (1..=of).contains(&number)).then_some(Part { number, of })
    }

    /// Its number, from 1.
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many parts there are.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Its range of `count` things: the ranges of all parts follow one another and differ by one at most in length.
    fn range(self, count: usize) -> Range<usize> {
        let end = |number: u32| (count as u128 * u128::from(number) / u128::from(self.of)) as usize;
        end(self.number - 1)..end(self.number)
    }

    /// Whether something is this part's that lies at `start..start + len` of `total`: its middle decides.
    fn holds(self, start: u64, len: u64, total: u64) -> bool {
        let middle = u128::from(start) * 2 + u128::from(len);
        let number = (middle * u128::from(self.of)).checked_div(u128::from(total) * 2).unwrap_or(0);
        number.min(u128::from(self.of) - 1) == u128::from(self.number - 1)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    /// Reads `NUMBER/OF`.
    fn from_str(text: &str) -> Result<Part, String> {
        let numbers =
            text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        numbers.and_then(|(number, of)| Part::new(number, of)).ok_or_else(|| {
            format!("expected I/N with I from 1 to N, such as 1/8, and N of at most {MAX_PARTS}")
        })
    }
}

impl From<&PartialBuild> for Part {
    fn from(record: &PartialBuild) -> Part {
        Part { number: record.number, of: record.of }
    }
}

/// Encodes one part of the pairs of the sources and writes them to a memory of its own in `dir`, from which
/// [`merge_memories`](super::merge_memories) takes it.
///
/// Every part is built with the same sources, model and options, wherever it is built; the memory that the parts are merged into has the
/// bytes of one that [`build_memory`](super::build_memory) builds of these. A part that was interrupted is gone on with by the same call;
/// one that is finished stays as it is. Of what is in [`BuildOptions`] the mode has no effect: a part is built anew after its folder is removed.
///
/// # Errors
/// Those of [`build_memory`](super::build_memory), and [`PartError`].
pub fn build_part(
    model: &dyn Encoder,
    sources: &[impl AsRef<OsStr>],
    part: Part,
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(BuildProgress) -> bool,
) -> Result<BuildReport> {
    let Share { sources, division, digest, from, repeated } = Share::open(sources, part, options)?;
    let (identity, orientation) = (model.identity().clone(), model.orientation());
    let record = PartialBuild::new((part.number, part.of), division, from, digest, identity, orientation);
    finish_interrupted(dir)?;
    let there = PartialBuild::read(dir)?;
    if let Some(there) = &there {
        if !there.is_same_part(&record) {
            let differs = difference(there, &record);
            return Err(PartError::OtherPart {
                dir: dir.to_owned(),
                there: there.into(),
                asked: part,
                differs,
            }
            .into());
        }
        if let Some(finished) = &there.finished {
            return Ok(nothing_to_do(dir, &sources, finished.pairs));
        }
    }
    if dir.join(MANIFEST_FILE).exists() {
        // Killed between the memory's end and the record of it.
        if there.is_none() || !is_memory_of(dir, &sources)? {
            return Err(MemoryError::from(WriteError::AlreadyExists { path: dir.to_owned() }).into());
        }
        let record = finish(model, record, dir, &sources, true)?;
        return Ok(nothing_to_do(dir, &sources, record.finished.map_or(0, |finished| finished.pairs)));
    }
    model.record_files()?;
    let mut writer = MemoryWriter::open(dir, model.identity().clone(), Mode::Create)?
        .with_orientation(orientation)?
        .with_checkpoint_every(options.checkpoint_every);
    if there.is_none() {
        if writer.pairs() > 0 {
            let (path, model) = (dir.join(BUILDING_DIR), model.identity().to_string());
            return Err(MemoryError::from(WriteError::OtherBuild { path, model }).into());
        }
        record.begin(dir)?;
    }
    let plan = Plan::new(&sources, &mut writer)?;
    if plan.stray > 0 {
        let (dir, done) = (dir.to_owned(), writer.pairs());
        return Err(XmoreError::SourcesChanged { dir, done, missing: plan.stray, mode: Mode::Create });
    }
    writer.begin_source(&sources.from, None)?;
    let resumed = writer.pairs();
    let mut build = Build::new(&sources, writer, plan, progress);
    build.run(model)?;
    let Build { writer, skipped, renormalized, partly_seen, plan, .. } = build;
    let added = writer.pairs();
    let over_limit = !options.max_skipped.allows(skipped.failed(), sources.things());
    let truncated = writer.cursor().truncated;
    let outcome = if over_limit {
        BuildOutcome::FormerKept
    } else if added == 0 {
        finish(model, record, dir, &sources, false)?;
        writer.discard()?;
        BuildOutcome::NothingRead
    } else {
        writer.finish()?;
        finish(model, record, dir, &sources, true)?;
        BuildOutcome::Written
    };
    Ok(BuildReport {
        added,
        repeated: repeated + plan.repeated,
        skipped,
        over_limit,
        truncated,
        resumed,
        renormalized,
        partly_seen,
        ..BuildReport::of(&sources, outcome, manifest_of(dir))
    })
}

/// The report on a part that was finished before.
fn nothing_to_do(dir: &Path, sources: &Sources, pairs: u64) -> BuildReport {
    BuildReport { present: pairs, ..BuildReport::of(sources, BuildOutcome::NothingNew, manifest_of(dir)) }
}

/// What two parts differ in that are of different builds.
pub(super) fn difference(one: &PartialBuild, other: &PartialBuild) -> Option<&'static str> {
    if one.of != other.of {
        Some("the number of parts")
    } else if !one.model.is_same(&other.model) {
        Some("the model")
    } else if one.orientation != other.orientation {
        Some("which way up images are decoded")
    } else if one.from != other.from {
        Some("the names of the sources")
    } else if (one.division, &one.sources) != (other.division, &other.sources) {
        Some("what the sources list")
    } else {
        None
    }
}

/// Whether the memory in `dir` was built from these sources alone.
fn is_memory_of(dir: &Path, sources: &Sources) -> Result<bool> {
    let memory = Memory::open(dir)?;
    let [source] = &memory.manifest().sources[..] else { return Ok(false) };
    Ok(source.from == sources.from && source.digest == sources.digest()?)
}

/// Records that a part is finished, with all that merging needs of it.
fn finish(
    model: &dyn Encoder,
    record: PartialBuild,
    dir: &Path,
    sources: &Sources,
    has_memory: bool,
) -> Result<PartialBuild> {
    let memory = has_memory.then(|| Memory::open(dir)).transpose()?;
    let mut listing = ListingWriter::create(dir)?;
    let mut bytes = Vec::new();
    let mut write = |listing: &mut ListingWriter, append: &dyn Fn(&mut Vec<u8>)| {
        bytes.clear();
        append(&mut bytes);
        listing.write(&bytes)
    };
    let lists_own = record.division == Division::Files;
    for skip in sources.skipped.iter().filter(|_| lists_own) {
        write(&mut listing, &|bytes| append_skip(bytes, skip))?;
    }
    let skipped = listing.end_segment();
    for pair in sources.pairs.iter().filter(|_| lists_own) {
        write(&mut listing, &|bytes| append_pair(bytes, pair))?;
    }
    let pairs = listing.end_segment();
    if let Some(memory) = memory.as_ref().filter(|memory| memory.manifest().truncated > 0) {
        write_truncated(model, memory, &mut listing)?;
    }
    let segments = Listing { skipped, pairs, truncated: listing.end_segment() };
    listing.finish()?;
    let rows = memory.as_ref().map_or(0, Memory::len);
    Ok(record.finish(dir, has_memory, rows, sources.skipped.len() as u64, segments)?)
}

/// Writes a digest of each caption of a memory that is longer than the model reads.
fn write_truncated(model: &dyn Encoder, memory: &Memory, listing: &mut ListingWriter) -> Result<()> {
    let mut seen = HashSet::new();
    for id in 0..memory.len() {
        let caption = memory.caption(id)?;
        let digest = &Sha256::digest(caption)[..CAPTION_DIGEST];
        if !seen.insert(<[u8; CAPTION_DIGEST]>::try_from(digest).expect("a digest is longer")) {
            continue;
        }
        let is_truncated = match model.tokens(caption)? {
            Some(tokens) => tokens.truncated,
            None => model.embed_texts(&[caption])?.truncated > 0,
        };
        if is_truncated {
            listing.write(digest)?;
        }
    }
    Ok(())
}

/// What of the sources is a part's own.
struct Share {
    /// Its own pairs, and what was skipped in listing that no other part tells. They are known by a name of their own.
    sources: Sources,
    division: Division,
    /// See [`PartialBuild::sources`].
    digest: String,
    /// The names of the whole sources.
    from: Vec<String>,
    /// Pairs of its own that are listed more than once.
    repeated: u64,
}

impl Share {
    fn open(arguments: &[impl AsRef<OsStr>], part: Part, options: &BuildOptions) -> Result<Share> {
        let mut sources = Sources::named(arguments, options)?;
        let detected = detect(arguments, options)?;
        for source in &detected {
            if let Source::Embeddings(folder) = source {
                return Err(PartError::Embeddings { path: folder.path().to_owned() }.into());
            }
        }
        let from = sources.from.clone();
        let (division, digest, repeated) = match Files::of(&detected, part, options)? {
            Some(files) => {
                for (source, range) in detected.into_iter().zip(files.ranges) {
                    if !range.is_empty() {
                        sources.read(source, Some(range))?;
                    }
                }
                (Division::Files, files.digest, 0)
            }
            None => {
                for source in detected {
                    sources.read(source, None)?;
                }
                let digest = sources.digest()?;
                let repeated = keep_range(&mut sources, part);
                (Division::Pairs, digest, repeated)
            }
        };
        sources.from.push(format!("part {part}"));
        Ok(Share { sources, division, digest, from, repeated })
    }
}

/// Leaves of sources, which list everything, what is a part's own. Pairs that are listed again are the part's where they are first; they are
/// taken out, and the number of those that were is returned.
fn keep_range(sources: &mut Sources, part: Part) -> u64 {
    if part.number > 1 {
        sources.skipped.clear();
        sources.notes.clear();
    }
    let own = part.range(sources.pairs.len());
    let (mut keys, mut listed, mut repeated) = (PairKeys::default(), HashSet::new(), 0);
    let mut kept = Vec::new();
    for (i, Pair { image, captions }) in std::mem::take(&mut sources.pairs).into_iter().enumerate() {
        if i == own.end {
            break;
        }
        let name = image.to_string();
        let count = captions.len();
        let captions: Vec<String> =
            captions.into_iter().filter(|caption| listed.insert(keys.of_pair(&name, caption))).collect();
        if own.contains(&i) {
            repeated += (count - captions.len()) as u64;
            if !captions.is_empty() {
                kept.push(Pair { image, captions });
            }
        }
    }
    sources.pairs = kept;
    repeated
}

/// Files that are divided among parts.
struct Files {
    /// For each source, the range of its files that is the part's own.
    ranges: Vec<Range<usize>>,
    /// Digest of the names and sizes of all files.
    digest: String,
}

impl Files {
    /// The files of a part; `None` if the sources are not divided by files.
    fn of(sources: &[Source], part: Part, options: &BuildOptions) -> Result<Option<Files>> {
        let Some(files) = sources.iter().map(Source::files).collect::<Option<Vec<&[PathBuf]>>>() else {
            return Ok(None);
        };
        if files.iter().map(|files| files.len()).sum::<usize>() < FILES_PER_PART * part.of as usize {
            return Ok(None);
        }
        let (mut keys, mut seen) = (PairKeys::default(), HashSet::new());
        let mut digest = Digest::default();
        digest.add_strings(&[&format!("{:?}", options.source.walk)]);
        let mut sizes = Vec::new();
        for path in files.iter().copied().flatten() {
            let size = std::fs::metadata(path).map_err(|e| XmoreError::io("open", path, e))?.len();
            let name = path_to_text(path);
            // The pairs of a file that is named twice would be in two parts.
            if !seen.insert(keys.of_image(&name)) {
                return Ok(None);
            }
            digest.add_strings(&[&name, &size.to_string()]);
            sizes.push(size);
        }
        let total = sizes.iter().sum();
        let (mut ranges, mut start, mut sizes) = (Vec::new(), 0, sizes.into_iter());
        for files in files {
            let mut own = 0..0;
            for (i, size) in sizes.by_ref().take(files.len()).enumerate() {
                if part.holds(start, size, total) {
                    own = if own.is_empty() { i..i + 1 } else { own.start..i + 1 };
                }
                start += size;
            }
            ranges.push(own);
        }
        Ok(Some(Files { ranges, digest: digest.value() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_from_one() {
        for text in ["1/1", "3/7", "7/7", "1/1000000"] {
            assert_eq!(text.parse::<Part>().unwrap().to_string(), text);
        }
        for text in ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/4", "a/b", "1/1000001", "1 / 4"] {
            let message = text.parse::<Part>().unwrap_err();
            assert!(message.contains("from 1 to N"), "{text}: {message}");
        }
    }

    #[test]
    fn the_shares_of_all_parts_are_everything_once_and_in_order() {
        for of in [1, 2, 3, 7, 40] {
            let parts = (1..=of).map(|number| Part::new(number, of).unwrap());
            for count in [0, 1, 5, 100] {
                let ranges: Vec<Range<usize>> = parts.clone().map(|part| part.range(count)).collect();
                assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, count));
                assert!(ranges.windows(2).all(|two| two[0].end == two[1].start));
                let lengths: Vec<usize> = ranges.iter().map(Range::len).collect();
                assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1);
            }
            for sizes in [vec![0; 9], vec![5; 9], vec![1, 0, 900, 3, 3, 0], vec![u64::MAX / 16; 12]] {
                let (total, mut start, mut last) = (sizes.iter().sum(), 0, 0);
                for size in sizes {
                    let holders: Vec<u32> = parts
                        .clone()
                        .filter(|part| part.holds(start, size, total))
                        .map(Part::number)
                        .collect();
                    assert_eq!(holders.len(), 1, "{size} at {start} of {total}, {of} parts");
                    assert!(holders[0] >= last);
                    (start, last) = (start + size, holders[0]);
                }
            }
        }
    }
}

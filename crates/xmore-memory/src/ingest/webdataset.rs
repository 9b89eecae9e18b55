//! Pairs from webdataset shards: tars in which members of one key are a sample (`<key>.jpg`, `<key>.txt`, `<key>.json`).

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore_files::image::ImageFormat;
use xmore_files::{LeftOut, WalkOptions, path_from_bytes, walk_images};

use super::caption::{self, Lines};
use super::image_ref::Span;
use super::note::Conversions;
use super::sidecar::{JSON, TEXTS};
use super::skips::Skips;
use super::{ImageRef, Ingested, Pair, Skip, SkipReason, is_image_name, tar_members};
use crate::error::{AtPath, Result};
use crate::ingest::SourceError;

/// Reads the shards `range` of all `tars` in order. With the last, images that lie loose in the `folder` that holds them are counted as
/// one skip.
///
/// If there is but one shard it must be readable and hold images; of several, those that do not are skipped.
pub(super) fn read(
    tars: &[PathBuf],
    range: Range<usize>,
    folder: Option<&Path>,
    options: &WalkOptions,
) -> Result<Ingested> {
    let mut ingested = Ingested::default();
    for tar in &tars[range.clone()] {
        if let Err(error) = read_tar(tar, options, &mut ingested) {
            if tars.len() == 1 {
                return Err(error);
            }
            ingested.skipped.push(Skip::file(tar, &error));
        }
    }
    if let Some(folder) = folder.filter(|_| range.end == tars.len()) {
        let loose = walk_images(folder, options).at("list", folder)?.files.len() as u64;
        if loose > 0 {
            let reason = SkipReason::LooseImages { count: loose };
            ingested.skipped.push(Skip::of(folder, reason));
        }
    }
    Ok(ingested)
}

/// Whether a tar holds an image, of which it reads no more than it must.
pub(super) fn holds_images(tar: &Path) -> bool {
    let mut found = false;
    let _ = tar_members::walk(tar, &mut |member, _| {
        found = is_image_name(&path_from_bytes(member.name));
        // An error is the way to end a walk.
        if found { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    found
}

/// What a key has.
#[derive(Default)]
struct Sample {
    /// Name and place of its image.
    image: Option<(Vec<u8>, Span)>,
    /// From its texts, by their extensions in [`TEXTS`].
    texts: [Option<Result<String, SkipReason>>; TEXTS.len()],
    /// From its `.json`.
    json: Option<Result<Vec<String>, SkipReason>>,
}

fn read_tar(path: &Path, options: &WalkOptions, ingested: &mut Ingested) -> Result<()> {
    let tar: Arc<Path> = path.into();
    let image =
        |name: &[u8], span| ImageRef::TarMember { tar: Arc::clone(&tar), name: name.to_owned(), span };
    let mut samples: Vec<(Vec<u8>, Sample)> = Vec::new();
    let mut index_of: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut others = BTreeSet::new();
    let mut skips = Skips::of(path);
    let mut conversions = Conversions::default();
    let mut left_out = LeftOut::default();
    let damage = tar_members::walk(path, &mut |member, input| {
        let name = member.name;
        let shown = || image(name, None).to_string();
        if options.count_member(&path_from_bytes(name), shown, &mut left_out) {
            return Ok(());
        }
        let Some((key, extension)) = split(name) else { return Ok(()) };
        let text = TEXTS.iter().position(|text| *text == extension);
        let is_json = extension == JSON;
        if text.is_none() && !is_json && ImageFormat::of_extension(&extension).is_none() {
            if others.len() < 4 {
                others.insert(format!(".{extension}"));
            }
            return Ok(());
        }
        if member.indirect {
            let message = "it is a link or a sparse file, not data".to_owned();
            skips.add_image(&image(name, None), SkipReason::Unreadable(message));
            return Ok(());
        }
        let index = *index_of.entry(key.to_owned()).or_insert_with(|| {
            samples.push((key.to_owned(), Sample::default()));
            samples.len() - 1
        });
        let sample = &mut samples[index].1;
        if let Some(text) = text {
            let (caption, conversion) = caption::of_text(input, Lines::All)?;
            conversions.add(conversion);
            sample.texts[text] = Some(caption);
        } else if is_json {
            let (captions, conversion) = caption::of_json(input)?;
            conversions.add(conversion);
            sample.json = Some(captions);
        } else if sample.image.is_some() {
            skips.add_image(&image(name, None), SkipReason::SecondImage);
        } else {
            sample.image = Some((name.to_owned(), member.span));
        }
        Ok(())
    })?;

    if samples.iter().all(|(_, sample)| sample.image.is_none()) {
        let found = match &damage {
            Some(damage) => format!("no image, and {damage}"),
            None if others.is_empty() => "no image".to_owned(),
            None => format!("no image, but {}", Vec::from_iter(others).join(", ")),
        };
        let found = if left_out.is_empty() { found } else { format!("{found}; {left_out}") };
        return Err(SourceError::WrongKind {
            path: path.to_owned(),
            expected: "a webdataset tar",
            found,
            hint: "its members must be images such as KEY.jpg with KEY.txt or KEY.json beside them, as img2dataset \
                   writes them"
                .to_owned(),
        }.into());
    }
    for (key, sample) in samples {
        match sample {
            Sample { image: None, .. } => skips.add_image(&image(&key, None), SkipReason::NoImage),
            Sample { image: Some((name, span)), texts, json } => {
                let image = image(&name, Some(span));
                match caption::choose(texts.into_iter().fold(None, caption::first), json) {
                    Ok(captions) => ingested.pairs.push(Pair { image, captions }),
                    Err(reason) => skips.add_image(&image, reason),
                }
            }
        }
    }
    if let Some(damage) = damage {
        let message = format!("the rest is missing: {damage}");
        skips.add_last(SkipReason::Damaged(message));
    }
    ingested.skipped.extend(skips.finish());
    ingested.notes.extend(conversions.note(path));
    ingested.left_out.merge(left_out);
    Ok(())
}

/// Key and extension of a member: split at the first dot after the last slash, as webdataset does. `None` for what has no dot or
/// begins with one: directories' and other programs' hidden files.
fn split(name: &[u8]) -> Option<(&[u8], String)> {
    let base = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].iter().position(|&byte| byte == b'.')?;
    let extension = || String::from_utf8_lossy(&name[dot + 1..]).to_ascii_lowercase();
    (dot > base).then(|| (&name[..dot], extension()))
}

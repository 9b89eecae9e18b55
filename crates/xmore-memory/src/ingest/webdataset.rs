//! Pairs from webdataset shards: tars in which members of one key are a sample (`<key>.jpg`, `<key>.txt`, `<key>.json`).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xmore_files::image::ImageFormat;
use xmore_files::{WalkOptions, walk_images};

use super::caption::{self, Lines};
use super::image_ref::Span;
use super::note::Conversions;
use super::skips::Skips;
use super::{ImageRef, Ingested, Pair, Skip, SkipReason, is_image_name, tar_members};
use crate::error::{AtPath, MemoryError, Result};

/// Reads shards in order. Of a `folder` that holds them, images that lie loose are counted as one skip.
///
/// One shard alone must be readable and hold images; of several, those that do not are skipped.
pub(super) fn read(tars: &[PathBuf], folder: Option<(&Path, &WalkOptions)>) -> Result<Ingested> {
    let mut ingested = Ingested::default();
    for tar in tars {
        if let Err(error) = read_tar(tar, &mut ingested) {
            if tars.len() == 1 {
                return Err(error);
            }
            ingested.skipped.push(Skip::file(tar, &error));
        }
    }
    if let Some((folder, options)) = folder {
        let loose = walk_images(folder, options).at("list", folder)?.files.len() as u64;
        if loose > 0 {
            let reason = SkipReason::LooseImages { count: loose };
            ingested.skipped.push(Skip { path: folder.to_owned(), reason });
        }
    }
    Ok(ingested)
}

/// Whether a tar holds an image, of which it reads no more than it must.
pub(super) fn holds_images(tar: &Path) -> bool {
    let mut found = false;
    let _ = tar_members::walk(tar, &mut |member, _| {
        found = member.name.is_some_and(|name| is_image_name(Path::new(name)));
        // An error is the way to end a walk.
        if found { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    found
}

/// What a key has.
#[derive(Default)]
struct Sample {
    /// Name and place of its image.
    image: Option<(String, Span)>,
    /// From its `.txt`.
    text: Option<Result<String, SkipReason>>,
    /// From its `.json`.
    json: Option<Result<Vec<String>, SkipReason>>,
}

fn read_tar(path: &Path, ingested: &mut Ingested) -> Result<()> {
    let tar: Arc<Path> = path.into();
    let mut samples: Vec<(String, Sample)> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    let mut others = BTreeSet::new();
    let mut skips = Skips::of(path);
    let mut conversions = Conversions::default();
    let damage = tar_members::walk(path, &mut |member, input| {
        let Some(name) = member.name else {
            skips.add(SkipReason::PathNotUtf8);
            return Ok(());
        };
        let Some((key, extension)) = split(name) else { return Ok(()) };
        if !matches!(extension.as_str(), "txt" | "json") && ImageFormat::of_extension(&extension).is_none() {
            if others.len() < 4 {
                others.insert(format!(".{extension}"));
            }
            return Ok(());
        }
        if member.indirect {
            let message = "it is a link or a sparse file, not data".to_owned();
            skips.add_member(name, SkipReason::Unreadable(message));
            return Ok(());
        }
        let index = *index_of.entry(key.to_owned()).or_insert_with(|| {
            samples.push((key.to_owned(), Sample::default()));
            samples.len() - 1
        });
        let sample = &mut samples[index].1;
        match extension.as_str() {
            "txt" => {
                let (caption, conversion) = caption::of_text(input, Lines::All)?;
                conversions.add(conversion);
                sample.text = Some(caption);
            }
            "json" => {
                let (captions, conversion) = caption::of_json(input)?;
                conversions.add(conversion);
                sample.json = Some(captions);
            }
            _ if sample.image.is_some() => skips.add_member(name, SkipReason::SecondImage),
            _ => sample.image = Some((name.to_owned(), member.span)),
        }
        Ok(())
    })?;

    if samples.iter().all(|(_, sample)| sample.image.is_none()) {
        let found = match &damage {
            Some(damage) => format!("no image, and {damage}"),
            None if others.is_empty() => "no image".to_owned(),
            None => format!("no image, but {}", Vec::from_iter(others).join(", ")),
        };
        return Err(MemoryError::WrongSource {
            path: path.to_owned(),
            expected: "a webdataset tar",
            found,
            hint: "its members must be images such as KEY.jpg with KEY.txt or KEY.json beside them, as img2dataset \
                   writes them"
                .to_owned(),
        });
    }
    for (key, sample) in samples {
        match sample {
            Sample { image: None, .. } => skips.add_member(&key, SkipReason::NoImage),
            Sample { image: Some((name, span)), text, json } => match caption::choose(text, json) {
                Ok(captions) => {
                    let image = ImageRef::TarMember { tar: Arc::clone(&tar), name, span: Some(span) };
                    ingested.pairs.push(Pair { image, captions });
                }
                Err(reason) => skips.add_member(&name, reason),
            },
        }
    }
    if let Some(damage) = damage {
        let message = format!("the rest is missing: {damage}");
        skips.add_last(SkipReason::Damaged(message));
    }
    ingested.skipped.extend(skips.finish());
    ingested.notes.extend(conversions.note(path));
    Ok(())
}

/// Key and extension of a member: split at the first dot after the last slash, as webdataset does. `None` for what has no dot or
/// begins with one: directories' and other programs' hidden files.
fn split(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

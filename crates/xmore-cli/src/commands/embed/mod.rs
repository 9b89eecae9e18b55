//! `xmore embed`: embeddings of photos or texts as a .npy file.

mod args;
mod partial;

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use npyz::WriterBuilder;
use xmore::{NamedModel, PartlySeen, SkipLimit, encode_each, encode_texts};
use xmore_clip::TextEmbeddings;
use xmore_files::{LeftOut, Output, is_standard_output, read_input};

use crate::error::{CliError, Result};
use crate::hints::Hints;
use crate::images::Images;
use crate::interrupt;
use crate::messages::images::{tell_left_out, tell_partly_seen_queries};
use crate::messages::tell;
use crate::output::output_error;
use crate::progress::bar_from;
use crate::skip_limit::check;
pub(crate) use args::EmbedArgs;
use partial::{Key, Partial, key};

/// Most bytes of texts that are read: the embeddings of as many texts would not fit into memory.
const MAX_TEXTS_BYTES: u64 = 1 << 30;

pub(crate) fn run(args: &EmbedArgs) -> Result<()> {
    if is_standard_output(&args.output) && io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "an .npy file is not written to a terminal: name a file or a pipe".to_owned(),
        ));
    }
    // What is wrong with the output is found before any work.
    let output = Output::create(&args.output).map_err(|e| output_error(&args.output, e))?;
    let model = args.model.open()?;
    let rows = match &args.texts {
        Some(path) => texts(&model, path, output, &args.output)?,
        None => images(&model, args, output)?,
    };
    tell!("{rows} rows of {} in {}", model.dim(), args.output.display());
    Ok(())
}

fn texts(model: &NamedModel, path: &Path, mut output: Output, output_path: &Path) -> Result<usize> {
    let failed = |reason| CliError::Io { action: "read", path: path.to_owned(), reason };
    let bytes = read_input(path, MAX_TEXTS_BYTES).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return Err(CliError::Usage(format!("{}: holds no line of text", path.display())));
    }
    let bar = bar_from(0, lines.len() as u64, "texts");
    let TextEmbeddings { embeddings, truncated } =
        encode_texts(model, &lines, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if truncated > 0 {
        tell!("{truncated} texts were longer than the model reads and were cut");
    }
    let mut write = || {
        header(&mut output, embeddings.len(), embeddings.dim())?;
        embeddings.as_slice().iter().try_for_each(|value| output.write_all(&value.to_le_bytes()))
    };
    write().and_then(|()| output.commit()).map_err(|e| output_error(output_path, e))?;
    Ok(embeddings.len())
}

fn images(model: &NamedModel, args: &EmbedArgs, mut output: Output) -> Result<usize> {
    let Images { files, mut left_out } = Images::find(&args.images, &args.folders.options())?;
    let mut made_with = format!("{} {}", model.fingerprint(), model.preprocess().orientation());
    if let Some(mode) = model.preprocess().other_resize_mode() {
        made_with = format!("{made_with} {}", mode.name());
    }
    let made_with = &made_with;
    let partial = match output.replaces() {
        Some(target) => Partial::beside(target, made_with, model.dim()),
        None => Partial::unnamed(made_with, model.dim()),
    };
    let io = |e| output_error(&args.output, e);
    let mut partial = partial.map_err(io)?;
    // A file that is not there has no key; reading it says why.
    let keys: Vec<Option<Key>> = files.iter().map(|file| key(file).ok()).collect();
    let (missing, places): (Vec<PathBuf>, Vec<usize>) = files
        .iter()
        .cloned()
        .zip(0..)
        .filter(|(_, i)| !keys[*i].is_some_and(|key| partial.has(&key)))
        .unzip();
    let before = files.len() - missing.len();
    if before > 0 {
        tell!("{before} of {} images were encoded before", files.len());
    }
    let (failed, done) = encode(model, &missing, &places, &keys, &mut partial, args, &mut left_out)?;
    tell_left_out(&left_out);
    let interrupted = done < missing.len();
    let enough = check(limit(args), failed.len() as u64, files.len() as u64, "images");
    if interrupted || enough.is_err() {
        let kept = match partial.keep().map_err(io)? {
            Some(path) => {
                format!("; what is done is in {}, and the same command goes on with it", path.display())
            }
            None => String::new(),
        };
        let of = files.len();
        return Err(match enough {
            Err(error) if !interrupted => CliError::NotEnough(format!(
                "{error}; nothing was written (--skip-broken leaves them out){kept}"
            )),
            _ => CliError::Interrupted(format!("interrupted after {} of {of} images{kept}", before + done)),
        });
    }
    let rows = files.len() - failed.len();
    let mut write = || {
        header(&mut output, rows, model.dim())?;
        let kept = keys.iter().enumerate().filter(|(i, _)| !failed.contains(i));
        for key in kept.filter_map(|(_, key)| key.as_ref()) {
            partial.copy_row(key, &mut output)?;
        }
        io::Result::Ok(())
    };
    write().and_then(|()| output.commit()).and_then(|()| partial.remove()).map_err(io)?;
    Ok(rows)
}

/// How many images may be left out.
fn limit(args: &EmbedArgs) -> SkipLimit {
    if args.skip_broken { SkipLimit::ALL } else { args.max_skipped }
}

/// Encodes the images that are missing. Returns which of all could not be read, and how many of the missing were looked at.
fn encode(
    model: &NamedModel,
    missing: &[PathBuf],
    places: &[usize],
    keys: &[Option<Key>],
    partial: &mut Partial,
    args: &EmbedArgs,
    left_out: &mut LeftOut,
) -> Result<(HashSet<usize>, usize)> {
    let before = (keys.len() - missing.len()) as u64;
    let bar = bar_from(before, keys.len() as u64, "images");
    let _orderly = interrupt::orderly();
    let (mut failed, mut done, mut error) = (HashSet::new(), 0, None);
    let (mut partly_seen, mut hints) = (PartlySeen::default(), Hints::default());
    encode_each(&[model], missing, &interrupt::requested, &mut |batch| {
        for (i, reason) in batch.failed {
            left_out.add(reason.left_out_reason(), &missing[i]);
            let what = if limit(args) == SkipLimit::NONE { "error" } else { "left out" };
            bar.suspend(|| tell!("{what}: {reason}"));
            hints.collect(&reason);
            failed.insert(places[i]);
        }
        partly_seen += batch.partly_seen;
        let rows = batch.kept.iter().zip(batch.embeddings[0].rows());
        let rows: Vec<_> = rows.filter_map(|(&i, row)| Some((keys[places[i]]?, row))).collect();
        if rows.len() < batch.kept.len() {
            // It was created after the keys were computed and before it was read.
            for &i in batch.kept.iter().filter(|&&i| keys[places[i]].is_none()) {
                bar.suspend(|| {
                    tell!("{}: was not there at the start; run the command again", missing[i].display())
                });
                failed.insert(places[i]);
            }
        }
        error = partial.push(rows.into_iter()).err();
        done = batch.end;
        bar.set_position(before + done as u64);
        error.is_none() && !interrupt::requested()
    })?;
    bar.finish_and_clear();
    tell_partly_seen_queries(partly_seen, model);
    hints.tell();
    match error {
        Some(error) => Err(output_error(&args.output, error)),
        None => Ok((failed, done)),
    }
}

/// The header of an .npy file of float32 rows.
fn header(output: &mut dyn Write, rows: usize, dim: usize) -> io::Result<()> {
    let shape = [rows as u64, dim as u64];
    npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape).writer(output).write_header_only()?;
    Ok(())
}

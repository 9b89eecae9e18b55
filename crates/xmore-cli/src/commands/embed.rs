//! `xmore embed`: embeddings of photos or texts as a .npy file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use npyz::WriterBuilder;
use xmore::{NamedModel, encode_files, encode_texts};
use xmore_clip::{Embeddings, TextEmbeddings};
use xmore_files::read_input;

use crate::args::EmbedArgs;
use crate::error::{CliError, Result};
use crate::images::{Images, tell_left_out};
use crate::progress::bar;

/// Most bytes of texts that are read: the embeddings of as many texts would not fit into memory.
const MAX_TEXTS_BYTES: u64 = 1 << 30;

pub(crate) fn run(args: &EmbedArgs) -> Result<()> {
    let model = args.model.open()?;
    let embeddings = match &args.texts {
        Some(path) => texts(&model, path)?,
        None => images(&model, args)?,
    };
    write_npy(&args.output, &embeddings)?;
    eprintln!("{} rows of {} in {}", embeddings.len(), embeddings.dim(), args.output.display());
    Ok(())
}

fn texts(model: &NamedModel, path: &Path) -> Result<Embeddings> {
    let io = |source| CliError::Io { action: "read", path: path.to_owned(), source };
    let bytes = read_input(path, MAX_TEXTS_BYTES).map_err(io)?;
    let text =
        String::from_utf8(bytes).map_err(|e| io(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return Err(CliError::Usage(format!("{}: holds no line of text", path.display())));
    }
    let bar = bar(lines.len() as u64, "texts");
    let TextEmbeddings { embeddings, truncated } =
        encode_texts(model, &lines, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if truncated > 0 {
        eprintln!("{truncated} texts were longer than the model reads and were cut");
    }
    Ok(embeddings)
}

fn images(model: &NamedModel, args: &EmbedArgs) -> Result<Embeddings> {
    let Images { files, left_out } = Images::find(&args.images, &args.walk)?;
    let bar = bar(files.len() as u64, "images");
    let encoded = encode_files(model, &files, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    for (_, error) in &encoded.failed {
        eprintln!("{}: {error}", if args.skip_broken { "left out" } else { "error" });
    }
    tell_left_out(&left_out);
    if !encoded.failed.is_empty() && !args.skip_broken {
        return Err(CliError::Failed(format!(
            "{} of {} images could not be read; nothing was written (--skip-broken leaves them out)",
            encoded.failed.len(),
            files.len()
        )));
    }
    Ok(encoded.embeddings)
}

/// Writes beside the file and renames, so that an interrupted run leaves no half of it.
fn write_npy(path: &Path, embeddings: &Embeddings) -> Result<()> {
    let io = |source| CliError::Io { action: "write", path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = BufWriter::new(File::create(&temporary)?);
        let shape = [embeddings.len() as u64, embeddings.dim() as u64];
        let mut writer =
            npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut file).begin_nd()?;
        writer.extend(embeddings.as_slice().iter().copied())?;
        writer.finish()?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.flush()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // Best effort: the error that matters is the first.
        let _ = std::fs::remove_file(&temporary);
        io(error)
    })
}

//! `xmore memory`: building, inspecting and searching memories.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;
use xmore::{BuildReport, XmoreError, build_memory, encode_files};
use xmore_memory::{Hit, Memory};

use crate::args::{
    BuildArgs, Format, InfoArgs, MemoryArgs, MemoryCommand, SearchArgs, SearchIn, ShortFormat,
};
use crate::error::{CliError, Result};
use crate::files::{print, print_json, stdout_error};
use crate::progress::bar;
use crate::table::{table, trimmed};

/// Skipped things that are listed one by one; the rest are counted.
const SHOWN: usize = 20;

pub(crate) fn run(args: &MemoryArgs) -> Result<()> {
    match &args.command {
        MemoryCommand::Build(args) => build(args),
        MemoryCommand::Info(args) => info(args),
        MemoryCommand::Search(args) => search(args),
    }
}

fn build(args: &BuildArgs) -> Result<()> {
    let model = args.model.open()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // A second Ctrl-C ends the program at once. Without a handler the first one does; the memory is then incomplete all the same.
    let _ = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    let start = Instant::now();
    let mut progress = None;
    let report = build_memory(&model, &args.sources, &args.output, args.overwrite, &mut |at| {
        let bar = progress.get_or_insert_with(|| bar(at.total as u64, "images"));
        bar.set_position(at.images as u64);
        !stop.load(Ordering::Relaxed)
    });
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    let report = match report {
        Err(XmoreError::Interrupted) => {
            let message =
                format!("stopped; {} holds no finished memory, run the command again", args.output.display());
            return Err(CliError::Failed(message));
        }
        other => other?,
    };
    tell(&report, start.elapsed().as_secs_f64());
    print(&format!("{}", args.output.display()))
}

fn tell(report: &BuildReport, seconds: f64) {
    for skipped in report.skipped.iter().take(SHOWN) {
        eprintln!("skipped {}: {}", skipped.path.display(), skipped.reason);
    }
    if report.skipped.len() > SHOWN {
        eprintln!("… and {} more", report.skipped.len() - SHOWN);
    }
    let manifest = &report.manifest;
    eprintln!(
        "{} pairs of {} images in {seconds:.1} s ({:.1} images/s), {} skipped",
        manifest.pairs,
        manifest.images,
        manifest.images as f64 / seconds,
        report.skipped.len()
    );
    if report.truncated > 0 {
        eprintln!("{} captions were longer than the model reads and were cut", report.truncated);
    }
}

fn info(args: &InfoArgs) -> Result<()> {
    let memory = Memory::open(&args.memory)?;
    let manifest = memory.manifest();
    if args.format == ShortFormat::Json {
        return print_json(manifest);
    }
    print(&format!(
        "pairs        {}\nimages       {}\nskipped      {} while it was built\nmodel        {}\nfingerprint  {}\n\
         embeddings   {} values each, float16\nparts        {}",
        manifest.pairs,
        manifest.images,
        manifest.skipped,
        manifest.model.name,
        manifest.model.sha256,
        manifest.model.dim,
        manifest.parts.len()
    ))
}

fn search(args: &SearchArgs) -> Result<()> {
    let memory = Memory::open(&args.memory)?;
    let model = args.model.open()?;
    model.check_memory(&memory)?;
    let query = match (&args.query.image, &args.query.text) {
        (Some(image), _) => {
            let mut encoded = encode_files(&model, std::slice::from_ref(image), &mut |_| {})?;
            match encoded.failed.pop() {
                Some((_, error)) => return Err(error.into()),
                None => encoded.embeddings,
            }
        }
        (None, text) => model.encode_texts(&[text.as_deref().unwrap_or_default()])?.embeddings,
    };
    let hits = match args.modality {
        SearchIn::Images => memory.search_images(query.as_slice(), args.n)?,
        SearchIn::Captions => memory.search_texts(query.as_slice(), args.n)?,
    };
    let hits = hits.into_iter().next().unwrap_or_default();
    let rows = hits.into_iter().map(|hit| Ok((hit, memory.caption(hit.id)?, memory.image_path(hit.id)?)));
    show(&rows.collect::<Result<Vec<_>>>()?, args)
}

fn show(rows: &[(Hit, &str, &str)], args: &SearchArgs) -> Result<()> {
    match args.format {
        Format::Json => {
            let rows = rows.iter().map(|(hit, caption, path)| {
                json!({"id": hit.id, "similarity": hit.similarity, "caption": caption, "image_path": path})
            });
            print_json(&rows.collect::<Vec<_>>())
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(std::io::stdout().lock());
            let fail = |e: csv::Error| stdout_error(std::io::Error::other(e));
            csv.write_record(["id", "similarity", "caption", "image_path"]).map_err(fail)?;
            for (hit, caption, path) in rows {
                let (id, similarity) = (hit.id.to_string(), hit.similarity.to_string());
                csv.write_record([id.as_str(), &similarity, caption, path]).map_err(fail)?;
            }
            csv.flush().map_err(stdout_error)
        }
        Format::Table => {
            let mut table = table(["id", "similarity", "caption", "image"], &["id", "similarity"]);
            for (hit, caption, path) in rows {
                let (id, similarity) = (hit.id.to_string(), format!("{:.3}", hit.similarity));
                table.add_row([id.as_str(), &similarity, caption, path]);
            }
            print(&trimmed(&table))
        }
    }
}

//! Builds a memory of the images in a folder that have captions beside them.
//!
//! `cargo run --release -p xmore --example build_memory -- MODEL FOLDER MEMORY`

use xmore::{BuildOptions, NamedModel, build_memory};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, memory] = &args[..] else { return Err("expected MODEL FOLDER MEMORY".into()) };
    let model = NamedModel::open(model)?;
    let report = build_memory(&model, &[folder], memory.as_ref(), &BuildOptions::default(), &mut |_| true)?;
    println!("{:?}", report.outcome);
    Ok(())
}

//! Trains the heads of models like `lite`: frozen towers' features in, `heads.safetensors` and its figures out. Run by hand; see the
//! model card.

mod classes;
mod eval;
mod features;
mod folder;
mod heads;
mod loss;
mod optim;
mod train;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde_json::json;
use xmore::NamedModel;

use features::Photos;
use train::Recipe;

/// Train the heads of `lite` or another model of its kind on Flickr8k and the image tower's own ImageNet classifier.
#[derive(Debug, Parser)]
struct Args {
    /// Flickr8k: a csv with columns image_path and caption
    #[arg(long, value_name = "FILE")]
    flickr8k: PathBuf,
    /// Photos of it that are used, in training and in the figures
    #[arg(long, value_enum, default_value_t = Photos::All)]
    photos: Photos,
    /// Labeled folders to measure zero-shot accuracy on, never to train on
    #[arg(long, value_name = "DIR", num_args = 0..)]
    eval: Vec<PathBuf>,
    /// Where to write the heads
    #[arg(short, long, default_value = "heads.safetensors")]
    output: PathBuf,
    /// Folder to write a whole model to: configuration and towers of the model given by --model, with the trained heads. It is opened
    /// with `xmore … --model local-dir:DIR`
    #[arg(long, value_name = "DIR")]
    output_model: Option<PathBuf>,
    /// Folder in which extracted features are kept between runs, by the names of the towers (made of 35,000 images and 50,000 texts:
    /// minutes)
    #[arg(long, default_value = "target/train-lite")]
    cache: PathBuf,
    /// Model folder or name that brings the towers; its own heads are not used
    #[arg(long, default_value = "lite")]
    model: String,
    #[command(flatten)]
    recipe: Recipe,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let model = NamedModel::open(&args.model)?;
    let pairs = features::flickr(&model, &args.flickr8k, args.photos, &args.cache)?;
    let classes = classes::Classes::load(&model, &args.cache)?;
    let (heads, trained) = train::train(&pairs, &classes, &args.recipe)?;
    heads.save(&args.output)?;
    if let Some(folder) = &args.output_model {
        folder::copy_with_heads(&model, &args.output, args.recipe.dim, folder)?;
    }
    // Measured as they were written, rounded to half precision.
    let heads = heads::Heads::read(&args.output)?;
    let retrieval = eval::retrieval(&heads, &pairs);
    let mut zero_shot = serde_json::Map::new();
    for folder in &args.eval {
        let (name, accuracy) = eval::zero_shot(&heads, &model, folder, &args.cache)?;
        zero_shot.insert(name, json!(accuracy));
    }
    let report = json!({
        "recipe": format!("{:?}", args.recipe),
        "steps": trained.steps,
        "final_loss": trained.final_loss,
        "seconds": trained.seconds,
        "logit_scale": heads.log_scale.exp(),
        "photos": args.photos.to_possible_value().map(|value| value.get_name().to_owned()),
        "training_photos": pairs.images[0].nrows() - pairs.held_out.len(),
        "held_out_photos": pairs.held_out.len(),
        "text_to_image_recall": retrieval,
        "zero_shot_acc1": zero_shot,
    });
    println!("{report:#}");
    Ok(())
}

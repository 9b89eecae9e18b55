//! Classifies photos with a model and, if one is named, a memory.
//!
//! `cargo run --release -p xmore --example classify -- MODEL cat,dog MEMORY|- photo.jpg …`

use std::sync::Arc;

use xmore::{AnswerOptions, Labels, Method, NamedModel, OpenPairs, Pipeline, QueryImage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, labels, memory, photos @ ..] = &args[..] else {
        return Err("expected MODEL LABELS MEMORY|- PHOTO…".into());
    };
    let pairs = match memory.as_str() {
        "-" => None,
        location => Some(Arc::new(OpenPairs::open(location, &Default::default())?)),
    };
    let method = if pairs.is_some() { Method::Xmore } else { Method::ZeroShot };
    let pipeline = Pipeline::builder(Arc::new(NamedModel::open(model)?)).pairs(pairs).build()?;
    let classifier = pipeline.classifier(Labels::new(labels.split(','))?, &[method])?;
    let images: Vec<QueryImage> = photos.iter().map(|photo| QueryImage::Path(photo.into())).collect();
    let answers = pipeline.classify(&classifier, &images, &AnswerOptions::new(method))?;
    for (photo, answer) in photos.iter().zip(answers) {
        match answer {
            Ok(answer) => {
                let best = &answer.predictions[0];
                println!("{photo}: {} ({:.1} %)", best.label, 100.0 * best.score);
            }
            Err(error) => println!("{photo}: {error}"),
        }
    }
    Ok(())
}

//! The training loop: batches of captions with their photos, batches of ImageNet classes, and the classifier as a teacher.

use std::error::Error;
use std::time::Instant;

use clap::Args;
use ndarray::{Array1, Array2, Axis, concatenate, s};

use crate::classes::{Classes, Group};
use crate::features::Pairs;
use crate::heads::{Head, Heads, Linear};
use crate::loss::{Loss, distillation, info_nce};
use crate::optim::{AdamW, one_cycle};

/// Everything that decides the result, besides the data.
#[derive(Args, Clone, Debug)]
pub struct Recipe {
    /// Seed of initial weights, batches and dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Length of an embedding
    #[arg(long, default_value_t = 256)]
    pub dim: usize,
    /// Passes over the captions
    #[arg(long, default_value_t = 12)]
    epochs: usize,
    /// Captions in a batch
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 2e-3)]
    rate: f32,
    /// Weight decay
    #[arg(long, default_value_t = 0.05)]
    decay: f32,
    /// Dropout of image features
    #[arg(long, default_value_t = 0.5)]
    image_dropout: f32,
    /// Dropout of text features
    #[arg(long, default_value_t = 0.05)]
    text_dropout: f32,
    /// Label smoothing of InfoNCE
    #[arg(long, default_value_t = 0.1)]
    smoothing: f32,
    /// ImageNet classes in a batch
    #[arg(long, default_value_t = 256)]
    classes: usize,
    /// Weight of the classes' loss
    #[arg(long, default_value_t = 0.5)]
    class_weight: f32,
    /// Chance of a class's text being a hypernym that it shares with other classes, against 1 of its name
    #[arg(long, default_value_t = 0.3)]
    hypernyms: f32,
    /// Hidden width of the heads' residual perceptrons; 0 for linear heads
    #[arg(long, default_value_t = 256)]
    hidden: usize,
    /// How much of a random photo's features is laid under a class's prototype
    #[arg(long, default_value_t = 0.5)]
    photo_mix: f32,
    /// Weight of the distillation on classes laid over photos
    #[arg(long, default_value_t = 0.1)]
    class_distill_weight: f32,
    /// Weight of the distillation from the classifier
    #[arg(long, default_value_t = 0.5)]
    distill_weight: f32,
}

/// What a training run tells of itself.
pub struct Trained {
    pub steps: usize,
    pub final_loss: f32,
    pub seconds: f64,
}

/// Chances of a class's text being a name, a synonym or a hypernym of its own, beside [`Recipe`]'s of a hypernym of several classes.
const NAME: f32 = 1.0;
const SYNONYM: f32 = 0.5;
const OWN_HYPERNYM: f32 = 0.2;
/// Highest logit scale, CLIP's.
const MAX_SCALE: f32 = 100.0;
const FIRST_SCALE: f32 = 14.0;

/// Trains both heads. The same recipe and features give the same bits on the same kind of processor.
pub fn train(pairs: &Pairs, classes: &Classes, recipe: &Recipe) -> Result<(Heads, Trained), Box<dyn Error>> {
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(recipe.seed);
    let held_out = pairs.is_held_out();
    let captions: Vec<usize> = (0..pairs.photo.len()).filter(|&c| !held_out[pairs.photo[c]]).collect();
    let photos: Vec<usize> = (0..held_out.len()).filter(|&photo| !held_out[photo]).collect();

    let train = pairs.images[0].select(Axis(0), &photos);
    let mean = train.mean_axis(Axis(0)).ok_or("no photos to train on")?;
    // The floor keeps features that are almost constant from being blown up.
    let floor = 1e-3 * train.std(1.0);
    let std: Array1<f32> = train.std_axis(Axis(0), 1.0) + floor;
    let images: Vec<_> = pairs.images.iter().map(|features| (features - &mean) / &std).collect();
    let prototypes = classes.prototypes(&((&train - &mean) / &std), &std);
    let teacher: Vec<_> = pairs.images.iter().map(|features| classes.classify(features)).collect();
    // Text features are unit vectors; the head sees them centred and at about unit variance, which goes into its weights in the end.
    let text_factor = (pairs.captions.ncols() as f32).sqrt();
    let text_mean =
        pairs.captions.select(Axis(0), &captions).mean_axis(Axis(0)).ok_or("no captions to train on")?;
    let captions_in = (&pairs.captions - &text_mean) * text_factor;
    let class_texts = (&classes.texts - &text_mean) * text_factor;
    let first_names: Vec<usize> = classes.names.iter().map(|group| group.texts[0]).collect();
    let prompts = class_texts.select(Axis(0), &first_names);

    let mut visual = Head::random(recipe.dim, images[0].ncols(), recipe.hidden, &mut rng);
    let mut text = Head::random(recipe.dim, captions_in.ncols(), recipe.hidden, &mut rng);
    let mut log_scale = FIRST_SCALE.ln();
    let mut visual_optimizer = HeadOptimizer::new(&visual, recipe.decay);
    let mut text_optimizer = HeadOptimizer::new(&text, recipe.decay);
    let mut scale_optimizer = AdamW::new(1, 0.0);
    let per_epoch = captions.len() / recipe.batch;
    let steps = per_epoch * recipe.epochs;
    let mut order = captions;
    let mut final_loss = 0.0;
    for step in 0..steps {
        if step % per_epoch == 0 {
            rng.shuffle(&mut order);
        }
        let batch = &order[step % per_epoch * recipe.batch..][..recipe.batch];
        let of: Vec<usize> = batch.iter().map(|&caption| pairs.photo[caption]).collect();
        let views: Vec<usize> = of.iter().map(|_| rng.usize(0..images.len())).collect();
        let (drawn, texts, class_negative) = draw_classes(classes, recipe, &mut rng);

        let n = of.len();
        let mut x = Array2::zeros((n + drawn.len(), images[0].ncols()));
        for (mut row, (&photo, &view)) in x.rows_mut().into_iter().zip(of.iter().zip(&views)) {
            row.assign(&images[view].row(photo));
        }
        for (mut row, &class) in x.slice_mut(s![n.., ..]).rows_mut().into_iter().zip(&drawn) {
            row.assign(&prototypes.row(class));
            let photo = photos[rng.usize(0..photos.len())];
            row.scaled_add(recipe.photo_mix, &images[0].row(photo));
        }
        let e = concatenate![
            Axis(0),
            captions_in.select(Axis(0), batch),
            class_texts.select(Axis(0), &texts),
            prompts
        ];
        let class_targets = classes.classify(&(&x.slice(s![n.., ..]) * &std + &mean));
        let v = visual.forward(dropout(x, recipe.image_dropout, &mut rng));
        let t = text.forward(dropout(e, recipe.text_dropout, &mut rng));

        let scale = log_scale.exp().min(MAX_SCALE);
        let negative = Array2::from_shape_fn((n, n), |(i, j)| of[i] != of[j]);
        let (photos_v, classes_v) = v.unit.view().split_at(Axis(0), n);
        let (captions_t, rest) = t.unit.view().split_at(Axis(0), n);
        let (classes_t, prompts_t) = rest.split_at(Axis(0), texts.len());
        let mut targets = Array2::zeros((n, prompts.nrows()));
        for (mut row, (&photo, &view)) in targets.rows_mut().into_iter().zip(of.iter().zip(&views)) {
            row.assign(&teacher[view].row(photo));
        }
        let pair = info_nce(photos_v, captions_t, scale, &negative, recipe.smoothing);
        let class = info_nce(classes_v, classes_t, scale, &class_negative, recipe.smoothing);
        let distil = distillation(photos_v, prompts_t, scale, &targets);
        let class_distil = distillation(classes_v, prompts_t, scale, &class_targets);

        let mut gradient = Gradient::zeros(&v.unit, &t.unit);
        gradient.add(&pair, 1.0, 0, 0);
        gradient.add(&class, recipe.class_weight, n, n);
        gradient.add(&distil, recipe.distill_weight, 0, n + texts.len());
        gradient.add(&class_distil, recipe.class_distill_weight, n, n + texts.len());
        let rate = one_cycle(step, steps, recipe.rate);
        let visual_gradient = visual.backward(&v, &gradient.images);
        let text_gradient = text.backward(&t, &gradient.texts);
        visual_optimizer.step(&mut visual, &visual_gradient, rate);
        text_optimizer.step(&mut text, &text_gradient, rate);
        scale_optimizer.step(std::iter::once(&mut log_scale), std::iter::once(&gradient.log_scale), rate);
        log_scale = log_scale.min(MAX_SCALE.ln());
        final_loss = gradient.value;
        if step % 100 == 0 {
            eprintln!("step {step} of {steps}, loss {final_loss:.3}, scale {scale:.1}");
        }
    }
    text.proj.weight *= text_factor;
    text.proj.bias -= &text.proj.weight.dot(&text_mean);
    let heads = Heads { mean, std, visual, text, log_scale };
    Ok((heads, Trained { steps, final_loss, seconds: start.elapsed().as_secs_f64() }))
}

/// A head's optimizers, a pair for each layer: weights decay, biases do not.
struct HeadOptimizer(Vec<[AdamW; 2]>);

impl HeadOptimizer {
    fn new(head: &Head, decay: f32) -> Self {
        let pair =
            |layer: &Linear| [AdamW::new(layer.weight.len(), decay), AdamW::new(layer.bias.len(), 0.0)];
        Self(head.layers().into_iter().map(|(_, layer)| pair(layer)).collect())
    }

    fn step(&mut self, head: &mut Head, gradients: &[Linear], rate: f32) {
        for (([weight, bias], layer), gradient) in self.0.iter_mut().zip(head.layers_mut()).zip(gradients) {
            weight.step(layer.weight.iter_mut(), gradient.weight.iter(), rate);
            bias.step(layer.bias.iter_mut(), gradient.bias.iter(), rate);
        }
    }
}

/// Sum of weighted losses' gradients over all rows of a step.
struct Gradient {
    value: f32,
    images: Array2<f32>,
    texts: Array2<f32>,
    log_scale: f32,
}

impl Gradient {
    fn zeros(images: &Array2<f32>, texts: &Array2<f32>) -> Self {
        Self {
            value: 0.0,
            images: Array2::zeros(images.raw_dim()),
            texts: Array2::zeros(texts.raw_dim()),
            log_scale: 0.0,
        }
    }

    /// Adds a loss over the rows from `image` and `text` on.
    fn add(&mut self, loss: &Loss, weight: f32, image: usize, text: usize) {
        self.value += weight * loss.value;
        self.log_scale += weight * loss.log_scale;
        self.images.slice_mut(s![image..image + loss.images.nrows(), ..]).scaled_add(weight, &loss.images);
        self.texts.slice_mut(s![text..text + loss.texts.nrows(), ..]).scaled_add(weight, &loss.texts);
    }
}

/// Different classes, a text for each, and which text is false of which class.
fn draw_classes(
    classes: &Classes,
    recipe: &Recipe,
    rng: &mut fastrand::Rng,
) -> (Vec<usize>, Vec<usize>, Array2<bool>) {
    let mut all: Vec<usize> = (0..classes.names.len()).collect();
    rng.shuffle(&mut all);
    all.truncate(recipe.classes);
    let groups: Vec<&Group> =
        all.iter().map(|&class| draw_group(classes, class, recipe.hypernyms, rng)).collect();
    let texts = groups.iter().map(|group| group.texts[rng.usize(0..group.texts.len())]).collect();
    let negative =
        Array2::from_shape_fn((all.len(), all.len()), |(i, j)| !groups[j].members.contains(&all[i]));
    (all, texts, negative)
}

fn draw_group<'a>(classes: &'a Classes, class: usize, hypernyms: f32, rng: &mut fastrand::Rng) -> &'a Group {
    let kinds = [NAME, SYNONYM, hypernyms, OWN_HYPERNYM];
    let mut at = rng.f32() * kinds.iter().sum::<f32>();
    let kind = kinds.iter().position(|&chance| {
        at -= chance;
        at < 0.0
    });
    let group = match kind {
        Some(1) => &classes.synonyms[class],
        Some(2) => {
            let above: Vec<&Group> =
                classes.hypernyms.iter().filter(|g| g.members.contains(&class)).collect();
            if above.is_empty() { &classes.names[class] } else { above[rng.usize(0..above.len())] }
        }
        Some(3) => &classes.own_hypernyms[class],
        _ => &classes.names[class],
    };
    if group.texts.is_empty() { &classes.names[class] } else { group }
}

/// Zeroes a share of the values and scales the others up.
fn dropout(mut x: Array2<f32>, share: f32, rng: &mut fastrand::Rng) -> Array2<f32> {
    if share > 0.0 {
        let keep = 1.0 / (1.0 - share);
        x.mapv_inplace(|v| if rng.f32() < share { 0.0 } else { v * keep });
    }
    x
}

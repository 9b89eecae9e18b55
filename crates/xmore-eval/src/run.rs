//! Every method on every image of a dataset, from embeddings.

use xmore_clip::Embeddings;

use super::data::Dataset;
use super::fit::{FitSamples, figures};
use super::memory_use::MemoryTally;
use super::methods::{EvalMethod, StreamProbabilities, tda, xmore_stream};
use super::metrics::{
    Accuracy, Calibration, Correctness, Outcome, class_recalls, compare, mean, selective, share, std,
};
use super::naming::LabelWords;
use super::options::EvalOptions;
use super::random::Random;
use super::report::{
    CalibratedReport, Details, EvalReport, ImageDetails, MethodReport, Naming, Orders, SweepPoint,
    VariantReport,
};
use crate::error::{EvalError, Result};
use xmore::Method;
use xmore::Queries;
use xmore::{Classifier, Evidence, Retrieval};

/// Images whose evidence is held at a time: with a thousand labels and 64 captions each it is half a megabyte.
const IMAGES_AT_A_TIME: usize = 128;
/// Captions kept of each image for the report.
const CAPTIONS_SHOWN: usize = 5;
/// Methods that all others are compared with.
const REFERENCES: [&str; 2] = ["zero-shot", "xmore"];

/// Labels under other prompts than the classifier's.
#[derive(Clone, Default)]
pub struct OtherPrompts {
    /// For [`EvalMethod::DatasetPrompts`]: unit rows `[C, dim]`.
    pub dataset: Option<Embeddings>,
    /// For the methods that need CoOp's prompts: a classifier under these.
    pub coop: Option<Classifier>,
}

impl OtherPrompts {
    /// The same with other pairs or options, or with none.
    #[must_use]
    pub fn with_retrieval(&self, retrieval: Option<&Retrieval>) -> Self {
        let coop = self.coop.as_ref().map(|coop| coop.with_retrieval(retrieval.cloned()));
        Self { coop, ..self.clone() }
    }
}

/// The embedded images of a dataset.
#[derive(Clone, Debug)]
pub struct EmbeddedDataset<'a> {
    /// The dataset.
    pub dataset: &'a Dataset,
    /// Embeddings of the images that could be read.
    pub queries: Queries,
    /// For each row of the embeddings the index of its image.
    pub kept: Vec<usize>,
}

/// Measures the methods. `classifier` has the dataset's labels and, for methods that need captions, a retrieval whose `k` is the
/// largest number of captions asked for; without one they answer by the image, as [`Evidence::scores`] says. [`Classifier::with_open_gate`] has the
/// report say what an open gate would have given ([`MemoryUse`](super::MemoryUse)). `progress` is called with how
/// many images are done and how many there will be, over all retrievals.
///
/// # Errors
/// Those of retrieving, [`xmore::XmoreError::MethodNotPrepared`], and [`EvalError::PromptsNotSetUp`] for a method
/// whose prompts `prompts` does not have.
pub fn evaluate(
    data: &EmbeddedDataset<'_>,
    classifier: &Classifier,
    prompts: &OtherPrompts,
    options: &EvalOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(EvalReport, Details)> {
    let images = data.kept.len();
    let variants: Vec<_> = options.variants.iter().filter(|_| classifier.retrieval().is_some()).collect();
    let total = images * (1 + variants.len());

    // The main one is the last.
    let mut ks: Vec<usize> = options.sweep.iter().copied().filter(|&k| k != options.k).collect();
    ks.push(options.k);
    let mut main = Pass::new(data, prompts, options, &options.methods, ks);
    main.run(classifier, &mut |done| progress(done, total))?;
    let (report, details) = main.report(classifier);

    let of_captions: Vec<EvalMethod> = options.methods.iter().copied().filter(|m| m.needs_memory()).collect();
    let mut reports = Vec::new();
    for (i, variant) in variants.into_iter().enumerate() {
        let Some(retrieval) = classifier.retrieval() else { continue };
        let retrieval = retrieval.with_options(variant.of(retrieval.options()))?;
        let prompts = prompts.with_retrieval(Some(&retrieval));
        let mut pass = Pass::new(data, &prompts, options, &of_captions, vec![options.k]);
        let mut other = classifier.with_retrieval(Some(retrieval));
        if classifier.is_kernel_prepared() {
            other = other.prepare_kernel()?;
        }
        pass.run(&other, &mut |done| progress((i + 1) * images + done, total))?;
        reports.push(VariantReport {
            variant: variant.name().to_owned(),
            coverage: pass.coverage(),
            acc1: of_captions.iter().map(|&m| (m.name().to_owned(), pass.acc1(m, 0))).collect(),
        });
    }
    Ok((EvalReport { variants: reports, ..report }, details))
}

/// Accuracies of methods of [`Method`] on images that were all read: right answers over images.
///
/// # Errors
/// Those of [`Evidence::scores`].
pub fn accuracies(evidence: &[Evidence], truth: &[usize], methods: &[Method]) -> Result<Vec<(Method, f64)>> {
    assert_eq!(evidence.len(), truth.len(), "one truth for each image");
    let accuracy = |&method: &Method| {
        let right = evidence.iter().zip(truth).map(|(evidence, &truth)| {
            Ok(usize::from(Outcome::new(&evidence.scores(method)?, truth).right()))
        });
        Ok((method, share(right.sum::<Result<usize>>()?, evidence.len())))
    };
    methods.iter().map(accuracy).collect()
}

/// One retrieval of all images, with every method at every number of captions.
struct Pass<'a> {
    data: &'a EmbeddedDataset<'a>,
    prompts: &'a OtherPrompts,
    options: &'a EvalOptions,
    methods: &'a [EvalMethod],
    ks: Vec<usize>,
    /// For each image that was read.
    truth: Vec<usize>,
    /// By number of captions, method, and order (one but for stream methods), for each image that was read.
    answers: Vec<Vec<Vec<Vec<Outcome>>>>,
    /// By method, for each image that was read, without the calibration that the method is measured with; empty without one.
    uncalibrated: Vec<Vec<Outcome>>,
    /// By method.
    samples: Vec<FitSamples>,
    images: Vec<ImageDetails>,
    memory: MemoryTally,
    notes: Vec<String>,
}

impl<'a> Pass<'a> {
    fn new(
        data: &'a EmbeddedDataset<'a>,
        prompts: &'a OtherPrompts,
        options: &'a EvalOptions,
        methods: &'a [EvalMethod],
        ks: Vec<usize>,
    ) -> Self {
        let truth = data.kept.iter().map(|&image| data.dataset.truth[image]).collect();
        let answers = vec![vec![Vec::new(); methods.len()]; ks.len()];
        Self {
            data,
            prompts,
            options,
            methods,
            ks,
            truth,
            answers,
            uncalibrated: vec![Vec::new(); methods.len()],
            samples: vec![FitSamples::default(); methods.len()],
            images: Vec::new(),
            memory: MemoryTally::default(),
            notes: Vec::new(),
        }
    }

    fn run(&mut self, classifier: &Classifier, progress: &mut dyn FnMut(usize)) -> Result<()> {
        let streams = self.methods.contains(&EvalMethod::XmoreStream);
        let coop_streams = self.methods.contains(&EvalMethod::CoopXmoreStream);
        let none = || self.ks.iter().map(|_| StreamProbabilities::default()).collect::<Vec<_>>();
        let (mut probabilities, mut coop_probabilities) = (none(), none());
        // Captions are retrieved anew for CoOp's prompts, which few runs have.
        let coop = self.prompts.coop.as_ref();
        let coop = coop.filter(|_| self.methods.iter().any(|m| m.needs_coop() && m.needs_memory()));
        let labels: Vec<LabelWords> =
            self.data.dataset.labels.names().iter().map(|name| LabelWords::new(name)).collect();
        let images = self.data.kept.len();
        let main = self.ks.len() - 1;
        for start in (0..images).step_by(IMAGES_AT_A_TIME) {
            let range = start..(start + IMAGES_AT_A_TIME).min(images);
            let queries = self.data.queries.slice(range.clone());
            let evidence = classifier.evidence_at(&queries, &self.ks)?;
            let under_coop = coop.map(|coop| coop.evidence_at(&queries, &self.ks)).transpose()?;
            for (place, (row, evidence)) in range.clone().zip(evidence).enumerate() {
                for (i, evidence) in evidence.iter().enumerate() {
                    let under_coop = under_coop.as_ref().map(|all| &all[place][i]);
                    self.answer_alone(i, row, (evidence, under_coop), classifier)?;
                    if streams {
                        probabilities[i].push(evidence);
                    }
                    if let (true, Some(evidence)) = (coop_streams, under_coop) {
                        coop_probabilities[i].push(evidence);
                    }
                }
                let label = &labels[self.truth[row]];
                self.images.push(details(&evidence[main], label));
                self.memory.add(&evidence[main], self.truth[row])?;
                if let Some(note) = evidence[main].note.as_ref().filter(|note| !self.notes.contains(note)) {
                    self.notes.push(note.clone());
                }
            }
            progress(range.end);
        }
        if coop_streams && coop.is_none() {
            return Err(not_set_up(EvalMethod::CoopXmoreStream));
        }
        self.answer_streams([&probabilities, &coop_probabilities], classifier);
        Ok(())
    }

    /// Each image by itself, by the evidence under the classifier's prompts and under CoOp's.
    fn answer_alone(
        &mut self,
        k: usize,
        row: usize,
        (evidence, under_coop): (&Evidence, Option<&Evidence>),
        classifier: &Classifier,
    ) -> Result<()> {
        let query = || self.data.queries.classify.row(row);
        let main = k + 1 == self.ks.len();
        // The number of captions means nothing to a method that uses none.
        let asked = self.methods.iter().enumerate().filter(|(_, method)| main || method.needs_memory());
        for (m, method) in asked {
            let under = |labels: Option<&Embeddings>| match labels {
                Some(labels) => Ok(classifier.probabilities(query(), labels).values),
                None => Err(not_set_up(*method)),
            };
            let truth = self.truth[row];
            let scores = match method {
                EvalMethod::Each(each) => {
                    let scores = evidence.scores(*each)?;
                    let calibration = self.options.calibrations.iter().find(|fitted| fitted.method == *each);
                    if main && calibration.is_some() {
                        self.uncalibrated[m].push(Outcome::new(&scores, truth));
                    }
                    match calibration.filter(|_| evidence.answers_by(*each)) {
                        Some(fitted) => fitted.temperature().apply(&scores),
                        None => {
                            if main && self.options.keep_samples && evidence.answers_by(*each) {
                                self.samples[m].push(scores.clone(), truth);
                            }
                            scores
                        }
                    }
                }
                EvalMethod::DatasetPrompts => under(self.prompts.dataset.as_ref())?,
                EvalMethod::Coop => under(self.prompts.coop.as_ref().map(Classifier::label_embeddings))?,
                EvalMethod::CoopXmore => {
                    under_coop.ok_or_else(|| not_set_up(*method))?.scores(Method::Xmore)?
                }
                EvalMethod::XmoreStream | EvalMethod::CoopXmoreStream | EvalMethod::Tda => continue,
            };
            let orders = &mut self.answers[k][m];
            orders.resize(1, Vec::new());
            orders[0].push(Outcome::new(&scores, truth));
        }
        Ok(())
    }

    /// All images, one after another, in each order; the probabilities under the classifier's prompts and under CoOp's.
    fn answer_streams(
        &mut self,
        [probabilities, under_coop]: [&[StreamProbabilities]; 2],
        classifier: &Classifier,
    ) {
        let seeds: Vec<u64> =
            (0..self.options.orders.max(1)).map(|i| self.options.seed.wrapping_add(i)).collect();
        let order = |seed: &u64| Random::new(*seed).order(self.data.kept.len());
        for (m, method) in self.methods.iter().enumerate() {
            match method {
                EvalMethod::XmoreStream | EvalMethod::CoopXmoreStream => {
                    let of_method = if method.needs_coop() { under_coop } else { probabilities };
                    for (k, probabilities) in of_method.iter().enumerate() {
                        let answers = in_parallel(&seeds, |seed| {
                            xmore_stream(probabilities, &order(seed), &self.truth)
                        });
                        self.answers[k][m] = answers;
                    }
                }
                EvalMethod::Tda => {
                    let images = &self.data.queries.classify;
                    let (labels, scale) = (classifier.label_embeddings(), classifier.logit_scale());
                    let answers = in_parallel(&seeds, |seed| {
                        tda(images, labels, scale, &order(seed), &self.truth, &self.options.tda)
                    });
                    if let Some(main) = self.answers.last_mut() {
                        main[m] = answers;
                    }
                }
                _ => {}
            }
        }
    }

    /// Accuracy over all images, the mean over the orders.
    fn acc1(&self, method: EvalMethod, k: usize) -> f64 {
        let at = self.methods.iter().position(|m| *m == method);
        let orders = at.map_or(&[][..], |m| &self.answers[k][m]);
        mean(&orders.iter().map(|answers| self.share_right(answers)).collect::<Vec<f64>>())
    }

    fn share_right(&self, answers: &[Outcome]) -> f64 {
        share(answers.iter().filter(|a| a.right()).count(), self.data.dataset.images.len())
    }

    fn coverage(&self) -> f64 {
        let covered = self.images.iter().filter(|image| image.caption_confidence.is_some()).count();
        share(covered, self.data.dataset.images.len())
    }

    fn report(mut self, classifier: &Classifier) -> (EvalReport, Details) {
        let dataset = self.data.dataset;
        let classes = dataset.labels.names().len();
        let main = self.ks.len() - 1;
        let mut correctness = Correctness::default();
        let mut details = Details { images: self.spread(&self.images), ..Details::default() };
        let mut methods = Vec::new();
        for (m, method) in self.methods.iter().enumerate() {
            let orders = &self.answers[main][m];
            let answers = self.spread(orders.first().map_or(&[][..], Vec::as_slice));
            correctness.add(method.name(), answers.iter().map(|a| a.is_some_and(|a| a.right())).collect());
            let accuracies: Vec<f64> = orders.iter().map(|answers| self.share_right(answers)).collect();
            let of_orders =
                Orders { count: orders.len(), acc1_mean: mean(&accuracies), acc1_std: std(&accuracies) };
            methods.push(MethodReport {
                method: method.name().to_owned(),
                accuracy: Accuracy::of(&answers, &dataset.truth, classes),
                calibration: Calibration::of(&answers),
                calibrated: self.calibrated(*method, m, &answers),
                selective: self.options.abstain_below.map(|threshold| selective(&answers, threshold)),
                orders: method.depends_on_order().then_some(of_orders),
                naming: classifier.retrieval().map(|_| naming(&answers, &details.images)),
                recalls: class_recalls(&answers, &dataset.truth, classes),
                comparisons: Vec::new(),
            });
            details.answers.push((method.name().to_owned(), answers));
            if let (EvalMethod::Each(each), true) = (method, self.options.keep_samples) {
                details.samples.push((*each, std::mem::take(&mut self.samples[m])));
            }
        }
        let comparisons = compare(&correctness, &REFERENCES, self.options.samples, self.options.seed);
        for (method, comparisons) in methods.iter_mut().zip(comparisons) {
            method.comparisons = comparisons;
        }
        let report = EvalReport {
            dataset: dataset.name.clone(),
            images: dataset.images.len(),
            unreadable: dataset.images.len() - self.data.kept.len(),
            left_out: dataset.left_out.clone(),
            empty_classes: dataset.empty_classes.clone(),
            classes,
            coverage: self.coverage(),
            methods,
            sweep: self.sweep(),
            variants: Vec::new(),
            memory: self.memory.report(dataset.images.len()),
            notes: self.notes,
        };
        (report, details)
    }

    /// The method of a place with and without its calibration.
    fn calibrated(
        &self,
        method: EvalMethod,
        place: usize,
        answers: &[Option<Outcome>],
    ) -> Option<CalibratedReport> {
        let EvalMethod::Each(method) = method else { return None };
        let fitted = self.options.calibrations.iter().find(|fitted| fitted.method == method)?;
        Some(CalibratedReport {
            temperature: fitted.temperature,
            before: figures(&self.spread(&self.uncalibrated[place])),
            after: figures(answers),
            given: fitted.threshold.map(|threshold| selective(answers, threshold.min_score)),
            target_precision: fitted.threshold.map(|threshold| threshold.target_precision),
        })
    }

    /// Accuracy of the methods that use captions over all numbers of them; nothing if there is one number only.
    fn sweep(&self) -> Vec<SweepPoint> {
        let mut ks: Vec<(usize, usize)> = self.ks.iter().copied().enumerate().map(|(i, k)| (k, i)).collect();
        ks.sort_unstable();
        ks.dedup_by_key(|(k, _)| *k);
        if ks.len() < 2 {
            return Vec::new();
        }
        let mut points = Vec::new();
        for (k, i) in ks {
            for method in self.methods.iter().filter(|method| method.needs_memory()) {
                points.push(SweepPoint { k, method: method.name().to_owned(), acc1: self.acc1(*method, i) });
            }
        }
        points
    }

    /// Values of the images that were read, at the places of all images.
    fn spread<T: Clone>(&self, of_kept: &[T]) -> Vec<Option<T>> {
        let mut all = vec![None; self.data.dataset.images.len()];
        for (value, &image) in of_kept.iter().zip(&self.data.kept) {
            all[image] = Some(value.clone());
        }
        all
    }
}

fn not_set_up(method: EvalMethod) -> EvalError {
    EvalError::PromptsNotSetUp { method: method.name(), dataset: None }
}

fn in_parallel<T: Send>(seeds: &[u64], run: impl Fn(&u64) -> T + Sync + Send) -> Vec<T> {
    use rayon::prelude::*;
    seeds.par_iter().map(run).collect()
}

fn details(evidence: &Evidence, label: &LabelWords) -> ImageDetails {
    let captions = || evidence.retrieved.iter().map(|caption| caption.caption.as_str());
    ImageDetails {
        image_confidence: evidence.image.confidence,
        caption_confidence: evidence.captions.as_ref().map(|captions| captions.confidence),
        captions: captions().take(CAPTIONS_SHOWN).map(str::to_owned).collect(),
        named: evidence.captions.is_some().then(|| captions().any(|caption| label.named_by(caption))),
    }
}

fn naming(answers: &[Option<Outcome>], images: &[Option<ImageDetails>]) -> Naming {
    let right_of = |wanted: bool| {
        let of = answers.iter().zip(images).filter(|(_, i)| i.as_ref().and_then(|i| i.named) == Some(wanted));
        let right: Vec<bool> = of.map(|(answer, _)| answer.is_some_and(|a| a.right())).collect();
        let count = right.iter().filter(|right| **right).count();
        (right.len(), (!right.is_empty()).then(|| share(count, right.len())))
    };
    let ((named, acc1_named), (unnamed, acc1_unnamed)) = (right_of(true), right_of(false));
    Naming { named, unnamed, acc1_named, acc1_unnamed }
}

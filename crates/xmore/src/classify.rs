//! Classification of query images: one pass gathers the evidence, from which every method's answer follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use xmore_clip::Embeddings;

use crate::encoder::Encoder;
use crate::error::Result;
use crate::evidence::{Evidence, SigmoidScores};
use crate::kernel::{KernelState, LabelSupport, NEAR};
use crate::labels::{LabelWarning, Labels, Template};
use crate::math::{dot, sigmoid, softmax};
use crate::methods::Method;
use crate::probabilities::Probabilities;
use crate::retrieve::{Queries, Retrieval, Retrieved};

/// Labels, a model's scale and, if there are any, pairs to retrieve from: all that classifying an embedded image needs.
///
/// Copies share what was made once for the labels.
#[derive(Clone)]
pub struct Classifier {
    labels: Arc<Labels>,
    warnings: Arc<[LabelWarning]>,
    label_embeddings: Arc<Embeddings>,
    template_embeddings: Option<Arc<Embeddings>>,
    logit_scale: f64,
    /// The logit bias of a model that was trained with a sigmoid.
    sigmoid_bias: Option<f64>,
    retrieval: Option<Retrieval>,
    kernel: Option<Arc<KernelState>>,
    with_open_gate: bool,
}

/// How long the stages of [`Classifier::evidence_timed`] took.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes {
    /// Retrieval of captions and of what is around the images.
    pub search: Duration,
    /// Classification of images and captions, and the gated prediction.
    pub ensemble: Duration,
}

impl Classifier {
    /// Embeds the labels under the templates, several of which are averaged, and makes ready what the methods need.
    /// `retrieval` has pairs and options; its classifying model must be `encoder`.
    ///
    /// # Errors
    /// Those of the text tower and of [`Classifier::prepare_kernel`].
    pub fn new(
        encoder: &dyn Encoder,
        labels: Labels,
        retrieval: Option<Retrieval>,
        templates: &[Template],
        methods: &[Method],
    ) -> Result<Self> {
        let warnings = labels.warnings(encoder, templates)?.into();
        let label_embeddings = labels.embed(encoder, templates)?;
        let template_embeddings = match (methods.contains(&Method::Templates), templates.len()) {
            (false, _) => None,
            (true, 1) => Some(labels.embed(encoder, &Template::imagenet())?),
            (true, _) => Some(label_embeddings.clone()),
        };
        let made = Self::from_embeddings(encoder, labels, label_embeddings, template_embeddings, retrieval);
        let made = Self { warnings, ..made };
        if methods.contains(&Method::Kernel) { made.prepare_kernel() } else { Ok(made) }
    }

    /// The same with labels that are embedded already: unit rows `[C, dim]`, and those with averaged templates, if
    /// [`Method::Templates`] will be asked for. [`Labels::warnings`] is not called.
    ///
    /// # Panics
    /// If there is not one row a label.
    pub fn from_embeddings(
        encoder: &dyn Encoder,
        labels: Labels,
        label_embeddings: Embeddings,
        template_embeddings: Option<Embeddings>,
        retrieval: Option<Retrieval>,
    ) -> Self {
        for embeddings in [Some(&label_embeddings), template_embeddings.as_ref()].into_iter().flatten() {
            assert_eq!(embeddings.len(), labels.names().len(), "one row a label");
        }
        let logit_scale = f64::from(encoder.logit_scale());
        Self {
            labels: Arc::new(labels),
            warnings: Arc::default(),
            label_embeddings: Arc::new(label_embeddings),
            template_embeddings: template_embeddings.map(Arc::new),
            logit_scale,
            sigmoid_bias: encoder.trained_with_sigmoid().then(|| f64::from(encoder.logit_bias())),
            retrieval,
            kernel: None,
            with_open_gate: false,
        }
    }

    /// The same labels and prompts, embedded already, with other pairs or options, or with none.
    #[must_use]
    pub fn with_retrieval(&self, retrieval: Option<Retrieval>) -> Self {
        Self { retrieval, kernel: None, ..self.clone() }
    }

    /// The same with retrieval from the pairs that its kernel was prepared with, if it was: only its options may be others. Its kernel stays prepared.
    #[must_use]
    pub fn over(&self, retrieval: Retrieval) -> Self {
        Self { retrieval: Some(retrieval), ..self.clone() }
    }

    /// The same without its pairs, to be kept while they may be replaced: [`Classifier::over`] puts it over them again.
    #[must_use]
    pub fn without_pairs(&self) -> Self {
        Self { retrieval: None, ..self.clone() }
    }

    /// Has the kernel, once it is prepared, say beside each answer what it would have been with the gate wholly open
    /// ([`GatedPrediction::open`](crate::GatedPrediction::open)).
    #[must_use]
    pub fn with_open_gate(self) -> Self {
        Self { with_open_gate: true, kernel: None, ..self }
    }

    /// Looks at what the pairs know of the labels, which [`Method::Kernel`] needs: reads all captions of a memory once. Does nothing without
    /// pairs.
    ///
    /// # Errors
    /// Those of reading the memory or asking the remote index; that the memory has no images by the classifying model, or that the remote index is
    /// searched by another ([`crate::RetrievalError::KernelNeedsOneModel`]).
    pub fn prepare_kernel(mut self) -> Result<Self> {
        if let Some(retrieval) = &self.retrieval {
            retrieval.check_kernel()?;
            let (labels, texts, open) = (&self.labels, &self.label_embeddings, self.with_open_gate);
            let kernel = KernelState::new(retrieval, labels, texts, self.logit_scale, open)?;
            self.kernel = Some(Arc::new(kernel));
        }
        Ok(self)
    }

    /// Whether [`Classifier::prepare_kernel`] has prepared it for the pairs.
    pub fn is_kernel_prepared(&self) -> bool {
        self.kernel.is_some()
    }

    /// What the pairs show of the labels, if the kernel is prepared: why the gate of [`Method::Kernel`] opens or stays closed.
    pub fn label_support(&self) -> Option<&LabelSupport> {
        self.kernel.as_ref().map(|kernel| kernel.support())
    }

    /// The labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What the model cannot make of the labels, where [`Classifier::new`] embedded them.
    pub fn warnings(&self) -> &[LabelWarning] {
        &self.warnings
    }

    /// Unit rows of the labels' prompts, `[C, dim]`.
    pub fn label_embeddings(&self) -> &Embeddings {
        &self.label_embeddings
    }

    /// exp(logit_scale) of the model.
    pub fn logit_scale(&self) -> f64 {
        self.logit_scale
    }

    /// The retrieval, if there are pairs.
    pub fn retrieval(&self) -> Option<&Retrieval> {
        self.retrieval.as_ref()
    }

    /// Gathers the evidence on each query image. A query's evidence does not depend on the others'.
    ///
    /// # Errors
    /// Those of [`Retrieval::retrieve`].
    pub fn evidence(&self, queries: &Queries) -> Result<Vec<Evidence>> {
        let all = self.evidence_at(queries, &[usize::MAX])?;
        Ok(all.into_iter().flatten().collect())
    }

    /// The same for several numbers of captions, `ks`, from one retrieval: for each query the evidence with the best k captions of
    /// those that the retrieval keeps, in the order of `ks`.
    ///
    /// # Errors
    /// Those of [`Retrieval::retrieve`].
    pub fn evidence_at(&self, queries: &Queries, ks: &[usize]) -> Result<Vec<Vec<Evidence>>> {
        Ok(self.evidence_timed(queries, ks)?.0)
    }

    /// The same, and how long its two stages took.
    ///
    /// # Errors
    /// Those of [`Retrieval::retrieve`].
    pub fn evidence_timed(
        &self,
        queries: &Queries,
        ks: &[usize],
    ) -> Result<(Vec<Vec<Evidence>>, StageTimes)> {
        let begin = Instant::now();
        // While the gate is closed for all, no kernel mean is needed.
        let near = self.kernel.as_ref().map_or(0, |kernel| if kernel.needs_neighbors() { NEAR } else { 0 });
        let retrieved: Vec<_> = match &self.retrieval {
            Some(retrieval) => {
                let all = retrieval.retrieve_with(queries, near)?;
                all.into_iter().map(|(retrieved, around)| (retrieved, Some(around))).collect()
            }
            None => (0..queries.classify.len()).map(|_| (Retrieved::default(), None)).collect(),
        };
        let search = begin.elapsed();
        let rows: Vec<&[f32]> = queries.classify.rows().collect();
        let evidence = rows.into_par_iter().zip(retrieved).map(|(query, (retrieved, around))| {
            let each: Vec<Probabilities> = retrieved
                .embeddings
                .chunks_exact(self.label_embeddings.dim())
                .map(|caption| self.probabilities(caption, &self.label_embeddings))
                .collect();
            let of_labels = similarities(query, &self.label_embeddings);
            let of_templates = self.template_embeddings.as_ref().map(|labels| similarities(query, labels));
            let image = self.distribution(&of_labels);
            let templates = of_templates.as_deref().map(|cosines| self.distribution(cosines));
            let sigmoids = self.sigmoid_bias.map(|bias| SigmoidScores {
                image: self.sigmoids(&of_labels, bias),
                templates: of_templates.as_deref().map(|cosines| self.sigmoids(cosines, bias)),
            });
            let similarities = of_templates.unwrap_or(of_labels);
            let gated = match (&self.kernel, &around) {
                (Some(kernel), Some(around)) => Some(kernel.answer(query, &image, around)?),
                _ => None,
            };
            let at = |k: usize| {
                let kept = k.min(each.len());
                Evidence {
                    image: image.clone(),
                    similarities: similarities.clone(),
                    templates: templates.clone(),
                    sigmoids: sigmoids.clone(),
                    captions: mean(&each[..kept]),
                    votes: each[..kept].iter().map(Probabilities::argmax).collect(),
                    retrieved: retrieved.captions[..kept].to_vec(),
                    gated: gated.clone(),
                    note: retrieved.note.clone(),
                }
            };
            Ok(ks.iter().map(|&k| at(k)).collect())
        });
        let evidence = evidence.collect::<Result<_>>()?;
        Ok((evidence, StageTimes { search, ensemble: begin.elapsed() - search }))
    }

    /// softmax_c(s · x·t_c) for a unit vector x and unit rows t_c.
    pub fn probabilities(&self, embedding: &[f32], labels: &Embeddings) -> Probabilities {
        self.distribution(&similarities(embedding, labels))
    }

    /// softmax_c(s · v_c) of cosines v_c.
    fn distribution(&self, cosines: &[f32]) -> Probabilities {
        Probabilities::new(softmax(&self.logits(cosines).collect::<Vec<f64>>()))
    }

    /// σ(s · v_c + b) of cosines v_c.
    fn sigmoids(&self, cosines: &[f32], bias: f64) -> Vec<f64> {
        self.logits(cosines).map(|logit| sigmoid(logit + bias)).collect()
    }

    /// s · v_c.
    fn logits(&self, cosines: &[f32]) -> impl Iterator<Item = f64> {
        cosines.iter().map(|&cosine| self.logit_scale * f64::from(cosine))
    }
}

/// The cosines x·t_c of a unit vector x and unit rows t_c.
fn similarities(embedding: &[f32], rows: &Embeddings) -> Vec<f32> {
    rows.rows().map(|row| dot(embedding, row)).collect()
}

/// (1/K) Σ p_k.
fn mean(all: &[Probabilities]) -> Option<Probabilities> {
    let labels = all.first()?.values.len();
    let mut sum = vec![0.0; labels];
    for each in all {
        sum.iter_mut().zip(&each.values).for_each(|(s, p)| *s += p);
    }
    let count = all.len() as f64;
    Some(Probabilities::new(sum.into_iter().map(|s| s / count).collect()))
}

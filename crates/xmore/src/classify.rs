//! Classification of query images: one pass gathers the evidence, from which every method's answer follows.

use rayon::prelude::*;
use xmore_clip::{Embeddings, Model};
use xmore_memory::Memory;

use crate::ensemble::{Belief, Method, image_weight, mix};
use crate::error::{Result, XmoreError};
use crate::labels::{Labels, Template};
use crate::math::{dot, softmax};
use crate::models::NamedModel;
use crate::retrieve::{RetrievalOptions, RetrievedCaption, retrieve};

/// How a [`Classifier`] is set up.
#[derive(Clone, Debug)]
pub struct ClassifierOptions {
    /// The prompts; several are averaged.
    pub templates: Vec<Template>,
    /// Whether [`Method::Templates`] will be asked for: it costs 80 prompts a label unless several templates are given.
    pub with_templates_method: bool,
    /// Retrieval.
    pub retrieval: RetrievalOptions,
}

impl Default for ClassifierOptions {
    fn default() -> Self {
        Self {
            templates: vec![Template::default()],
            with_templates_method: false,
            retrieval: Default::default(),
        }
    }
}

/// Labels, a model's scale and, if there is one, a memory: all that classifying an embedded image needs.
pub struct Classifier<'a> {
    labels: Labels,
    label_embeddings: Embeddings,
    template_embeddings: Option<Embeddings>,
    logit_scale: f64,
    memory: Option<&'a Memory>,
    retrieval: RetrievalOptions,
}

/// What is known of one query image: each modality's belief and the captions behind it.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// p_img.
    pub image: Belief,
    /// p_img with averaged templates, where [`ClassifierOptions::with_templates_method`] asked for it.
    pub templates: Option<Belief>,
    /// p_cap; `None` without a memory or if nothing was retrieved.
    pub captions: Option<Belief>,
    /// The captions, best first.
    pub retrieved: Vec<RetrievedCaption>,
    /// Label that each caption votes for, in the captions' order.
    pub votes: Vec<usize>,
}

impl<'a> Classifier<'a> {
    /// Embeds the labels and checks that memory, model and options fit.
    ///
    /// # Errors
    /// [`XmoreError::ModelMismatch`], [`XmoreError::EmptyMemory`], those of [`RetrievalOptions::check`], and those of the text tower.
    pub fn new(
        model: &NamedModel,
        labels: Labels,
        memory: Option<&'a Memory>,
        options: &ClassifierOptions,
    ) -> Result<Self> {
        if let Some(memory) = memory {
            options.retrieval.check()?;
            model.check_memory(memory)?;
        }
        let label_embeddings = labels.embed(model, &options.templates)?;
        let template_embeddings = match (options.with_templates_method, options.templates.len()) {
            (false, _) => None,
            (true, 1) => Some(labels.embed(model, &Template::imagenet())?),
            (true, _) => Some(label_embeddings.clone()),
        };
        let model: &Model = model;
        Ok(Self {
            labels,
            label_embeddings,
            template_embeddings,
            logit_scale: f64::from(model.logit_scale()),
            memory,
            retrieval: options.retrieval,
        })
    }

    /// The same labels and prompts, embedded already, with another memory or retrieval.
    ///
    /// # Errors
    /// Those of [`RetrievalOptions::check`] and [`NamedModel::check_memory`]; `model` must be the one of [`Classifier::new`].
    pub fn with_memory<'b>(
        &self,
        model: &NamedModel,
        memory: &'b Memory,
        retrieval: RetrievalOptions,
    ) -> Result<Classifier<'b>> {
        retrieval.check()?;
        model.check_memory(memory)?;
        Ok(Classifier {
            labels: self.labels.clone(),
            label_embeddings: self.label_embeddings.clone(),
            template_embeddings: self.template_embeddings.clone(),
            logit_scale: self.logit_scale,
            memory: Some(memory),
            retrieval,
        })
    }

    /// The labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Gathers the evidence on each query image, `[queries, dim]` unit rows. A query's evidence does not depend on the others'.
    ///
    /// # Errors
    /// Those of reading the memory.
    pub fn evidence(&self, queries: &Embeddings) -> Result<Vec<Evidence>> {
        let retrieved = match self.memory {
            Some(memory) => retrieve(memory, queries, self.retrieval)?,
            None => vec![Default::default(); queries.len()],
        };
        let rows: Vec<&[f32]> = queries.rows().collect();
        let evidence = rows.into_par_iter().zip(retrieved).map(|(query, retrieved)| {
            let each: Vec<Belief> = retrieved
                .embeddings
                .chunks_exact(self.label_embeddings.dim())
                .map(|caption| self.belief(caption, &self.label_embeddings))
                .collect();
            Evidence {
                image: self.belief(query, &self.label_embeddings),
                templates: self.template_embeddings.as_ref().map(|labels| self.belief(query, labels)),
                captions: mean(&each),
                votes: each.iter().map(Belief::argmax).collect(),
                retrieved: retrieved.captions,
            }
        });
        Ok(evidence.collect())
    }

    /// softmax_c(s · x·t_c).
    fn belief(&self, embedding: &[f32], labels: &Embeddings) -> Belief {
        let logits: Vec<f64> =
            labels.rows().map(|label| self.logit_scale * f64::from(dot(embedding, label))).collect();
        Belief::new(softmax(&logits))
    }
}

/// (1/K) Σ p_k.
fn mean(beliefs: &[Belief]) -> Option<Belief> {
    let labels = beliefs.first()?.probabilities.len();
    let mut sum = vec![0.0; labels];
    for belief in beliefs {
        sum.iter_mut().zip(&belief.probabilities).for_each(|(s, p)| *s += p);
    }
    let count = beliefs.len() as f64;
    Some(Belief::new(sum.into_iter().map(|s| s / count).collect()))
}

impl Evidence {
    /// The method's distribution over the labels. A caption method without captions answers p_img, as METHOD says.
    ///
    /// # Errors
    /// [`XmoreError::TemplatesNotSetUp`] for [`Method::Templates`] if that was not set up.
    pub fn scores(&self, method: Method) -> Result<Vec<f64>> {
        let image = &self.image;
        Ok(match (method, &self.captions) {
            (Method::Templates, _) => {
                let belief = self.templates.as_ref();
                belief.ok_or(XmoreError::TemplatesNotSetUp)?.probabilities.clone()
            }
            (Method::ZeroShot, _) | (_, None) => image.probabilities.clone(),
            (Method::Captions, Some(captions)) => captions.probabilities.clone(),
            (Method::Equal, Some(captions)) => mix(image, captions, 0.5),
            (Method::Xmore, Some(captions)) => mix(image, captions, image_weight(image, captions)),
        })
    }
}

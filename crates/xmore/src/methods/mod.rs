//! The methods: one file each, with its name, a summary and what it needs; help texts, the server and reports read this table.
//!
//! A method is added as a file, a variant of [`Method`] and its row in [`Method::info`].

mod captions;
mod equal;
mod kernel;
mod templates;
mod xmore;
mod zero_shot;

use std::fmt;
use std::str::FromStr;

use crate::error::{Result, XmoreError};
use crate::evidence::{Evidence, SigmoidScores};
use crate::scores::Scores;

/// How the answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The image alone, with the prompt given.
    ZeroShot,
    /// The image alone, class embeddings averaged over many templates.
    Templates,
    /// The retrieved captions alone.
    Captions,
    /// Half image, half captions: the paper's ablation.
    Equal,
    /// X-MoRe: each modality weighed by its confidence on this image.
    Xmore,
    /// The image's logits and what the memory says of such images, added where the memory knows the labels.
    Kernel,
}

/// What a method's answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modalities {
    /// The query image alone.
    Image,
    /// Captions alone.
    Captions,
    /// Both.
    Both,
}

/// Those of a method; `None` if the evidence was gathered without what it needs.
type SigmoidsOf = fn(&SigmoidScores) -> Option<&Vec<f64>>;

/// What is known of a method.
pub(crate) struct MethodInfo {
    name: &'static str,
    summary: &'static str,
    modalities: Modalities,
    /// The distribution over the labels; `None` if the evidence was gathered without what the method needs.
    scores: fn(&Evidence) -> Option<Vec<f64>>,
    /// Each label's probability by itself, of a method whose answer comes from one cosine a label. Others mix distributions: there is no
    /// logit to take a sigmoid of.
    sigmoids: Option<SigmoidsOf>,
}

impl Method {
    /// All methods, baselines first.
    pub const ALL: [Method; 6] =
        [Method::ZeroShot, Method::Templates, Method::Captions, Method::Equal, Method::Xmore, Method::Kernel];

    const fn info(self) -> &'static MethodInfo {
        match self {
            Method::ZeroShot => &zero_shot::INFO,
            Method::Templates => &templates::INFO,
            Method::Captions => &captions::INFO,
            Method::Equal => &equal::INFO,
            Method::Xmore => &xmore::INFO,
            Method::Kernel => &kernel::INFO,
        }
    }

    /// The name on the command line and in results.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// What it does, in a few words without a capital and a full stop.
    pub const fn summary(self) -> &'static str {
        self.info().summary
    }

    /// What its answer is made of.
    pub const fn modalities(self) -> Modalities {
        self.info().modalities
    }

    /// Whether it uses pairs.
    pub const fn needs_memory(self) -> bool {
        !matches!(self.info().modalities, Modalities::Image)
    }

    /// Whether it has [sigmoid scores](crate::Scores::Sigmoid), with models that were trained so.
    pub const fn has_sigmoids(self) -> bool {
        self.info().sigmoids.is_some()
    }

    /// Its distribution over the labels, by the evidence on an image.
    ///
    /// # Errors
    /// [`XmoreError::MethodNotPrepared`] if the evidence was gathered without what the method needs.
    pub(crate) fn scores(self, evidence: &Evidence) -> Result<Vec<f64>> {
        (self.info().scores)(evidence).ok_or(self.not_prepared())
    }

    /// Each label's probability by itself, by the evidence on an image.
    ///
    /// # Errors
    /// [`XmoreError::MethodWithoutSigmoids`], [`XmoreError::ModelWithoutSigmoids`], or that of [`Method::scores`].
    pub(crate) fn sigmoids(self, evidence: &Evidence) -> Result<Vec<f64>> {
        let of_method =
            self.info().sigmoids.ok_or(XmoreError::MethodWithoutSigmoids { method: self.name() })?;
        let sigmoids = evidence.sigmoids.as_ref().ok_or(XmoreError::ModelWithoutSigmoids)?;
        of_method(sigmoids).cloned().ok_or(self.not_prepared())
    }

    fn not_prepared(self) -> XmoreError {
        XmoreError::MethodNotPrepared { method: self.name() }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = XmoreError;

    fn from_str(name: &str) -> Result<Self, XmoreError> {
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| XmoreError::UnknownMethod {
            name: name.to_owned(),
            known: Self::ALL.map(Method::name).join(", "),
        })
    }
}

impl Evidence {
    /// The method's distribution over the labels. Without captions every method answers by the image.
    ///
    /// # Errors
    /// [`XmoreError::MethodNotPrepared`] for [`Method::Templates`] and [`Method::Kernel`] if the classifier was not made for them.
    pub fn scores(&self, method: Method) -> Result<Vec<f64>> {
        method.scores(self)
    }

    /// The method's scores of a kind: its distribution, or each label's probability by itself.
    ///
    /// # Errors
    /// Those of [`Evidence::scores`]; for [`Scores::Sigmoid`] those of [`Scores::check`].
    pub fn scores_as(&self, method: Method, scores: Scores) -> Result<Vec<f64>> {
        match scores {
            Scores::Softmax => method.scores(self),
            Scores::Sigmoid => method.sigmoids(self),
        }
    }

    /// Whether the method's answer is made of all that it uses: one that uses captions and has none answers by the image.
    pub fn answers_by(&self, method: Method) -> bool {
        !method.needs_memory() || self.captions.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for method in Method::ALL {
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
        }
        let message = "xmoar".parse::<Method>().unwrap_err().to_string();
        assert!(message.contains("zero-shot, templates"), "{message}");
    }
}

//! What the scores of an answer are: one distribution over the labels, or a probability of each label by itself.

use std::fmt;
use std::str::FromStr;

use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::methods::Method;

/// What the scores of an answer are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scores {
    /// The method's distribution over the labels, which adds up to 1. A model's bias makes no difference to it.
    #[default]
    Softmax,
    /// σ(s·v·t_c + b): for each label the probability that it fits the image, whatever the other labels are; SigLIP's (arXiv 2303.15343), and
    /// what transformers' zero-shot pipeline answers with for such models. Only for models that were trained with a sigmoid, and for methods
    /// that compare the image with each label and nothing else.
    Sigmoid,
}

impl Scores {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Softmax, Self::Sigmoid];

    /// The name on the command line and in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
        }
    }

    /// What they are, in a few words without a capital and a full stop.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Softmax => "one distribution over the labels",
            Self::Sigmoid => {
                "each label by itself; with models that were trained so, as SigLIP's, and methods of the image alone"
            }
        }
    }

    /// That the method has such scores with the model that classifies.
    ///
    /// # Errors
    /// [`XmoreError::MethodWithoutSigmoids`], [`XmoreError::ModelWithoutSigmoids`].
    pub fn check(self, encoder: &dyn Encoder, method: Method) -> Result<()> {
        match self {
            Self::Softmax => Ok(()),
            Self::Sigmoid if !method.has_sigmoids() => {
                Err(XmoreError::MethodWithoutSigmoids { method: method.name() })
            }
            Self::Sigmoid if !encoder.trained_with_sigmoid() => Err(XmoreError::ModelWithoutSigmoids),
            Self::Sigmoid => Ok(()),
        }
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scores {
    type Err = XmoreError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|scores| scores.name() == name).ok_or_else(|| XmoreError::UnknownScores {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

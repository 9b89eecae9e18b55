//! The methods that are measured side by side: those that answer each image by itself, and those that learn from the stream.
//!
//! A method of [`Method`] gets what it needs from one image's [`Evidence`](xmore::Evidence). A stream method sees the images one after
//! another in a random order, so it has a result for each seed.

mod stream;
mod tda;

use std::fmt;
use std::str::FromStr;

use crate::error::EvalError;
use xmore::{Method, Modalities};

pub(crate) use stream::{StreamProbabilities, xmore_stream};
pub use tda::TdaConfig;
pub(crate) use tda::tda;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvalMethod {
    /// One that `classify` has, too.
    Each(Method),
    /// p_img with the dataset's own prompts averaged.
    DatasetPrompts,
    /// p_img with prompts whose context vectors were learned by CoOp (arXiv 2109.01134), given as a file.
    Coop,
    /// X-MoRe with CoOp's prompts for image and captions.
    CoopXmore,
    /// The same with the authors' running normalization of the confidences.
    CoopXmoreStream,
    /// The authors' running normalization of the confidences: depends on the order of the images.
    XmoreStream,
    /// The training-free dynamic adapter (arXiv 2403.18293): depends on the order of the images.
    Tda,
}

impl EvalMethod {
    /// All, baselines first.
    pub fn all() -> impl Iterator<Item = EvalMethod> {
        use EvalMethod::*;
        let [zero_shot, templates, rest @ ..] = Method::ALL.map(Each);
        let before = [zero_shot, templates, DatasetPrompts, Coop, Tda];
        before.into_iter().chain(rest).chain([XmoreStream, CoopXmore, CoopXmoreStream])
    }

    /// The name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Each(method) => method.name(),
            Self::DatasetPrompts => "dataset-prompts",
            Self::Coop => "coop",
            Self::CoopXmore => "coop-xmore",
            Self::CoopXmoreStream => "coop-xmore-stream",
            Self::XmoreStream => "xmore-stream",
            Self::Tda => "tda",
        }
    }

    /// What its answer is made of.
    pub fn modalities(self) -> Modalities {
        match self {
            Self::Each(method) => method.modalities(),
            Self::XmoreStream | Self::CoopXmore | Self::CoopXmoreStream => Modalities::Both,
            Self::DatasetPrompts | Self::Coop | Self::Tda => Modalities::Image,
        }
    }

    /// Whether it uses pairs.
    pub fn needs_memory(self) -> bool {
        self.modalities() != Modalities::Image
    }

    /// Whether its labels stand behind CoOp's context vectors.
    pub fn needs_coop(self) -> bool {
        matches!(self, Self::Coop | Self::CoopXmore | Self::CoopXmoreStream)
    }

    /// Whether its answers depend on the order of the images.
    pub fn depends_on_order(self) -> bool {
        matches!(self, Self::XmoreStream | Self::CoopXmoreStream | Self::Tda)
    }
}

impl fmt::Display for EvalMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for EvalMethod {
    type Err = EvalError;

    fn from_str(name: &str) -> Result<Self, EvalError> {
        Self::all().find(|method| method.name() == name).ok_or_else(|| EvalError::UnknownMethod {
            name: name.to_owned(),
            known: Self::all().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(EvalMethod::all().count(), Method::ALL.len() + 6);
        for method in EvalMethod::all() {
            assert_eq!(method.name().parse::<EvalMethod>().unwrap(), method);
        }
        assert!("xmoar".parse::<EvalMethod>().unwrap_err().to_string().contains("xmore-stream"));
    }
}

//! The precision of a model whose user leaves the choice to the processor.

use std::fmt;

use xmore_clip::Precision;

use super::NamedModel;
use crate::error::Result;

/// The precision that was taken, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoPrecision {
    /// 32-bit floats: a GPU computes, or a processor that multiplies no faster in bf16.
    NotFaster,
    /// bf16, with the least cosine of its embeddings to those in 32-bit floats.
    Near(f32),
    /// 32-bit floats, because in bf16 the least cosine is this, less than [`AutoPrecision::LEAST_COSINE`].
    Far(f32),
}

impl AutoPrecision {
    /// Least cosine to embeddings in 32-bit floats with which another precision is taken.
    pub const LEAST_COSINE: f32 = 0.9995;

    /// What was taken.
    pub fn precision(self) -> Precision {
        match self {
            Self::Near(_) => Precision::Bf16,
            Self::NotFaster | Self::Far(_) => Precision::F32,
        }
    }
}

impl fmt::Display for AutoPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "precision {}: ", self.precision().short_name())?;
        match self {
            Self::NotFaster => f.write_str("bf16 is taken on processors alone, where it is faster"),
            Self::Near(cosine) => {
                write!(f, "the cosine of embeddings to those in f32 is {cosine:.5} or more")
            }
            Self::Far(cosine) => {
                let least = Self::LEAST_COSINE;
                write!(
                    f,
                    "in bf16 the cosine of embeddings to those in f32 is {cosine:.5}, less than {least}"
                )
            }
        }
    }
}

impl NamedModel {
    /// Opens a model by `open` in bf16 if the processor multiplies faster in it and the embeddings of an image and two texts that are made up have a cosine of
    /// [`AutoPrecision::LEAST_COSINE`] or more to those in 32-bit floats, else in these. It is opened in both to compare them.
    ///
    /// # Errors
    /// Those of `open` and of encoding.
    pub fn open_auto(open: impl Fn(Precision) -> Result<Self>) -> Result<(Self, AutoPrecision)> {
        let exact = open(Precision::F32)?;
        if exact.gpu().is_some() || !Precision::Bf16.is_accelerated() {
            return Ok((exact, AutoPrecision::NotFaster));
        }
        let fast = open(Precision::Bf16)?;
        let cosine = fast.agreement(&exact)?;
        if cosine >= AutoPrecision::LEAST_COSINE {
            Ok((fast, AutoPrecision::Near(cosine)))
        } else {
            Ok((exact, AutoPrecision::Far(cosine)))
        }
    }
}

//! What is known of one query image, from which every method's answer follows.

use crate::kernel::GatedPrediction;
use crate::probabilities::Probabilities;
use crate::retrieve::RetrievedCaption;

/// What is known of one query image: each modality's distribution and the captions behind it.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// p_img.
    pub image: Probabilities,
    /// Cosine of the image and each label's prompt, or the mean of its prompts: for a photo of CLIP's that shows the label about 0.2 to 0.3.
    pub similarities: Vec<f32>,
    /// p_img with averaged templates, where [`Method::Templates`](crate::Method::Templates) was among the methods.
    pub templates: Option<Probabilities>,
    /// What a model that was trained with a sigmoid says of each label by itself; `None` of other models.
    pub sigmoids: Option<SigmoidScores>,
    /// p_cap; `None` without pairs or if nothing was retrieved.
    pub captions: Option<Probabilities>,
    /// The captions, best first.
    pub retrieved: Vec<RetrievedCaption>,
    /// Label that each caption votes for, in the captions' order.
    pub votes: Vec<usize>,
    /// The answer of [`Method::Kernel`](crate::Method::Kernel); `None` without pairs, or if the classifier was not [made ready](crate::Classifier::prepare_kernel) for it.
    pub gated: Option<GatedPrediction>,
    /// What the remote index has to say, such as why it gave fewer pairs than asked for.
    pub note: Option<String>,
}

/// σ(s·v·t_c + b) of each label.
#[derive(Clone, Debug, PartialEq)]
pub struct SigmoidScores {
    /// With the prompts given.
    pub image: Vec<f64>,
    /// With averaged templates, where [`Method::Templates`](crate::Method::Templates) was among the methods.
    pub templates: Option<Vec<f64>>,
}

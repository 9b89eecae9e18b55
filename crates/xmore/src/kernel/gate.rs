//! The gate: how far a memory is taken into account, by what shows that it knows the labels.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ramp;

/// Support that closes the gate: two times out of three the memory says something else of a label.
const CLOSED: f64 = 1.0 / 3.0;
/// Support that opens it.
const OPEN: f64 = 0.5;
/// Nearest similarity of an image, as a share of what is usual in the memory, up to which round trips count for nothing, and from which for
/// all.
const FAR: [f64; 2] = [0.5, 0.7];
/// The same from which they count for more, and for all that more.
const CLOSE: [f64; 2] = [0.85, 1.0];
/// How much more they count for an image that is as near as the memory's own.
const BOOST: f64 = 0.5;

/// What can show that a memory knows the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SupportKind {
    /// A label is sent to the memory's images, and the captions that come back are classified as it.
    LabelRoundTrip,
    /// Captions name the label, and their images look like it to the model.
    Names,
    /// A label's nearest captions have images, and the other captions around these images are classified as the label.
    CaptionRoundTrip,
}

impl SupportKind {
    /// Its name in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LabelRoundTrip => "label round trip",
            Self::Names => "names",
            Self::CaptionRoundTrip => "caption round trip",
        }
    }

    /// What it means, in a few words.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::LabelRoundTrip => "images like the labels have captions that fit the labels",
            Self::Names => "captions name the labels, and their images fit the labels",
            Self::CaptionRoundTrip => {
                "captions like the labels have images among captions that fit the labels"
            }
        }
    }

    /// Whether it is a round trip: its chance is one in the number of labels, and what it says holds for images near the memory.
    pub(super) const fn is_round_trip(self) -> bool {
        match self {
            Self::LabelRoundTrip | Self::CaptionRoundTrip => true,
            Self::Names => false,
        }
    }
}

/// How much a memory supports the labels by one kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Support {
    /// The kind.
    pub kind: SupportKind,
    /// The mean over the labels, in [0, 1].
    pub mean: f64,
    /// What the mean is compared with: up to this the gate stays closed. Round trips count half as much again for images that are as near to the
    /// memory as its own are to one another, and less for images far from it.
    pub closed: f64,
    /// At this mean and above the gate is open for images whose likely labels are supported as well.
    pub open: f64,
}

impl Support {
    /// A mean above this opens the gate for some images: for round trips those nearest to the memory.
    pub fn least_open(&self) -> f64 {
        let most = if self.kind.is_round_trip() { 1.0 + BOOST } else { 1.0 };
        self.closed / most
    }

    /// Whether it keeps the gate closed for all images.
    pub fn is_closed(&self) -> bool {
        self.mean <= self.least_open()
    }
}

/// What a memory shows of the labels: why the gate of [`Method::Kernel`](crate::Method::Kernel) opens or stays closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LabelSupport {
    /// How many labels there are.
    pub labels: usize,
    /// How many of them are supported by captions that name them; null for remote indexes, whose captions cannot be read through.
    pub named: Option<usize>,
    /// How far captions fit their own images better than other images' captions do, in [0, 1]; every support is multiplied by it. Null for
    /// remote indexes.
    pub pairing: Option<f64>,
    /// By each kind of evidence.
    #[serde(rename = "support")]
    pub kinds: Vec<Support>,
}

impl LabelSupport {
    /// Whether the gate stays closed for all images.
    pub fn is_closed(&self) -> bool {
        self.kinds.iter().all(Support::is_closed)
    }
}

/// One line: how many labels are named, and each kind's mean beside what it takes.
impl fmt::Display for LabelSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(named) = self.named {
            write!(f, "captions name {named} of {} labels; ", self.labels)?;
        }
        if let Some(pairing) = self.pairing.filter(|&pairing| pairing < 1.0) {
            write!(f, "captions fit their images {:.0} %; ", pairing * 100.0)?;
        }
        if self.kinds.is_empty() {
            return f.write_str("the memory says the same of every image");
        }
        f.write_str("support")?;
        for (i, support) in self.kinds.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let (mean, kind, least) = (support.mean, support.kind.name(), support.least_open());
            write!(f, "{comma} {mean:.2} by {kind} (more than {least:.2} opens)")?;
        }
        Ok(())
    }
}

/// The support of every label by one kind of evidence.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    /// The mean, and what it is compared with.
    pub support: Support,
    /// Of each label, in [0, 1].
    pub of_labels: Vec<f64>,
}

impl Measure {
    pub fn new(kind: SupportKind, of_labels: Vec<f64>) -> Self {
        let count = of_labels.len() as f64;
        let mean = of_labels.iter().sum::<f64>() / count;
        let [closed, open] = thresholds(kind, of_labels.len());
        Self { support: Support { kind, mean, closed, open }, of_labels }
    }

    /// Σ_c q_c · support_c: what is expected for an image of zero-shot distribution q.
    fn expected(&self, zero_shot: &[f64]) -> f64 {
        zero_shot.iter().zip(&self.of_labels).map(|(q, support)| q * support).sum()
    }

    /// How far it opens the gate for an image, in [0, 1]. `nearness` is the similarity of the image and its nearest pair over what is usual in
    /// the memory; `None` where that is not known.
    pub fn gate(&self, zero_shot: &[f64], nearness: Option<f64>) -> f64 {
        let Support { kind, mean, closed, open } = self.support;
        let counts = match nearness {
            Some(nearness) if kind.is_round_trip() => round_trip_counts(nearness),
            _ => 1.0,
        };
        ramp(self.expected(zero_shot).min(mean) * counts, [closed, open])
    }
}

/// How much round trips count for an image.
fn round_trip_counts(nearness: f64) -> f64 {
    ramp(nearness, FAR) * (1.0 + BOOST * ramp(nearness, CLOSE))
}

/// The supports that close and open the gate under `count` labels. Of few labels, chance alone comes back often; then a sixth and a
/// third of the way from chance to certainty are asked for.
fn thresholds(kind: SupportKind, count: usize) -> [f64; 2] {
    if !kind.is_round_trip() {
        return [CLOSED, OPEN];
    }
    let chance = 1.0 / count as f64;
    let beyond = |share: f64| chance + share * (1.0 - chance);
    [CLOSED.max(beyond(1.0 / 6.0)), OPEN.max(beyond(1.0 / 3.0))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_labels_have_to_do_better_than_chance() {
        let at = |kind, count| thresholds(kind, count).map(|t| (t * 1000.0).round() / 1000.0);
        assert_eq!(at(SupportKind::LabelRoundTrip, 2), [0.583, 0.667]);
        assert_eq!(at(SupportKind::LabelRoundTrip, 5), [0.333, 0.5]);
        assert_eq!(at(SupportKind::CaptionRoundTrip, 2), [0.583, 0.667]);
        assert_eq!(at(SupportKind::CaptionRoundTrip, 30), [0.333, 0.5]);
        assert_eq!(at(SupportKind::Names, 2), [0.333, 0.5]);
    }

    #[test]
    fn an_image_of_unsupported_labels_keeps_the_gate_closed() {
        let measure = Measure::new(SupportKind::Names, vec![1.0, 1.0, 0.0, 0.0]);
        assert_eq!(measure.gate(&[0.5, 0.5, 0.0, 0.0], None), 1.0);
        assert_eq!(measure.gate(&[0.0, 0.0, 0.5, 0.5], None), 0.0);
        assert!(!measure.support.is_closed());
        assert!(Measure::new(SupportKind::Names, vec![0.3; 4]).support.is_closed());
    }

    #[test]
    fn round_trips_count_by_how_near_the_memory_is() {
        let uniform = [0.1; 10];
        let gate = |kind, nearness| Measure::new(kind, vec![0.4; 10]).gate(&uniform, nearness);
        assert!((gate(SupportKind::LabelRoundTrip, None) - 0.4).abs() < 1e-12);
        assert!((gate(SupportKind::LabelRoundTrip, Some(0.8)) - 0.4).abs() < 1e-12);
        assert_eq!(gate(SupportKind::LabelRoundTrip, Some(0.5)), 0.0);
        assert_eq!(gate(SupportKind::CaptionRoundTrip, Some(1.0)), 1.0);
        assert!((gate(SupportKind::Names, Some(0.1)) - 0.4).abs() < 1e-12);
        assert!(!Measure::new(SupportKind::LabelRoundTrip, vec![0.25; 10]).support.is_closed());
        assert!(Measure::new(SupportKind::Names, vec![0.25; 10]).support.is_closed());
    }
}

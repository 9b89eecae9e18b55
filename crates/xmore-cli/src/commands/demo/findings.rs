//! What the demo found: accuracies over the splits, and the answers that captions changed.

use serde::{Serialize, Serializer};
use xmore::{Evidence, Method, argmax};
use xmore_memory::store::ModelIdentity;

use super::pairs::PairSet;
use super::splits::Spread;
use crate::error::Result;

/// The method that the demo is about: the default of a classification with a memory.
pub(super) const SHOWN: Method = Method::Kernel;

/// Accuracy of each method on one split.
pub(super) type Accuracies = Vec<(Method, f64)>;

/// One split, measured.
pub(super) struct SplitRun {
    pub seed: u64,
    /// Pairs in memory; a caption's id is its index here.
    pub memory: Vec<usize>,
    /// The queries.
    pub queries: Vec<usize>,
    /// For each query.
    pub evidence: Vec<Evidence>,
    /// For each query, whether the memory holds its very caption (usually with a mirrored or similar picture).
    pub own_caption: Vec<bool>,
    /// With all of the memory.
    pub accuracies: Accuracies,
    /// With a memory without the captions of the queries; `None` if it would be empty.
    pub strict: Option<Accuracies>,
    /// For several numbers of captions.
    pub sweep: Vec<(usize, Accuracies)>,
    /// For several numbers of neighbors; may be empty.
    pub neighbor_sweep: Vec<(usize, Accuracies)>,
}

/// All of it.
pub(super) struct Findings {
    pub set: PairSet,
    pub model: ModelIdentity,
    pub k: usize,
    /// Pairs looked at for each query.
    pub neighbors: usize,
    pub seed: u64,
    pub runs: Vec<SplitRun>,
}

/// A method's figures over the splits.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct MethodFigures {
    pub acc1_mean: f64,
    pub acc1_std: Option<f64>,
    /// Mean of the splits' differences to zero-shot.
    pub gain_mean: f64,
    pub gain_std: Option<f64>,
}

/// Figures of all methods; a map in JSON.
pub(super) struct Figures(pub Vec<(Method, MethodFigures)>);

impl Figures {
    fn of(splits: &[&Accuracies]) -> Self {
        let zero_shot: Vec<f64> = splits.iter().map(|split| of(split, Method::ZeroShot)).collect();
        let figures = Method::ALL.into_iter().map(|method| {
            let accuracies: Vec<f64> = splits.iter().map(|split| of(split, method)).collect();
            let gains: Vec<f64> = accuracies.iter().zip(&zero_shot).map(|(a, z)| a - z).collect();
            let (accuracy, gain) = (Spread::of(&accuracies), Spread::of(&gains));
            let figures = MethodFigures {
                acc1_mean: accuracy.mean,
                acc1_std: accuracy.std,
                gain_mean: gain.mean,
                gain_std: gain.std,
            };
            (method, figures)
        });
        Self(figures.collect())
    }

    /// Of one method.
    pub fn get(&self, wanted: Method) -> MethodFigures {
        self.0.iter().find(|(method, _)| *method == wanted).expect("all methods are measured").1
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(method, figures)| (method.name(), figures)))
    }
}

fn of(accuracies: &Accuracies, wanted: Method) -> f64 {
    accuracies.iter().find(|(method, _)| *method == wanted).expect("all methods are measured").1
}

/// What a change of the answer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Wrong before, right with captions.
    Better,
    /// Right before, wrong with captions.
    Worse,
    /// Wrong both times.
    StillWrong,
}

/// An answer of zero-shot that [`SHOWN`] changed.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    pub turn: Turn,
    pub run: &'a SplitRun,
    /// The query.
    pub pair: usize,
    pub truth: usize,
    /// zero-shot's answer.
    pub before: usize,
    /// The method's answer.
    pub after: usize,
    pub evidence: &'a Evidence,
    /// The method's distribution.
    pub scores: Vec<f64>,
    /// How far the memory was taken into account, in [0, 1].
    pub gate: f64,
    /// Whether the memory held the query's very caption.
    pub own_caption: bool,
}

impl Change<'_> {
    /// By how much captions moved the true label's probability.
    fn shift(&self) -> f64 {
        self.scores[self.truth] - self.evidence.image.values[self.truth]
    }
}

impl std::fmt::Debug for SplitRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SplitRun {{ seed: {} }}", self.seed)
    }
}

/// How many answers changed, over all splits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub better: usize,
    pub worse: usize,
    pub still_wrong: usize,
}

impl Findings {
    /// With all of each memory.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.runs.iter().map(|run| &run.accuracies).collect::<Vec<_>>())
    }

    /// With memories without the queries' captions; `None` if one of them would be empty.
    pub fn strict_figures(&self) -> Option<Figures> {
        let splits: Option<Vec<_>> = self.runs.iter().map(|run| run.strict.as_ref()).collect();
        splits.map(|splits| Figures::of(&splits))
    }

    /// The least and the largest gain of a method over zero-shot on a split.
    pub fn gains(&self, method: Method) -> [f64; 2] {
        let gain = |run: &SplitRun| of(&run.accuracies, method) - of(&run.accuracies, Method::ZeroShot);
        let gains = || self.runs.iter().map(gain);
        [gains().fold(f64::INFINITY, f64::min), gains().fold(f64::NEG_INFINITY, f64::max)]
    }

    /// Figures for each number of captions.
    pub fn sweep(&self) -> Vec<(usize, Figures)> {
        self.over(|run| &run.sweep)
    }

    /// Figures for each number of neighbors.
    pub fn neighbor_sweep(&self) -> Vec<(usize, Figures)> {
        self.over(|run| &run.neighbor_sweep)
    }

    fn over<'a>(
        &'a self,
        sweep: impl Fn(&'a SplitRun) -> &'a [(usize, Accuracies)],
    ) -> Vec<(usize, Figures)> {
        let values = sweep(&self.runs[0]).iter().map(|(value, _)| *value).enumerate();
        values
            .map(|(i, value)| {
                (value, Figures::of(&self.runs.iter().map(|run| &sweep(run)[i].1).collect::<Vec<_>>()))
            })
            .collect()
    }

    /// Queries over all splits.
    pub fn queries(&self) -> usize {
        self.runs.iter().map(|run| run.queries.len()).sum()
    }

    /// Queries over all splits whose very caption is in memory.
    pub fn own_captions(&self) -> usize {
        self.runs.iter().flat_map(|run| &run.own_caption).filter(|&&own| own).count()
    }

    /// Every changed answer, split by split.
    pub fn changes(&self) -> Result<Vec<Change<'_>>> {
        let mut changes = Vec::new();
        for run in &self.runs {
            for ((&pair, evidence), &own_caption) in
                run.queries.iter().zip(&run.evidence).zip(&run.own_caption)
            {
                let scores = evidence.scores(SHOWN)?;
                let (before, after) = (evidence.image.argmax(), argmax(&scores));
                let truth = self.set.pairs[pair].label;
                if before == after {
                    continue;
                }
                let turn = match (before == truth, after == truth) {
                    (false, true) => Turn::Better,
                    (true, false) => Turn::Worse,
                    _ => Turn::StillWrong,
                };
                let gate = evidence.gated.as_ref().map_or(0.0, |gated| gated.gate);
                changes.push(Change {
                    turn,
                    run,
                    pair,
                    truth,
                    before,
                    after,
                    evidence,
                    scores,
                    gate,
                    own_caption,
                });
            }
        }
        Ok(changes)
    }
}

/// Counts.
pub(super) fn tally(changes: &[Change]) -> Tally {
    let count = |turn| changes.iter().filter(|change| change.turn == turn).count();
    Tally { better: count(Turn::Better), worse: count(Turn::Worse), still_wrong: count(Turn::StillWrong) }
}

/// Up to two changes for the better and one for the worse, then others until there are three: those with the largest shift of the true
/// label's probability, of different labels, and where the memory did not hold the query's own caption if there are such.
pub(super) fn examples<'c, 'a>(changes: &'c [Change<'a>]) -> Vec<&'c Change<'a>> {
    let mut ranked: Vec<&Change> = changes.iter().collect();
    ranked.sort_by(|a, b| {
        let shift = |change: &Change| change.shift().abs();
        a.own_caption.cmp(&b.own_caption).then(shift(b).total_cmp(&shift(a)))
    });
    let mut chosen: Vec<&Change> = Vec::new();
    let rounds = [(Some(Turn::Better), 2), (Some(Turn::Worse), 3), (None, 3)];
    for (turn, until) in rounds {
        for change in &ranked {
            let new = chosen.iter().all(|c| c.truth != change.truth && c.pair != change.pair);
            if chosen.len() < until && new && turn.is_none_or(|turn| turn == change.turn) {
                chosen.push(change);
            }
            // Of the worse there is one, however few of the better there were.
            if turn == Some(Turn::Worse) && chosen.last().is_some_and(|c| c.turn == Turn::Worse) {
                break;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use xmore::Probabilities;

    use super::*;

    fn run() -> SplitRun {
        SplitRun {
            seed: 0,
            memory: vec![],
            queries: vec![],
            evidence: vec![],
            own_caption: vec![],
            accuracies: vec![],
            strict: None,
            sweep: vec![],
            neighbor_sweep: vec![],
        }
    }

    fn change<'a>(
        turn: Turn,
        pair: usize,
        shift: f64,
        own_caption: bool,
        run: &'a SplitRun,
        evidence: &'a Evidence,
    ) -> Change<'a> {
        let mut scores = vec![0.1; 10];
        scores[pair % 10] += shift;
        Change {
            turn,
            run,
            pair,
            truth: pair % 10,
            before: 0,
            after: 1,
            evidence,
            scores,
            gate: 0.5,
            own_caption,
        }
    }

    #[test]
    fn examples_are_two_better_one_worse_and_of_different_labels() {
        let image = Probabilities::new(vec![0.1; 10]);
        let evidence = Evidence {
            similarities: Vec::new(),
            image,
            templates: None,
            sigmoids: None,
            captions: None,
            retrieved: vec![],
            votes: vec![],
            gated: None,
            note: None,
        };
        let run = run();
        let make = |turn, pair, shift, own| change(turn, pair, shift, own, &run, &evidence);
        let changes = [
            make(Turn::Better, 1, 0.9, true),
            make(Turn::Better, 2, 0.2, false),
            make(Turn::Better, 12, 0.1, false),
            make(Turn::StillWrong, 3, 0.8, false),
            make(Turn::Worse, 4, -0.1, false),
            make(Turn::Worse, 5, -0.3, false),
        ];
        let pairs = |chosen: Vec<&Change>| chosen.iter().map(|c| c.pair).collect::<Vec<_>>();
        // Pair 12 has the label of pair 2, so the next is the one whose caption was in memory.
        assert_eq!(pairs(examples(&changes)), [2, 1, 5]);
        assert_eq!(pairs(examples(&changes[3..])), [5, 3, 4]);
        assert!(examples(&[]).is_empty());
        assert_eq!(tally(&changes), Tally { better: 3, worse: 2, still_wrong: 1 });
    }

    #[test]
    fn gains_are_paired() {
        let split =
            |zero, other| Method::ALL.map(|m| (m, if m == Method::ZeroShot { zero } else { other })).to_vec();
        let (a, b) = (split(0.25, 0.5), split(0.5, 0.75));
        let figures = Figures::of(&[&a, &b]);
        let xmore = figures.get(Method::Xmore);
        assert_eq!((xmore.acc1_mean, xmore.gain_mean, xmore.gain_std), (0.625, 0.25, Some(0.0)));
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["zero-shot"]["gain_mean"], 0.0);
        assert_eq!(json["xmore"]["acc1_mean"], 0.625);
    }
}

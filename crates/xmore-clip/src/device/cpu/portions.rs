//! How batches of sequences are cut.

use std::ops::Range;

use crate::nn::gemm::split;

/// Sequences that one thread takes through a layer together: of so many tokens at most, or nearly so.
pub(super) fn for_the_caches(lengths: &[usize], tokens: usize) -> Vec<Range<usize>> {
    balanced(lengths, lengths.iter().sum::<usize>().div_ceil(tokens))
}

/// Cuts sequences of these lengths into at most `count` runs of nearly the same number of tokens, each of one sequence or more.
pub(super) fn balanced(lengths: &[usize], count: usize) -> Vec<Range<usize>> {
    let mut total = 0;
    let ends: Vec<usize> = lengths
        .iter()
        .map(|length| {
            total += length;
            total
        })
        .collect();
    let bounds = split(total, count).into_iter().map(|range| ends.partition_point(|&end| end <= range.end));
    let mut from = 0;
    let runs = bounds.map(|to| {
        let run = from..to.max(from);
        from = run.end;
        run
    });
    runs.filter(|run| !run.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_all_sequences_in_order(lengths in prop::collection::vec(1usize..300, 0..40), count in 1usize..9) {
            let runs = balanced(&lengths, count);
            prop_assert!(runs.len() <= count);
            prop_assert!(runs.iter().all(|run| !run.is_empty()));
            prop_assert!(runs.iter().cloned().flatten().eq(0..lengths.len()));
            // None is larger than its share by a sequence or more.
            let tokens = |run: &Range<usize>| lengths[run.clone()].iter().sum::<usize>();
            let share = lengths.iter().sum::<usize>().div_ceil(count);
            prop_assert!(runs.iter().all(|run| tokens(run) < share + lengths.iter().max().unwrap()));
        }
    }

    #[test]
    fn images_of_a_model_are_cut_evenly() {
        assert_eq!(for_the_caches(&[197; 4], 256), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(for_the_caches(&[197; 4], 400), [0..2, 2..4]);
        assert_eq!(for_the_caches(&[50; 10], 256), [0..5, 5..10]);
        assert!(for_the_caches(&[729], 256).into_iter().eq(std::iter::once(0..1)));
    }
}

//! Tokens of padding that others do not see: which tokens of a text are left, and where.

use std::borrow::Cow;

use crate::device::{Device, Wanted};

/// The places of the tokens that are seen: all but those of padding, and the first whatever it is.
pub(crate) fn seen(text: &[u32], padding: Option<u32>) -> Vec<usize> {
    let seen = |&(place, &id): &(usize, &u32)| place == 0 || Some(id) != padding;
    text.iter().enumerate().filter(seen).map(|(place, _)| place).collect()
}

/// The tokens at these places.
pub(crate) fn picked<'a>(text: &'a [u32], places: &[usize]) -> Cow<'a, [u32]> {
    if places.len() == text.len() {
        return Cow::Borrowed(text);
    }
    places.iter().map(|&place| text[place]).collect()
}

/// From each seen token of each text to the next one, or to the text's end; `lengths` are those of the texts.
pub(crate) fn gaps(lengths: impl Iterator<Item = usize>, places: &[Vec<usize>]) -> Vec<usize> {
    let of_text = |(length, places): (usize, &Vec<usize>)| {
        let next = places.iter().skip(1).copied().chain([length]).collect::<Vec<_>>();
        places.iter().zip(next).map(|(place, next)| next - place).collect::<Vec<_>>()
    };
    lengths.zip(places).flat_map(of_text).collect()
}

/// The rows at the places between which these gaps are, of which each text's first is 0.
pub(crate) fn keep<D: Device>(run: &mut D::Run<'_>, x: D::Rows, gaps: &[usize]) -> D::Rows {
    if gaps.iter().all(|&gap| gap == 1) {
        return x;
    }
    let sequences = D::sequences(run, gaps);
    D::pick(run, &x, &sequences, Wanted::First, &[])
}

//! Exact scores of the rows that a coded scan could not exclude, the most promising first.

use half::f16;
use rten_simd::SimdOp;

use super::candidates::{Candidate, nth_lower};
use super::dot::{DotProducts, pad_rows, padded};
use super::top::Top;
use super::{Counts, SearchPart};

/// Rows that are gathered and scored at a time.
const GROUP_ROWS: usize = 32;

/// Offers the candidates' exact scores to `top`, as far as they can be kept. `None` in its place if a score is outside its bounds:
/// then the codes are of other rows than these, and are not used again.
pub(super) fn rescore(
    parts: &[SearchPart<'_>],
    query: &[f32],
    mut candidates: Vec<Candidate>,
    floor: f32,
    mut top: Top,
) -> (Option<Top>, Counts) {
    let dim = query.len();
    let floor = floor.max(nth_lower(&candidates, top.n()));
    candidates.retain(|c| c.upper >= floor);
    candidates.sort_unstable_by(|a, b| b.upper.total_cmp(&a.upper).then(a.id.cmp(&b.id)));
    let mut counts = Counts { candidates: candidates.len() as u64, ..Counts::default() };

    let query = pad_rows(query, dim);
    let mut rows: Vec<f16> = Vec::with_capacity(GROUP_ROWS * dim);
    let mut scratch = vec![0.0; GROUP_ROWS * padded(dim)];
    let mut scores = [0.0; GROUP_ROWS];
    for group in candidates.chunks(GROUP_ROWS) {
        // No score of this group or a later one is above this.
        if group[0].upper < top.floor() {
            break;
        }
        rows.clear();
        group.iter().for_each(|c| rows.extend_from_slice(row(parts, c.id, dim)));
        let out = &mut scores[..group.len()];
        DotProducts { rows: &rows, dim, queries: &query, scratch: &mut scratch, out }.dispatch();
        counts.scored += group.len() as u64;
        for (candidate, &score) in group.iter().zip(&scores) {
            if score < candidate.lower || score > candidate.upper {
                if let Some(codes) = part_of(parts, candidate.id).codes {
                    codes.distrust();
                }
                return (None, counts);
            }
            top.offer(candidate.id, score);
        }
    }
    (Some(top), counts)
}

/// The part of a row.
fn part_of<'p, 'a>(parts: &'p [SearchPart<'a>], id: u64) -> &'p SearchPart<'a> {
    &parts[parts.partition_point(|part| part.first_id <= id) - 1]
}

/// A stored row; parts are in the order of their ids, and the id is one of theirs.
fn row<'a>(parts: &[SearchPart<'a>], id: u64, dim: usize) -> &'a [f16] {
    let part = part_of(parts, id);
    &part.rows[(id - part.first_id) as usize * dim..][..dim]
}

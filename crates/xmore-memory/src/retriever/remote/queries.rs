//! Several queries of one search, asked at the same time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{Neighbor, Neighbors};
use crate::error::Result;

/// Asks for each query, `[q, dim]`, a few at a time. The first failure ends it.
pub(super) fn for_each_query(
    queries: &[f32],
    dim: usize,
    parallel: usize,
    ask: impl Fn(&[f32]) -> Result<Neighbors> + Sync,
) -> Result<Vec<Neighbors>> {
    let count = queries.len() / dim;
    let answers: Vec<Mutex<Option<Result<Neighbors>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let (Some(query), Some(slot)) = (queries.get(i * dim..(i + 1) * dim), answers.get(i)) else {
                break;
            };
            let answer = ask(query);
            failed.fetch_or(answer.is_err(), Ordering::Relaxed);
            *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(answer);
        }
    };
    // Waiting for a server is no work for rayon's threads.
    thread::scope(|scope| {
        for _ in 1..parallel.min(count) {
            // With fewer threads it takes longer; this one asks too.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    // Queries are taken in order, so whatever was left out comes after a failure.
    answers.into_iter().map_while(|slot| slot.into_inner().unwrap_or_else(|p| p.into_inner())).collect()
}

/// Puts neighbors into the order that answers have.
pub(super) fn sort(neighbors: &mut [Neighbor]) {
    neighbors.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id)));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::retriever::RemoteError;

    #[test]
    fn answers_come_in_the_order_of_the_queries_and_the_first_failure_ends_it() {
        let queries: Vec<f32> = (0..40).map(|i| i as f32).collect();
        let ask = |query: &[f32]| {
            thread::sleep(Duration::from_millis((query[0] as u64 * 7) % 5));
            Ok(Neighbors { missing: query[0] as usize, ..Neighbors::default() })
        };
        let answers = for_each_query(&queries, 2, 4, ask).unwrap();
        assert_eq!(
            answers.iter().map(|a| a.missing).collect::<Vec<_>>(),
            (0..40).step_by(2).collect::<Vec<_>>()
        );

        let asked = AtomicUsize::new(0);
        let failing = |query: &[f32]| {
            asked.fetch_add(1, Ordering::Relaxed);
            match query[0] {
                3.0 => Err(RemoteError::Refused { location: "x".into(), reason: "no".into() }.into()),
                _ => Ok(Neighbors::default()),
            }
        };
        assert!(for_each_query(&queries, 1, 1, failing).is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        assert!(for_each_query(&[], 3, 4, failing).unwrap().is_empty());
    }
}

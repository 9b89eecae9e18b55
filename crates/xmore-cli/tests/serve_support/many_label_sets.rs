//! Dozens of new label sets at once: requests with prepared label sets are answered meanwhile, and so are other callers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::wire::{Wanted, ask, ask_from, ask_with_long_timeout};
use super::{World, metric, stop};

const CALLERS: usize = 54;
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// A classification of a pair's image with the kernel method, so that label sets are all the work.
fn classify(labels: &[String]) -> Wanted {
    Wanted::json("/v1/classify", json!({"image": {"id": 1}, "labels": labels}).to_string())
}

fn pair(name: &str) -> [String; 2] {
    ["cat", "dog"].map(|label| format!("{label} {name}"))
}

/// A caller that has its answer, or failed.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn many_new_label_sets_delay_neither_ready_ones_nor_other_callers() {
    let world = World::new();
    let server = world.serve(&["--timeout", "120", "--log-level", "error"]);
    let ready = classify(&pair("ready"));
    assert_eq!(ask(&server, &ready).status, 200);
    let (running, made, refused) = (AtomicUsize::new(CALLERS), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let labels: Vec<String> = (0..1_000).map(|i| format!("thing {i} of {caller}")).collect();
            let (server, running, made, refused) = (&server, &running, &made, &refused);
            scope.spawn(move || {
                let _ended = Ended(running);
                let reply = ask_with_long_timeout(server, &classify(&labels));
                match reply.status {
                    200 => made.fetch_add(1, Ordering::SeqCst),
                    429 => {
                        assert!(reply.header("retry-after").is_some());
                        refused.fetch_add(1, Ordering::SeqCst)
                    }
                    status => panic!("{status}: {}", reply.json()),
                };
            });
        }
        // From the same address as the callers, as long as they run.
        let (server, ready, running) = (&server, &ready, &running);
        let watching = scope.spawn(move || {
            let mut answers = 0;
            while running.load(Ordering::SeqCst) > 0 {
                let reply = ask(server, ready);
                assert_eq!(reply.status, 200, "{}", reply.json());
                answers += 1;
            }
            answers
        });
        // Each new set of another caller waits for what is being made, and for one more at most.
        let mut turns = 0;
        while refused.load(Ordering::SeqCst) == 0 && running.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        while running.load(Ordering::SeqCst) > 1 && turns < 4 {
            let before = made.load(Ordering::SeqCst);
            assert_eq!(ask_from(server, OTHER, &classify(&pair(&format!("other {turns}")))).status, 200);
            let meanwhile = made.load(Ordering::SeqCst) - before;
            assert!(meanwhile <= 3, "{meanwhile} of the callers' sets were made before");
            turns += 1;
        }
        let answers = watching.join().expect("the ready set is always answered");
        println!("{answers} answers for the ready set, {turns} turns of another caller");
        assert!(turns > 0);
    });
    let (made, refused) = (made.into_inner(), refused.into_inner());
    println!("{made} made, {refused} refused");
    assert!(made >= 16 && refused > 0, "{made} made, {refused} refused");
    // It was never made again.
    let found = metric(&server, "xmore_label_set_lookups_total{found=\"no\"}");
    assert_eq!(ask(&server, &ready).status, 200);
    assert_eq!(metric(&server, "xmore_label_set_lookups_total{found=\"no\"}"), found);
    stop(server);
}

#[test]
fn equal_new_sets_are_made_once() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error"]);
    let labels: Vec<String> = (0..3_000).map(|i| format!("thing {i}")).collect();
    let wanted = &classify(&labels);
    // More than may wait, were each to be made.
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| assert_eq!(ask_with_long_timeout(&server, wanted).status, 200));
        }
    });
    stop(server);
}

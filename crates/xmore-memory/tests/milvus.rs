//! Upload and search against the real Milvus server, which is killed on the way.
//!
//! The server comes from its wheel through pip, once, and is kept in the build folder. Without pip or network, or on
//! another platform, the test is skipped, visibly; without pip or network it fails under CI.

mod milvus_server;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use milvus_server::{Server, inside};
use xmore_memory::retriever::{
    IndexKind, Milvus, MilvusAddress, Neighbors, RemoteError, RemoteOptions, UploadReport, open,
};
use xmore_memory::store::{MemoryWriter, ModelIdentity};
use xmore_memory::{Memory, MemoryError, Retriever};

const PAIRS: u64 = 3000;
const DIM: usize = 512;
const QUERIES: usize = 20;
const NEIGHBORS: usize = 128;

#[test]
fn a_memory_survives_a_server_that_is_killed_and_is_found_as_it_is_locally() {
    if !inside("a_memory_survives_a_server_that_is_killed_and_is_found_as_it_is_locally") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = ModelIdentity::new("random", "00".repeat(32), DIM);
    let memory = memory(dir.path(), &model);
    let queries: Vec<f32> = {
        let mut seed = 7;
        (0..QUERIES).flat_map(|_| unit(&mut seed)).collect()
    };
    let local = memory.nearest_images(&queries, DIM, NEIGHBORS).unwrap();

    let start = Instant::now();
    let tell = |what: &str| println!("{:5.1} s: {what}", start.elapsed().as_secs_f64());
    let server = Mutex::new(Server::start());
    let location = location(&server);
    let options = RemoteOptions::default();
    // The server is still starting: an upload is tried again for long enough.
    let milvus = Milvus::create(&location, &model, PAIRS, IndexKind::Flat, &options).unwrap();
    tell("the server is up and has a collection");

    // Killed while rows are on their way, and started again while they are sent again.
    let killed = Mutex::new(false);
    let report = std::thread::scope(|scope| {
        milvus.upload(&memory, |progress| {
            let mut killed = killed.lock().unwrap();
            if progress.done >= PAIRS / 3 && !*killed {
                *killed = true;
                server.lock().unwrap().kill();
                tell(&format!("killed at {} of {} pairs", progress.done, progress.total));
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(1));
                    server.lock().unwrap().start_again();
                });
            }
            true
        })
    });
    let report = report.unwrap();
    tell(&format!("{report:?}"));
    assert!(*killed.lock().unwrap());
    assert!(report.complete && report.present == 0 && report.sent >= PAIRS, "{report:?}");
    assert_eq!(milvus.pairs().unwrap(), Some(PAIRS));
    let found = milvus.nearest_images(&queries, DIM, NEIGHBORS).unwrap();
    assert_same(&found, &local);

    // Sent again, nothing is sent; what else would be there is refused.
    let again = Milvus::create(&location, &model, PAIRS, IndexKind::Flat, &options).unwrap();
    let nothing = UploadReport { total: PAIRS, present: PAIRS, complete: true, ..UploadReport::default() };
    assert_eq!(again.upload(&memory, |_| true).unwrap(), nothing);
    let other = ModelIdentity { fingerprint: "11".repeat(32), ..model.clone() };
    let error = Milvus::create(&location, &other, PAIRS, IndexKind::Flat, &options).err().unwrap();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })), "{error}");

    // The server's own index is approximate.
    let approximate = location.to_string().replace("/pairs", "/approximate").parse().unwrap();
    let approximate = Milvus::create(&approximate, &model, PAIRS, IndexKind::Auto, &options).unwrap();
    assert!(approximate.upload(&memory, |_| true).unwrap().complete);
    let recall = recall(&approximate.nearest_images(&queries, DIM, NEIGHBORS).unwrap(), &local);
    assert!(recall > 0.8, "{recall}");
    tell(&format!("AUTOINDEX finds {recall:.3} of the nearest"));

    // Killed when all is there, and opened as soon as it is up again.
    server.lock().unwrap().kill();
    let error = milvus.nearest_images(&queries[..DIM], DIM, 3).unwrap_err();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Unreachable { .. })), "{error}");
    server.lock().unwrap().start_again();
    let retriever = loop {
        match open(&location.to_string().parse().unwrap(), &options) {
            Ok(retriever) => break retriever,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(200), "{error}"),
        }
    };
    tell("up after the second kill");
    assert_eq!((retriever.pairs().unwrap(), retriever.identity()), (Some(PAIRS), Some(&model)));
    assert_same(&retriever.nearest_images(&queries, DIM, NEIGHBORS).unwrap(), &local);
    let metadata = milvus.metadata(&[0, PAIRS - 1, PAIRS]).unwrap();
    assert_eq!(metadata[1].as_ref().unwrap().caption, memory.caption(PAIRS - 1).unwrap());
    assert!(metadata[0].is_some() && metadata[2].is_none());

    milvus.drop_collection().unwrap();
    let error = open(&location.to_string().parse().unwrap(), &options).err().unwrap();
    assert!(error.to_string().contains("no collection"), "{error}");
    tell("done");
}

fn location(server: &Mutex<Server>) -> MilvusAddress {
    let server = server.lock().unwrap();
    format!("milvus://127.0.0.1:{}/pairs?management={}", server.port, server.management).parse().unwrap()
}

/// The same pairs in the same order, but for those whose similarities differ by no more than rounding.
fn assert_same(found: &[Neighbors], local: &[Neighbors]) {
    assert_eq!(found.len(), local.len());
    for (found, local) in found.iter().zip(local) {
        assert_eq!((found.pairs.len(), found.missing, &found.note), (NEIGHBORS, 0, &None));
        for (found, local) in found.pairs.iter().zip(&local.pairs) {
            assert!((found.similarity - local.similarity).abs() < 1e-5, "{found:?} {local:?}");
        }
        let nearest = |answer: &Neighbors| {
            let mut neighbors = answer.pairs.clone();
            // Pairs that are equal but for rounding at the very end may be in one and not in the other.
            let last = neighbors.last().unwrap().similarity;
            neighbors.retain(|n| n.similarity > last + 1e-5);
            neighbors.sort_by_key(|n| n.id);
            neighbors
                .into_iter()
                .map(|n| (n.id, n.caption, n.image_path, n.text_embedding))
                .collect::<Vec<_>>()
        };
        assert!(nearest(local).len() > NEIGHBORS / 2);
        assert_eq!(nearest(found), nearest(local));
        let order = |answer: &Neighbors| answer.pairs.iter().map(|n| n.id).collect::<Vec<_>>();
        let moved = order(found).iter().zip(order(local)).filter(|(a, b)| **a != *b).count();
        assert!(moved <= 4, "{moved} of {NEIGHBORS} are in another order");
    }
}

/// Share of the nearest pairs that were found.
fn recall(found: &[Neighbors], local: &[Neighbors]) -> f64 {
    let ids = |answer: &Neighbors| answer.pairs.iter().map(|n| n.id).collect::<HashSet<_>>();
    let both = found.iter().zip(local).map(|(found, local)| ids(found).intersection(&ids(local)).count());
    both.sum::<usize>() as f64 / (QUERIES * NEIGHBORS) as f64
}

fn memory(dir: &Path, model: &ModelIdentity) -> Memory {
    let mut writer = MemoryWriter::create(dir, model.clone()).unwrap();
    let mut seed = 1;
    for i in 0..PAIRS {
        let (image, text) = (unit(&mut seed), unit(&mut seed));
        writer
            .push(&format!("photos/{}.jpg", i / 5), &format!("caption \"{i}\", été"), &image, &text)
            .unwrap();
    }
    writer.finish().unwrap();
    Memory::open(dir).unwrap()
}

/// A random unit vector, `[DIM]` (splitmix64; each component a sum of uniform ones, so nearly normal).
fn unit(seed: &mut u64) -> Vec<f32> {
    let mut uniform = || {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let row: Vec<f32> = (0..DIM).map(|_| (0..4).map(|_| uniform()).sum()).collect();
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.into_iter().map(|v| v / norm).collect()
}

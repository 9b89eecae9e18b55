//! Compares what a real clip-retrieval service finds with the exact search in the memory it serves; see
//! `fixtures/knn_service.py`. `knn_check make DIR` writes a memory, `knn_check compare DIR LOCATION` compares.

use std::time::Instant;

use xmore_memory::retriever::{Location, RemoteOptions, open};
use xmore_memory::store::{MemoryWriter, ModelIdentity};
use xmore_memory::{Memory, MemoryError};

const PAIRS: usize = 3000;
const DIM: usize = 128;
const QUERIES: usize = 32;
const NEIGHBORS: usize = 128;

/// Rows of which the service has no caption.
fn has_caption(id: u64) -> bool {
    id % 7 != 3
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", dir] => make(dir)?,
        ["compare", dir, location] => compare(dir, location)?,
        _ => return Err("make DIR, or compare DIR LOCATION".into()),
    }
    Ok(())
}

fn make(dir: &str) -> Result<(), MemoryError> {
    let mut seed = 1;
    let model = ModelIdentity::new("random", String::new(), DIM);
    let mut writer = MemoryWriter::create(dir, model)?;
    for i in 0..PAIRS {
        let (image, text) = (unit(&mut seed), unit(&mut seed));
        writer.push(&format!("photos/{i}.jpg"), &format!("caption NaN {i}"), &image, &text)?;
    }
    writer.finish().map(|_| ())
}

fn compare(dir: &str, location: &str) -> Result<(), Box<dyn std::error::Error>> {
    let memory = Memory::open(dir)?;
    let location: Location = location.parse()?;
    let service = open(&location, &RemoteOptions::default())?;
    let mut seed = 99;
    let queries: Vec<f32> = (0..QUERIES).flat_map(|_| unit(&mut seed)).collect();
    let start = Instant::now();
    let answers = service.nearest_images(&queries, DIM, NEIGHBORS)?;
    let seconds = start.elapsed().as_secs_f64();
    let (mut same, mut error) = (0, 0.0f32);
    for (answer, local) in answers.iter().zip(memory.search_images(&queries, PAIRS)?) {
        let local: Vec<_> = local.into_iter().filter(|hit| has_caption(hit.id)).take(NEIGHBORS).collect();
        assert_eq!((answer.pairs.len(), answer.missing, &answer.note), (NEIGHBORS, 0, &None));
        let order = answer.pairs.iter().map(|n| n.id).eq(local.iter().map(|hit| hit.id));
        same += usize::from(order);
        for (found, local) in answer.pairs.iter().zip(&local) {
            error = error.max((found.similarity - local.similarity).abs());
            assert_eq!(found.caption, memory.caption(found.id)?);
            assert_eq!(found.image_path, format!("https://example.com/{}", found.id));
        }
    }
    println!("{same} of {QUERIES} queries find the same {NEIGHBORS} pairs in the same order");
    println!("similarities differ by {error:e} at most; {:.0} ms a query", seconds / QUERIES as f64 * 1e3);
    let more = service.nearest_images(&queries[..DIM], DIM, 4000)?.remove(0);
    println!("asked for more than there is: {} missing; {}", more.missing, more.note.unwrap_or_default());
    let short = service.nearest_images(&queries[..DIM / 2], DIM / 2, 5).err();
    println!("a query of another model: {}", short.map_or_else(|| "accepted!".into(), |e| e.to_string()));
    let wrong =
        format!("{}?index=mime", location.to_string().split('?').next().unwrap_or_default()).parse()?;
    println!(
        "an index that is not there: {}",
        open(&wrong, &RemoteOptions::default()).err().map_or_else(String::new, |e| e.to_string())
    );
    Ok(())
}

/// A random unit vector (xorshift; each component a sum of uniform ones, so nearly normal).
fn unit(seed: &mut u64) -> Vec<f32> {
    let mut uniform = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let row: Vec<f32> = (0..DIM).map(|_| (0..4).map(|_| uniform()).sum()).collect();
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.into_iter().map(|v| v / norm).collect()
}

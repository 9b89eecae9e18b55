//! Trunks of convolutions: their maps are buffers of the thread.

use crate::device::{Trunk, TrunkEnd};
use crate::nn::gemm::Threads;
use crate::nn::thread_buffers::with_buffers;
use crate::preprocess::Pixels;

use super::Cpu;
use super::map::Map;

/// The positions' rows of all images, which pass one after the other.
pub(super) fn run(threads: &mut Threads, images: &[&Pixels], trunk: &Trunk<'_, Cpu>) -> Vec<f32> {
    let mut rows = Vec::new();
    for image in images {
        with_maps(|maps| {
            trunk(threads, std::slice::from_ref(image), maps);
            rows.extend_from_slice(maps[0].floats());
        });
    }
    rows
}

/// The same, but the maps of all images pass through the end of the trunk together.
pub(super) fn run_with_end(
    threads: &mut Threads,
    images: &[&Pixels],
    trunk: &Trunk<'_, Cpu>,
    end: &TrunkEnd<'_, Cpu>,
) -> Vec<f32> {
    if images.is_empty() {
        return Vec::new();
    }
    with_maps(|[joined, maps @ ..]: &mut [Map; 4]| {
        for (n, image) in images.iter().enumerate() {
            trunk(threads, std::slice::from_ref(image), maps);
            let [map, ..] = &*maps;
            if images.len() > 1 {
                let to = joined.write(images.len(), map.size(), map.channels());
                to[n * map.floats().len()..][..map.floats().len()].copy_from_slice(map.floats());
            }
        }
        if images.len() > 1 {
            std::mem::swap(joined, &mut maps[0]);
        }
        end(threads, maps);
        maps[0].floats().to_vec()
    })
}

/// Runs `work` with some of the thread's buffers as maps.
fn with_maps<const N: usize, T>(work: impl FnOnce(&mut [Map; N]) -> T) -> T {
    with_buffers(|buffers: &mut [Vec<f32>; N]| {
        let mut maps = buffers.each_mut().map(|buffer| Map::in_buffer(std::mem::take(buffer)));
        let result = work(&mut maps);
        for (buffer, map) in buffers.iter_mut().zip(maps) {
            *buffer = map.into_buffer();
        }
        result
    })
}

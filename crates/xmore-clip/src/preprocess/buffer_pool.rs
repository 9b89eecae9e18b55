//! Buffers of dropped images, used again: page faults of new memory cost a tenth of a small network's pass.

use std::sync::{Mutex, PoisonError};

/// Bytes that are kept at most: a hundred images of 224 x 224.
const MAX_KEPT_BYTES: usize = 64 << 20;

static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// An empty buffer with a capacity of at least `len` values.
pub(super) fn take(len: usize) -> Vec<f32> {
    let mut buffer = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
    buffer.clear();
    buffer.reserve_exact(len);
    buffer
}

/// Keeps a buffer that is no longer needed, if there are not enough of them.
pub(super) fn keep(buffer: Vec<f32>) {
    let bytes = buffer.capacity() * size_of::<f32>();
    if bytes == 0 {
        return;
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if (pool.len() + 1) * bytes <= MAX_KEPT_BYTES {
        pool.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_and_has_the_capacity_asked_for() {
        keep(vec![1.0; 100]);
        for len in [10, 1000] {
            let buffer = take(len);
            assert!(buffer.is_empty() && buffer.capacity() >= len);
            keep(buffer);
        }
        keep(Vec::with_capacity(MAX_KEPT_BYTES / size_of::<f32>() + 1));
        let kept: usize = POOL.lock().unwrap().iter().map(Vec::capacity).sum();
        assert!(kept * size_of::<f32>() <= MAX_KEPT_BYTES);
    }
}

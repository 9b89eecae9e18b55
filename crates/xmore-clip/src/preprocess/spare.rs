//! Memory of images that are gone, for those that come: pages that are fresh from the system cost a tenth of a small network's pass.

use std::sync::{Mutex, PoisonError};

/// Bytes that are kept at most: a hundred images of 224 x 224.
const KEPT: usize = 64 << 20;

static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// An empty buffer with room for `len` values.
pub(super) fn take(len: usize) -> Vec<f32> {
    let mut buffer = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
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
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if (spare.len() + 1) * bytes <= KEPT {
        spare.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_and_has_room_whatever_was_in_it() {
        keep(vec![1.0; 100]);
        for len in [10, 1000] {
            let buffer = take(len);
            assert!(buffer.is_empty() && buffer.capacity() >= len);
            keep(buffer);
        }
        keep(Vec::with_capacity(KEPT / size_of::<f32>() + 1));
        let kept: usize = SPARE.lock().unwrap().iter().map(Vec::capacity).sum();
        assert!(kept * size_of::<f32>() <= KEPT);
    }
}

//! A thread's buffers, kept from one pass to the next: page faults of new memory cost as much as a small network's layers.

use std::cell::RefCell;

/// How many buffers a thread keeps.
const MAX_KEPT: usize = 8;
/// Longer buffers, in values, are not kept.
const MAX_LEN: usize = 16 << 20;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with `N` buffers. They may hold anything, of any length, so `work` must write before it reads.
///
/// Work that the thread does within `work`, as the pool's threads do while they wait, gets other buffers.
pub(crate) fn with_buffers<const N: usize, T>(work: impl FnOnce(&mut [Vec<f32>; N]) -> T) -> T {
    let mut buffers: [Vec<f32>; N] =
        BUFFERS.with_borrow_mut(|kept| std::array::from_fn(|_| kept.pop().unwrap_or_default()));
    let result = work(&mut buffers);
    BUFFERS.with_borrow_mut(|kept| {
        // In their old order, so that each is again what it was, and none has to grow.
        for buffer in buffers.into_iter().rev() {
            if kept.len() < MAX_KEPT && buffer.capacity() <= MAX_LEN {
                kept.push(buffer);
            }
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_again_in_their_order_and_nested_work_has_its_own() {
        let pointers = |grow: bool| {
            with_buffers(|buffers: &mut [Vec<f32>; 2]| {
                if grow {
                    buffers[0].resize(10, 1.0);
                    buffers[1].resize(2000, 2.0);
                }
                let inner = with_buffers(|[inner]: &mut [Vec<f32>; 1]| {
                    inner.resize(10, 3.0);
                    inner.as_ptr()
                });
                let outer = [buffers[0].as_ptr(), buffers[1].as_ptr()];
                assert!(!outer.contains(&inner));
                (outer, buffers[1].capacity() >= 2000)
            })
        };
        let (first, _) = pointers(true);
        // The inner buffer is taken first now; the outer ones still differ.
        let (_, _) = pointers(true);
        assert_ne!(first[0], first[1]);
        with_buffers(|[huge]: &mut [Vec<f32>; 1]| huge.reserve(MAX_LEN + 1));
        with_buffers(|kept: &mut [Vec<f32>; MAX_KEPT]| {
            assert!(kept.iter().all(|buffer| buffer.capacity() <= MAX_LEN), "not kept");
        });
    }
}

//! Asks for bytes that are read soon. A processor's own prefetcher starts anew with each page, and stands still while what was read is
//! being tested; a block ahead of it, half of all bytes come in half of the time.

use super::kernel::ALIGN;

/// Has the processor fetch these bytes into its second-level cache, where it can be asked to.
#[inline]
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(ALIGN) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint has no effect but on caches, and every x86_64 processor has it.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, ALIGN);
}

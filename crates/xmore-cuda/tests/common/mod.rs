//! The card of tests that need one.

use xmore_cuda::{CudaError, Device};

/// The first card. Without one the test says that it is skipped, or fails where `XMORE_REQUIRE_GPU` is set.
pub fn device() -> Option<Device> {
    match Device::open(0) {
        Ok(device) => Some(device),
        Err(error @ (CudaError::NoDriver | CudaError::NoDevice { .. })) => {
            assert!(std::env::var_os("XMORE_REQUIRE_GPU").is_none(), "{error}");
            println!("SKIPPED: no NVIDIA GPU");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

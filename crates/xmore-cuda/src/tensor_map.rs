//! Maps of matrices for Hopper's asynchronous copies (TMA).

use cudarc::driver::sys;

use crate::device::Device;
use crate::error::{Result, driver};
use crate::stream::TensorMapBytes;

/// Columns of a box: 128 bytes, the width of the swizzle.
pub const BOX_COLUMNS: usize = 64;

impl TensorMapBytes {
    /// A matrix of f16 on a card, `[rows, width]`, copied in boxes of [`BOX_COLUMNS`] columns of `box_rows` rows (at most 256), which are swizzled
    /// by 128 bytes in shared memory. A box's rows beyond the last are zeros. `width` is a multiple of 8.
    ///
    /// # Errors
    /// That of the driver, for sizes or an address that it does not take.
    pub fn of_rows(
        device: &Device,
        pointer: u64,
        rows: usize,
        width: usize,
        box_rows: usize,
    ) -> Result<Self> {
        device.bind()?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let (dims, strides) = ([width as u64, rows as u64], [width as u64 * 2]);
        let (of_box, steps) = ([BOX_COLUMNS as u32, u32::try_from(box_rows).unwrap_or(u32::MAX)], [1u32, 1]);
        // SAFETY: the arrays have two elements, and the strides one less; the driver only writes the map.
        #[allow(unsafe_code)]
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                2,
                pointer as *mut _,
                dims.as_ptr(),
                strides.as_ptr(),
                of_box.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(driver("cuTensorMapEncodeTiled"))?;
        Ok(Self(map.opaque))
    }
}

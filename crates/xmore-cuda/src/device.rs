//! A card: its context, its facts, the kernels that were compiled for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::driver::{result, sys};

use crate::compile::compile;
use crate::error::{CudaError, Result, driver};
use crate::kernels::{Kernel, Source};
use crate::libraries::open_toolkit;
use crate::products::Products;

/// What is known of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, from 0, as the driver counts.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub processors: usize,
    /// Bytes of memory.
    pub memory: usize,
    /// Shared memory that a block may have, in bytes.
    pub shared_memory: usize,
}

impl DeviceInfo {
    /// Whether it is a Hopper GPU, whose warpgroup products (`wgmma`) and tensor copies kernels of their own use.
    pub fn is_hopper(&self) -> bool {
        self.capability == (9, 0)
    }
}

/// An opened card. It stays open until the process ends.
#[derive(Clone, Copy)]
pub struct Device(&'static Opened);

struct Opened {
    info: DeviceInfo,
    context: sys::CUcontext,
    kernels: Mutex<HashMap<KernelKey, Kernel>>,
    products: Products,
}

type KernelKey = (Source, &'static str, Vec<(&'static str, i64)>);

// SAFETY: contexts may be used from any thread that makes them its current one, as `bind` does.
#[allow(unsafe_code)]
unsafe impl Send for Opened {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Opened {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.0.info).finish()
    }
}

/// The cards that the driver shows; none without a driver.
///
/// # Errors
/// Those of the driver.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    if !start_driver()? {
        return Ok(Vec::new());
    }
    let count = result::device::get_count().map_err(driver("cuDeviceGetCount"))?;
    (0..usize::try_from(count).unwrap_or(0)).map(info).collect()
}

/// Whether there is a driver; starts it.
fn start_driver() -> Result<bool> {
    static STARTED: OnceLock<Result<bool>> = OnceLock::new();
    let start = || {
        // SAFETY: opening the driver's library runs no code of ours.
        #[allow(unsafe_code)]
        if !unsafe { sys::is_culib_present() } {
            return Ok(false);
        }
        match result::init() {
            Ok(()) => Ok(true),
            // A driver's library without a card.
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(false),
            Err(error) => Err(driver("cuInit")(error)),
        }
    };
    STARTED.get_or_init(start).clone()
}

fn info(ordinal: usize) -> Result<DeviceInfo> {
    use sys::CUdevice_attribute as Attribute;
    let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
    let device = result::device::get(number).map_err(driver("cuDeviceGet"))?;
    let get = |attribute: Attribute| -> Result<usize> {
        // SAFETY: `device` is one that the driver gave.
        #[allow(unsafe_code)]
        let value = unsafe { result::device::get_attribute(device, attribute) }
            .map_err(driver("cuDeviceGetAttribute"))?;
        Ok(usize::try_from(value).unwrap_or(0))
    };
    let major = get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    // SAFETY: as above.
    #[allow(unsafe_code)]
    let memory = unsafe { result::device::total_mem(device) }.map_err(driver("cuDeviceTotalMem"))?;
    Ok(DeviceInfo {
        ordinal,
        name: result::device::get_name(device).map_err(driver("cuDeviceGetName"))?,
        capability: (major as u32, minor as u32),
        processors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory,
        shared_memory: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}

impl Device {
    /// Opens a card, or gives the one that was opened before.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::NoLibrary`] where something is missing; those of the driver.
    pub fn open(ordinal: usize) -> Result<Self> {
        static OPENED: Mutex<Vec<&'static Opened>> = Mutex::new(Vec::new());
        let mut all = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = all.iter().find(|opened| opened.info.ordinal == ordinal) {
            return Ok(Self(opened));
        }
        if !start_driver()? {
            return Err(CudaError::NoDriver);
        }
        let found = devices()?.len();
        if ordinal >= found {
            return Err(CudaError::NoDevice { wanted: ordinal, found });
        }
        open_toolkit()?;
        let info = info(ordinal)?;
        let device =
            result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX)).map_err(driver("cuDeviceGet"))?;
        // SAFETY: the device is valid; the context is never released.
        #[allow(unsafe_code)]
        let context = unsafe {
            let context = result::primary_ctx::retain(device).map_err(driver("cuDevicePrimaryCtxRetain"))?;
            result::ctx::set_current(context).map_err(driver("cuCtxSetCurrent"))?;
            context
        };
        let products = Products::new()?;
        let opened = Box::leak(Box::new(Opened { info, context, kernels: Mutex::default(), products }));
        all.push(opened);
        Ok(Self(opened))
    }

    /// What is known of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Bytes of memory that are free.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn free_memory(&self) -> Result<usize> {
        self.bind()?;
        Ok(result::mem_get_info().map_err(driver("cuMemGetInfo"))?.0)
    }

    /// Makes it the calling thread's card.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context is never released.
        #[allow(unsafe_code)]
        unsafe { result::ctx::set_current(self.0.context) }.map_err(driver("cuCtxSetCurrent"))
    }

    pub(crate) fn products(&self) -> &'static Products {
        &self.0.products
    }

    /// What NVRTC calls its architecture; of Hopper the one with `wgmma`.
    pub fn target(&self) -> String {
        let (major, minor) = self.0.info.capability;
        let own = if self.0.info.is_hopper() { "a" } else { "" };
        format!("sm_{major}{minor}{own}")
    }

    /// A kernel of a source, compiled at its first use; `shared` is the most dynamic shared memory it is launched with.
    ///
    /// # Errors
    /// Those of [`compile`]; those of the driver.
    pub fn kernel(
        &self,
        source: Source,
        name: &'static str,
        defines: &[(&'static str, i64)],
        shared: usize,
    ) -> Result<Kernel> {
        let key = (source, name, defines.to_vec());
        let mut kernels = self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = match kernels.get(&key) {
            Some(kernel) => *kernel,
            None => {
                self.bind()?;
                let code = compile(source, &self.target(), defines)?;
                let kernel = Kernel::load(&code, name)?;
                kernels.insert(key, kernel);
                kernel
            }
        };
        kernel.allow_shared(shared)?;
        Ok(kernel)
    }
}

//! Queues of work on a card: kernels, copies, events.

use std::ffi::c_void;
use std::sync::OnceLock;

use cudarc::driver::{result, sys};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::{Result, driver};
use crate::kernels::Kernel;
use crate::products::WORKSPACE;

/// A queue of work, done in order.
#[derive(Debug)]
pub struct Stream {
    device: Device,
    raw: sys::CUstream,
    workspace: OnceLock<Buffer>,
}

// SAFETY: a stream may be used from any thread; the driver locks it.
#[allow(unsafe_code)]
unsafe impl Send for Stream {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Stream {}

/// How many blocks of how many threads, and the shared memory of a block in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl Launch {
    /// Enough blocks of `block` threads for `threads`, in one direction.
    pub fn threads(threads: usize, block: u32) -> Self {
        let blocks = threads.div_ceil(block as usize).max(1);
        Self { grid: [u32::try_from(blocks).unwrap_or(u32::MAX), 1, 1], block, shared: 0 }
    }

    /// A grid of blocks.
    pub fn blocks(grid: [usize; 3], block: u32, shared: usize) -> Self {
        let grid = grid.map(|n| u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        Self { grid, block, shared: u32::try_from(shared).unwrap_or(u32::MAX) }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A pointer on the card; 0 for none.
    Pointer(u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// A tensor map (`CUtensorMap`), 128 bytes, passed by value.
    TensorMap(TensorMapBytes),
}

/// The 128 bytes of a `CUtensorMap`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TensorMapBytes(pub [u64; 16]);

impl From<usize> for Arg {
    /// An `int`; sizes of this crate's kernels are.
    fn from(value: usize) -> Self {
        Self::I32(i32::try_from(value).expect("a size of a kernel fits an int"))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

impl Stream {
    /// A queue of its own.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(device: &Device) -> Result<Self> {
        device.bind()?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(driver("cuStreamCreate"))?;
        Ok(Self { device: *device, raw, workspace: OnceLock::new() })
    }

    /// Memory for products, which run one after another on a stream.
    pub(crate) fn workspace(&self) -> Result<&Buffer> {
        if self.workspace.get().is_none() {
            let _ = self.workspace.set(Buffer::new(&self.device, WORKSPACE)?);
        }
        Ok(self.workspace.get().expect("set above"))
    }

    /// Its card.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Queues a kernel.
    ///
    /// # Errors
    /// Those of the launch; those of running it come with a later call.
    ///
    /// # Safety
    /// `args` are of the kernel's types, its pointers are valid for what the kernel reads and writes with these sizes, and stay so until the
    /// stream has done it.
    #[allow(unsafe_code)]
    pub unsafe fn launch(&self, kernel: &Kernel, launch: Launch, args: &[Arg]) -> Result<()> {
        self.device.bind()?;
        let mut pointers: Vec<*mut c_void> = args
            .iter()
            .map(|arg| match arg {
                Arg::Pointer(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::I64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::TensorMap(value) => std::ptr::from_ref(value).cast_mut().cast(),
            })
            .collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the caller's promise; the values outlive the call, which copies them.
        unsafe {
            result::launch_kernel(
                kernel.raw(),
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.raw,
                &mut pointers,
            )
        }
        .map_err(driver("cuLaunchKernel"))
    }

    /// Waits until all of its work is done.
    ///
    /// # Errors
    /// Those of the work.
    pub fn synchronize(&self) -> Result<()> {
        self.device.bind()?;
        // SAFETY: the stream is valid until it is dropped.
        #[allow(unsafe_code)]
        unsafe { result::stream::synchronize(self.raw) }.map_err(driver("cuStreamSynchronize"))
    }

    /// Later work waits for an event of another stream.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.device.bind()?;
        // SAFETY: both are valid until they are dropped.
        #[allow(unsafe_code)]
        unsafe {
            result::stream::wait_event(self.raw, event.raw, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)
        }
        .map_err(driver("cuStreamWaitEvent"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `new` and destroyed once.
            #[allow(unsafe_code)]
            let _ = unsafe { result::stream::destroy(self.raw) };
        }
    }
}

/// A point in a stream's work.
#[derive(Debug)]
pub struct Event {
    device: Device,
    raw: sys::CUevent,
}

// SAFETY: an event may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Event {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Event {}

impl Event {
    /// An event that also takes the time.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(device: &Device) -> Result<Self> {
        device.bind()?;
        let raw =
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(driver("cuEventCreate"))?;
        Ok(Self { device: *device, raw })
    }

    /// Sets it behind the stream's work so far.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.device.bind()?;
        // SAFETY: both are valid until they are dropped.
        #[allow(unsafe_code)]
        unsafe { result::event::record(self.raw, stream.raw) }.map_err(driver("cuEventRecord"))
    }

    /// Waits until the work before it is done.
    ///
    /// # Errors
    /// Those of the work.
    pub fn synchronize(&self) -> Result<()> {
        self.device.bind()?;
        // SAFETY: valid until dropped.
        #[allow(unsafe_code)]
        unsafe { result::event::synchronize(self.raw) }.map_err(driver("cuEventSynchronize"))
    }

    /// Milliseconds from this event to a later one; waits for both.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn elapsed(&self, later: &Self) -> Result<f32> {
        later.synchronize()?;
        // SAFETY: valid until dropped.
        #[allow(unsafe_code)]
        unsafe { result::event::elapsed(self.raw, later.raw) }.map_err(driver("cuEventElapsedTime"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `new` and destroyed once.
            #[allow(unsafe_code)]
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}

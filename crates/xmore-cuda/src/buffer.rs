//! Memory of a card, and pages of this machine that the card copies from directly.

use std::ffi::c_void;

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use crate::device::Device;
use crate::error::{CudaError, Result, driver};
use crate::stream::Stream;

/// Memory on a card, given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    device: Device,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl Buffer {
    /// Memory of unknown content.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] if the card has not as much free.
    pub fn new(device: &Device, bytes: usize) -> Result<Self> {
        device.bind()?;
        let at_least = bytes.max(1).next_multiple_of(256);
        // SAFETY: a context is bound; the result is checked.
        #[allow(unsafe_code)]
        let pointer =
            unsafe { result::malloc_sync(at_least) }.map_err(|error| match driver("cuMemAlloc")(error) {
                CudaError::OutOfMemory { .. } => CudaError::OutOfMemory { wanted: bytes },
                other => other,
            })?;
        Ok(Self { device: *device, pointer, bytes })
    }

    /// A copy of values of this machine.
    ///
    /// # Errors
    /// Those of [`Buffer::new`] and of the copy.
    pub fn of<T: Pod>(device: &Device, values: &[T]) -> Result<Self> {
        let buffer = Self::new(device, size_of_val(values))?;
        if !values.is_empty() {
            // SAFETY: the buffer is as long as the values.
            #[allow(unsafe_code)]
            unsafe { result::memcpy_htod_sync(buffer.pointer, values) }.map_err(driver("cuMemcpyHtoD"))?;
        }
        Ok(buffer)
    }

    /// Makes it at least so long, and longer by a half than it was, so that slowly growing work does not allocate each time. The content is lost: the
    /// memory is given back before longer memory is taken, as both may not fit the card.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let (device, longer) = (self.device, bytes.max(self.bytes + self.bytes / 2));
        *self = Self::new(&device, 0)?;
        *self = Self::new(&device, longer).or_else(|_| Self::new(&device, bytes))?;
        Ok(())
    }

    /// Where it is on the card.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its card.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits for the stream and copies `out.len()` values from `offset`, in bytes.
    ///
    /// # Errors
    /// Those of the driver, also of work that the stream did before.
    ///
    /// # Panics
    /// If the range is beyond the buffer.
    pub fn read<T: Pod>(&self, stream: &Stream, offset: usize, out: &mut [T]) -> Result<()> {
        assert!(
            offset + size_of_val(out) <= self.bytes,
            "{} bytes from {offset} of {}",
            size_of_val(out),
            self.bytes
        );
        stream.synchronize()?;
        if out.is_empty() {
            return Ok(());
        }
        // SAFETY: the range was checked.
        #[allow(unsafe_code)]
        unsafe { result::memcpy_dtoh_sync(out, self.pointer + offset as u64) }.map_err(driver("cuMemcpyDtoH"))
    }

    /// Copies values to `offset`, in bytes, behind the stream's earlier work. From plain memory the driver copies them aside before this
    /// returns.
    ///
    /// # Errors
    /// Those of the driver.
    ///
    /// # Panics
    /// If the range is beyond the buffer.
    pub fn write<T: Pod>(&self, stream: &Stream, offset: usize, values: &[T]) -> Result<()> {
        assert!(
            offset + size_of_val(values) <= self.bytes,
            "{} bytes from {offset} of {}",
            size_of_val(values),
            self.bytes
        );
        if values.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        // SAFETY: the range was checked; pageable values are staged by the driver before it returns. Values in a `PinnedBuffer` are borrowed only
        // for this call: `PinnedBuffer::copy_to` is the way to copy from those.
        #[allow(unsafe_code)]
        unsafe {
            let pinned_or_not = stream.raw();
            result::memcpy_htod_async(self.pointer + offset as u64, values, pinned_or_not)
                .map_err(driver("cuMemcpyHtoDAsync"))
        }
    }

    /// Fills it with a byte, behind the stream's earlier work.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn fill(&self, stream: &Stream, byte: u8) -> Result<()> {
        self.device.bind()?;
        // SAFETY: the whole buffer.
        #[allow(unsafe_code)]
        unsafe { result::memset_d8_async(self.pointer, byte, self.bytes, stream.raw()) }
            .map_err(driver("cuMemsetD8Async"))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once. The driver waits for work that uses it. An error here was one of that work.
            #[allow(unsafe_code)]
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

/// Memory of this machine that stays where it is, so that the card copies to and from it while the processor goes on.
#[derive(Debug)]
pub struct PinnedBuffer {
    device: Device,
    pointer: *mut c_void,
    bytes: usize,
}

// SAFETY: it is plain memory, owned by this value alone.
#[allow(unsafe_code)]
unsafe impl Send for PinnedBuffer {}
// SAFETY: shared references only read.
#[allow(unsafe_code)]
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Zeros.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(device: &Device, bytes: usize) -> Result<Self> {
        device.bind()?;
        // SAFETY: the result is checked; the memory is zeroed before it is read.
        #[allow(unsafe_code)]
        unsafe {
            let pointer = result::malloc_host(bytes.max(1), 0).map_err(driver("cuMemHostAlloc"))?;
            std::ptr::write_bytes(pointer.cast::<u8>(), 0, bytes.max(1));
            Ok(Self { device: *device, pointer, bytes })
        }
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `bytes` initialized bytes, owned by this value.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.pointer.cast(), self.bytes)
        }
    }

    /// Its bytes, to be written. The caller waits for copies that were begun before ([`Stream::synchronize`] or an event).
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; the reference is exclusive.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.pointer.cast(), self.bytes)
        }
    }

    /// Begins to copy its first `bytes` to the start of a buffer.
    ///
    /// # Errors
    /// Those of the driver.
    ///
    /// # Safety
    /// As [`copy_to_offset`](Self::copy_to_offset).
    ///
    /// # Panics
    /// If one of them is shorter.
    #[allow(unsafe_code)]
    pub unsafe fn copy_to(&self, stream: &Stream, to: &Buffer, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.copy_to_offset(stream, to, 0, bytes) }
    }

    /// Begins to copy its first `bytes` to a buffer, `offset` bytes behind its start.
    ///
    /// # Errors
    /// Those of the driver.
    ///
    /// # Safety
    /// Neither may be changed, read (the buffer) or dropped before the stream has done the copy.
    ///
    /// # Panics
    /// If one of them is shorter.
    #[allow(unsafe_code)]
    pub unsafe fn copy_to_offset(
        &self,
        stream: &Stream,
        to: &Buffer,
        offset: usize,
        bytes: usize,
    ) -> Result<()> {
        let from = &self.as_slice()[..bytes];
        assert!(offset + bytes <= to.bytes());
        self.device.bind()?;
        // SAFETY: lengths were checked; the caller keeps both.
        unsafe { result::memcpy_htod_async(to.pointer() + offset as u64, from, stream.raw()) }
            .map_err(driver("cuMemcpyHtoDAsync"))
    }

    /// Begins to copy `bytes` from a place on the card to its start.
    ///
    /// # Errors
    /// Those of the driver.
    ///
    /// # Safety
    /// `from` is valid for so many bytes, and neither may be changed, read (this) or dropped before the stream has done the copy.
    ///
    /// # Panics
    /// If this is shorter.
    #[allow(unsafe_code)]
    pub unsafe fn copy_from(&mut self, stream: &Stream, from: u64, bytes: usize) -> Result<()> {
        self.device.bind()?;
        let to = &mut self.as_mut_slice()[..bytes];
        // SAFETY: the length was checked; the caller keeps both.
        unsafe { result::memcpy_dtoh_async(to, from, stream.raw()) }.map_err(driver("cuMemcpyDtoHAsync"))
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once.
            #[allow(unsafe_code)]
            let _ = unsafe { result::free_host(self.pointer) };
        }
    }
}

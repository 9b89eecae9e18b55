//! A run of queued work, recorded once and started again as a whole: without it, starting kernels costs more than a small batch's work.

use cudarc::driver::{result, sys};

use crate::device::Device;
use crate::error::{Result, driver};
use crate::stream::Stream;

/// Recorded work.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    raw: sys::CUgraphExec,
}

// SAFETY: it is started through a stream, which the driver locks, and its owner starts it from one thread at a time.
#[allow(unsafe_code)]
unsafe impl Send for Graph {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Graph {}

impl Graph {
    /// Records what `work` queues on the stream, without doing it. All memory it uses must stay where it is as long as the graph is used.
    ///
    /// # Errors
    /// Those of `work` and of the driver.
    pub fn record<E: From<crate::CudaError>>(
        stream: &Stream,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let device = *stream.device();
        device.bind()?;
        // SAFETY: the stream is valid; a capture that was begun is ended, also where `work` fails.
        #[allow(unsafe_code)]
        unsafe {
            result::stream::begin_capture(
                stream.raw(),
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            )
            .map_err(driver("cuStreamBeginCapture"))?;
            let done = work();
            let graph = result::stream::end_capture(stream.raw()).map_err(driver("cuStreamEndCapture"));
            done?;
            let graph = graph?;
            let raw = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags_enum(0));
            let _ = result::graph::destroy(graph);
            Ok(Self { device, raw: raw.map_err(driver("cuGraphInstantiate"))? })
        }
    }

    /// Queues the recorded work.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        self.device.bind()?;
        // SAFETY: both are valid until they are dropped.
        #[allow(unsafe_code)]
        unsafe { result::graph::launch(self.raw, stream.raw()) }.map_err(driver("cuGraphLaunch"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `record` and destroyed once.
            #[allow(unsafe_code)]
            let _ = unsafe { result::graph::exec_destroy(self.raw) };
        }
    }
}

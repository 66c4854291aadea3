//! Time on a CUDA device: events around what a stream does, and captured graphs, whose kernels follow
//! each other without the host.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use cudarc::driver::result::{ctx, device, event, graph, primary_ctx, stream};
use cudarc::driver::sys;

use super::cuda;

/// libtorch's stream, unless a program chooses another.
pub const LIBTORCH: sys::CUstream = std::ptr::null_mut();

/// Tells how long a stream takes for something.
pub enum Clock {
    Events([sys::CUevent; 2]),
    /// With the driver on the host, which has no events: our arms wait for each call there.
    Wall,
}

impl Clock {
    /// A clock for this thread.
    pub fn new() -> Self {
        if cuda::on_host() {
            return Self::Wall;
        }
        // SAFETY: the first device, which is there, and its primary context, which is kept.
        unsafe { ctx::set_current(primary_ctx::retain(device::get(0).unwrap()).unwrap()) }.unwrap();
        let create = || event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap();
        Self::Events([create(), create()])
    }

    /// Whether there are graphs.
    pub fn has_graphs(&self) -> bool {
        matches!(self, Self::Events(_))
    }

    /// Seconds from the beginning to the end of what `work` enqueues on the stream, divided by `calls`.
    pub fn seconds(&self, stream: sys::CUstream, calls: usize, work: impl FnOnce()) -> f64 {
        let seconds = match self {
            Self::Events([start, end]) => {
                // SAFETY: both events live as long as the process, and the stream longer than this.
                unsafe { event::record(*start, stream) }.unwrap();
                work();
                // SAFETY: the same.
                let milliseconds = unsafe {
                    event::record(*end, stream).unwrap();
                    event::synchronize(*end).unwrap();
                    event::elapsed(*start, *end).unwrap()
                };
                f64::from(milliseconds) / 1e3
            }
            Self::Wall => {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            }
        };
        seconds / calls as f64
    }
}

/// Waits for everything on the device.
pub fn synchronize() {
    if !cuda::on_host() {
        ctx::synchronize().unwrap();
    }
}

/// Work that was captured. What it uses (scratch memory too) must live until it has run.
pub struct Graph(sys::CUgraphExec);

impl Graph {
    /// Captures what `work` enqueues on the stream. It must have run once before: memory that it
    /// allocates now would not be that of later calls.
    pub fn capture(handle: sys::CUstream, work: impl FnOnce()) -> Self {
        // Not stricter, since libtorch may free memory meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as the process.
        unsafe { stream::begin_capture(handle, mode) }.unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: the same. Whatever happened, the stream must not stay in capture.
        let captured = unsafe { stream::end_capture(handle) };
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        let captured = captured.unwrap();
        // SAFETY: the graph is valid, and is not needed once it is instantiated.
        let exec = unsafe {
            let exec = graph::instantiate(captured, sys::CUgraphInstantiate_flags(0));
            graph::destroy(captured).unwrap();
            exec
        };
        Self(exec.unwrap())
    }

    pub fn launch(&self, handle: sys::CUstream) {
        // SAFETY: both live, and so does what the kernels use: see `capture`.
        unsafe { graph::launch(self.0, handle) }.unwrap();
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: destroyed once. The driver waits for its work where that still runs.
        let _ = unsafe { graph::exec_destroy(self.0) };
    }
}

//! Streams: work on a device in order.

use std::cell::RefCell;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::scratch::Scratch;
use super::{
    Allocator, Argument, Buffer, DriverAllocator, Gpu, Kernel, Launch, Plain, Slice, SliceMut,
    driver_error,
};
use crate::error::{Error, Result};

/// A CUDA stream: kernels and copies of one device that run in the order of the calls, with scratch
/// memory that each call uses again.
///
/// It can be sent to another thread, and be used by one at a time.
///
/// # Example
///
/// ```no_run
/// use medcam::device::{Gpu, Stream};
///
/// let stream = Stream::new(Gpu::get(0)?)?;
/// let values = stream.upload(&[1.0_f32, 2.0, 3.0])?;
/// assert_eq!(stream.download(values.slice().part(1..3)?)?, [2.0, 3.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub struct Stream {
    gpu: &'static Gpu,
    handle: sys::CUstream,
    owned: bool,
    allocator: Arc<dyn Allocator>,
    scratch: Scratch,
    /// The last one is in use. Earlier, smaller ones may still be borrowed until `release_scratch`.
    counters: RefCell<Vec<Buffer<u32>>>,
}

// SAFETY: the driver takes a stream from any thread; `&Stream` does not leave its thread, as the
// cells inside are not `Sync`.
unsafe impl Send for Stream {}

impl Stream {
    /// A new stream, which waits for no other.
    ///
    /// # Errors
    ///
    /// If the driver refuses.
    pub fn new(gpu: &'static Gpu) -> Result<Self> {
        let _bound = gpu.bind()?;
        let handle = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(driver_error("creating a stream"))?;
        Ok(Self::of(gpu, handle, true))
    }

    fn of(gpu: &'static Gpu, handle: sys::CUstream, owned: bool) -> Self {
        let (scratch, counters) = (Scratch::default(), RefCell::default());
        Self { gpu, handle, owned, allocator: Arc::new(DriverAllocator), scratch, counters }
    }

    /// The same stream, with memory from `allocator` from now on.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use medcam::device::{DriverAllocator, Gpu, Stream};
    ///
    /// let stream = Stream::new(Gpu::get(0)?)?.with_allocator(Arc::new(DriverAllocator));
    /// # Ok::<(), medcam::Error>(())
    /// ```
    #[must_use]
    pub fn with_allocator(mut self, allocator: Arc<dyn Allocator>) -> Self {
        self.allocator = allocator;
        self
    }

    /// A stream that somebody else owns, such as libtorch's current one. Keep it from call to call:
    /// its scratch memory goes with it.
    ///
    /// # Safety
    ///
    /// `handle` is a stream of the primary context of `gpu` (null is the default stream), and is not
    /// destroyed before this.
    pub unsafe fn from_raw(gpu: &'static Gpu, handle: *mut c_void) -> Self {
        Self::of(gpu, handle.cast(), false)
    }

    /// The device that it runs on.
    pub fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    /// The `CUstream`, which is also a `cudaStream_t`.
    pub fn handle(&self) -> *mut c_void {
        self.handle.cast()
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    ///
    /// Those of the kernels and copies before, too.
    pub fn synchronize(&self) -> Result<()> {
        let _bound = self.gpu.bind()?;
        // SAFETY: the stream is not destroyed.
        unsafe { result::stream::synchronize(self.handle) }
            .map_err(driver_error("waiting for the kernels of a stream"))
    }

    /// A copy of `values` in new device memory. Waits until it is made.
    ///
    /// # Errors
    ///
    /// If there is not enough memory.
    pub fn upload<T: Plain>(&self, values: &[T]) -> Result<Buffer<T>> {
        let buffer = self.allocate(values.len())?;
        if !values.is_empty() {
            let _bound = self.gpu.bind()?;
            // SAFETY: the buffer is as long as `values`, which stay until the copy is made: there is
            // a wait before this returns, whatever kind of memory they are in.
            unsafe { result::memcpy_htod_async(buffer.slice().pointer(), values, self.handle) }
                .map_err(driver_error(format_args!(
                    "copying {} values to a device",
                    values.len()
                )))?;
            self.synchronize()?;
        }
        Ok(buffer)
    }

    /// New device memory for `len` values, undefined at first.
    ///
    /// # Errors
    ///
    /// If there is not enough memory.
    pub fn allocate<T: Plain>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::new(self.gpu, Arc::clone(&self.allocator), self.handle(), len)
    }

    /// The values of device memory, after everything before. Waits for them.
    ///
    /// # Errors
    ///
    /// If the memory is another device's, or a kernel before failed.
    pub fn download<T: Plain + Default>(&self, from: Slice<T>) -> Result<Vec<T>> {
        let mut values = vec![T::default(); from.len()];
        self.download_into(from, &mut values)?;
        Ok(values)
    }

    /// [`download`](Self::download) into memory that is there.
    ///
    /// # Errors
    ///
    /// The same, and if `to` is not as long as `from`.
    pub fn download_into<T: Plain>(&self, from: Slice<T>, to: &mut [T]) -> Result<()> {
        if from.len() != to.len() {
            let (from, to) = (from.len(), to.len());
            return Err(Error::input("download", format!("to: {to} values for {from}")));
        }
        self.check_device("download", "from", from.ordinal())?;
        if !to.is_empty() {
            let _bound = self.gpu.bind()?;
            // SAFETY: both are as long, and `to` stays until the wait is over.
            unsafe { result::memcpy_dtoh_async(to, from.pointer(), self.handle) }.map_err(
                driver_error(format_args!("copying {} values from a device", from.len())),
            )?;
            self.synchronize()?;
        }
        Ok(())
    }

    /// Memory for `len` values until [`release_scratch`](Self::release_scratch): undefined at first,
    /// 256-byte aligned. Nothing is allocated once calls of the same sizes were made.
    ///
    /// Whoever begins a call ends it with `release_scratch`; the launchers of ops take scratch and leave
    /// that to their caller.
    ///
    /// # Errors
    ///
    /// If there is not enough memory.
    pub fn scratch<T: Plain>(&self, len: usize) -> Result<SliceMut<'_, T>> {
        let bytes = len.saturating_mul(size_of::<T>());
        let pointer = self.scratch.take(bytes, |bytes| self.allocate(bytes))?;
        // SAFETY: that much memory that nobody else is given until `release_scratch`, which borrows
        // the stream for itself alone, so that the slice is gone by then. Kernels that still use it
        // come before any of the next call, as the stream keeps their order.
        Ok(unsafe { SliceMut::from_raw(self.gpu.ordinal(), pointer, len) })
    }

    /// At least `len` counters that are 0 whenever no kernel runs: a kernel that counts puts them
    /// back to 0. All kernels of a stream share them.
    ///
    /// # Errors
    ///
    /// If there is not enough memory.
    pub fn counters(&self, len: usize) -> Result<SliceMut<'_, u32>> {
        let mut counters = self.counters.borrow_mut();
        if counters.last().is_none_or(|last| last.len() < len) {
            let room = len.checked_next_power_of_two().ok_or_else(|| {
                Error::input("counters", format!("len: {len} are more than memory can be"))
            })?;
            let new = self.zeros(room.max(1024))?;
            counters.push(new);
        }
        let pointer = counters.last().map_or(0, |last| last.slice().pointer());
        // SAFETY: at least that many, which stay until `release_scratch`; kernels share them one
        // after the other, as the stream keeps their order.
        Ok(unsafe { SliceMut::from_raw(self.gpu.ordinal(), pointer, len) })
    }

    fn zeros(&self, len: usize) -> Result<Buffer<u32>> {
        let buffer = self.allocate::<u32>(len)?;
        let bytes = len * size_of::<u32>();
        let _bound = self.gpu.bind()?;
        // SAFETY: the buffer has that many bytes, and nobody else has it yet.
        unsafe { result::memset_d8_async(buffer.slice().pointer(), 0, bytes, self.handle) }
            .map_err(driver_error("clearing counters"))?;
        Ok(buffer)
    }

    /// Ends a call: the next one may use its [`scratch`](Self::scratch) memory, without waiting.
    pub fn release_scratch(&mut self) {
        self.scratch.release();
        let counters = self.counters.get_mut();
        counters.drain(..counters.len().saturating_sub(1));
    }

    /// Has a kernel run after everything before, and returns at once.
    ///
    /// Grid, block and shared memory are held against the limits of the device, the arguments against
    /// the number and sizes of the parameters (with drivers of CUDA 12.4 and newer) and against the
    /// device, before anything runs.
    ///
    /// # Errors
    ///
    /// If one of these does not fit, or the driver refuses. A fault while it runs is an error of a
    /// later call.
    ///
    /// # Safety
    ///
    /// The arguments are those of the kernel's signature in number, order and type. The device memory
    /// among them is as large as the kernel takes it to be with this grid, and stays until the kernel
    /// is done (a [`Buffer`] sees to that itself).
    pub unsafe fn launch(
        &self,
        kernel: &Kernel,
        launch: Launch,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        self.check_device(kernel.name(), "kernel", kernel.gpu().ordinal())?;
        kernel.check(launch, arguments)?;
        let _bound = self.gpu.bind()?;
        kernel.allow_shared_bytes(launch.shared_bytes)?;
        let mut values: Vec<_> =
            arguments.iter().map(|argument| argument.value().cast_mut()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the caller vouches for the arguments, whose values the driver copies before it
        // returns; kernel, context and stream are of one device, and the limits hold.
        unsafe {
            result::launch_kernel(
                kernel.function(),
                (x, y, z),
                (launch.block_threads, 1, 1),
                launch.shared_bytes,
                self.handle,
                &mut values,
            )
        }
        .map_err(driver_error(format_args!("launching {} with {launch:?}", kernel.name())))
    }

    /// Whether memory or a kernel is on this stream's device.
    fn check_device(&self, operation: &str, argument: &str, ordinal: usize) -> Result<()> {
        let own = self.gpu.ordinal();
        if ordinal == own {
            return Ok(());
        }
        Err(Error::input(
            operation,
            format!("{argument}: on device {ordinal}, and the stream is on device {own}"),
        ))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned
            && let Ok(_bound) = self.gpu.bind()
        {
            // SAFETY: created in `new`, destroyed once; the driver does so when its work is done.
            let _ = unsafe { result::stream::destroy(self.handle) };
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream {:?} on {:?}", self.handle, self.gpu)
    }
}

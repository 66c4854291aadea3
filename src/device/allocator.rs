//! Where device memory comes from.

use std::error::Error;
use std::ffi::c_void;

use cudarc::driver::result;

use super::driver_words;

/// Where a [`Stream`](super::Stream) takes the memory of its buffers and its scratch from.
///
/// [`DriverAllocator`] is the default; [`Stream::with_allocator`](super::Stream::with_allocator) takes another. Implement it to share
/// the pool of a library that runs in the same process: memory that such a pool has cached is not
/// free to the driver.
///
/// # Safety
///
/// [`allocate`](Self::allocate) returns the address of at least as many bytes as asked for, in memory
/// of the stream's device, aligned to 256 bytes, which nothing else uses until they are freed.
///
/// [`free`](Self::free) may be called while kernels and copies of that stream still use the memory.
/// Until they are done, it may go to nothing but later work of the same stream.
///
/// # Example
///
/// An allocator that counts the bytes that are in use:
///
/// ```
/// use std::ffi::c_void;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use medcam::device::{Allocator, DriverAllocator};
///
/// #[derive(Default)]
/// struct Counting {
///     bytes: AtomicUsize,
/// }
///
/// // SAFETY: the driver's memory, and nothing else.
/// unsafe impl Allocator for Counting {
///     fn allocate(
///         &self,
///         bytes: usize,
///         stream: *mut c_void,
///     ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
///         self.bytes.fetch_add(bytes, Ordering::Relaxed);
///         DriverAllocator.allocate(bytes, stream)
///     }
///
///     unsafe fn free(&self, pointer: u64, bytes: usize) {
///         self.bytes.fetch_sub(bytes, Ordering::Relaxed);
///         // SAFETY: as the caller promises.
///         unsafe { DriverAllocator.free(pointer, bytes) };
///     }
/// }
/// assert_eq!(Counting::default().bytes.into_inner(), 0);
/// ```
pub unsafe trait Allocator: Send + Sync {
    /// The address of `bytes` bytes, at least 1, for work on `stream` (a `CUstream`; null is the default
    /// stream), whose device's context is current in the calling thread.
    ///
    /// # Errors
    ///
    /// If there is not enough memory; the message of the error becomes part of that of the call.
    fn allocate(
        &self,
        bytes: usize,
        stream: *mut c_void,
    ) -> Result<u64, Box<dyn Error + Send + Sync>>;

    /// Takes memory back. The device's context is current in the calling thread; the stream may be
    /// gone.
    ///
    /// # Safety
    ///
    /// `pointer` is what [`allocate`](Self::allocate) of this allocator returned for `bytes`, and is
    /// freed once.
    unsafe fn free(&self, pointer: u64, bytes: usize);
}

/// The driver's memory: `cuMemAlloc`, and `cuMemFree`, which waits for kernels that are under way.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriverAllocator;

// SAFETY: what cuMemAlloc returns is aligned to 256 bytes and is nobody else's; cuMemFree waits until
// the device has done what was launched before.
unsafe impl Allocator for DriverAllocator {
    fn allocate(
        &self,
        bytes: usize,
        _stream: *mut c_void,
    ) -> Result<u64, Box<dyn Error + Send + Sync>> {
        // SAFETY: a context is current and the size is not 0.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| driver_words(error).into())
    }

    unsafe fn free(&self, pointer: u64, _bytes: usize) {
        // SAFETY: allocated above and freed once, as the caller promises.
        if let Err(error) = unsafe { result::free_sync(pointer) } {
            // A kernel failed before, and its own call reports that.
            tracing::debug!("freeing memory: {}", driver_words(error));
        }
    }
}

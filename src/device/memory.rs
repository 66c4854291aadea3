//! Device memory: owned, borrowed, and borrowed for writing.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::{Allocator, Gpu};
use crate::error::{Error, Result};

/// A type whose values mean the same as bytes in host and device memory.
///
/// # Safety
///
/// No padding, no pointers, and any bits are a value.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

/// Defines a struct of [`Plain`] fields that is itself [`Plain`], laid out as in C; one with padding
/// does not compile.
macro_rules! plain_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$of:meta])* pub $field:ident: $type:ty,)* }) => {
        #[repr(C)]
        $(#[$meta])*
        pub struct $name { $($(#[$of])* pub $field: $type,)* }

        const _: () = {
            const fn is_plain<T: $crate::device::Plain>() -> usize {
                size_of::<T>()
            }
            assert!(size_of::<$name>() == 0 $(+ is_plain::<$type>())*, "padding");
        };

        // SAFETY: its fields are plain and, as is just asserted, all there is.
        unsafe impl $crate::device::Plain for $name {}
    };
}
pub(crate) use plain_struct;

macro_rules! plain {
    ($($type:ty),*) => {
        $(
            // SAFETY: a number, all of whose bits count.
            unsafe impl Plain for $type {}
        )*
    };
}
plain!(f32, f64, half::f16, half::bf16, u8, u32, u64, i32, i64);

/// Owned device memory for `len` values, 256-byte aligned, which goes back to the
/// [`Allocator`] when dropped.
///
/// Drop it as early as you like: the allocator sees to it that kernels of the buffer's [`Stream`](super::Stream) that
/// are under way keep their memory. Before you use a buffer on another stream, synchronise.
///
/// # Example
///
/// ```no_run
/// use medcam::device::{Gpu, Stream};
///
/// let stream = Stream::new(Gpu::get(0)?)?;
/// let mut buffer = stream.allocate::<f32>(1000)?;
/// let (weights, map) = buffer.slice_mut().split_at(10)?; // for a launch that writes both
/// assert_eq!((weights.len(), map.len()), (10, 990));
/// # Ok::<(), medcam::Error>(())
/// ```
pub struct Buffer<T: Plain> {
    gpu: &'static Gpu,
    allocator: Arc<dyn Allocator>,
    /// 0 where there are no values, and no memory.
    pointer: u64,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// Memory of undefined contents, for work on `stream`, one of `gpu`.
    pub(super) fn new(
        gpu: &'static Gpu,
        allocator: Arc<dyn Allocator>,
        stream: *mut c_void,
        len: usize,
    ) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| {
            Error::input("allocate", format!("len: {len} values are more than memory can be"))
        })?;
        let pointer = if bytes == 0 {
            0
        } else {
            let _bound = gpu.bind()?;
            allocator.allocate(bytes, stream).map_err(|error| {
                let (name, ordinal) = (gpu.name(), gpu.ordinal());
                let what = format!("{bytes} bytes of memory on {name} (device {ordinal}): {error}");
                Error::device(what).because(error)
            })?
        };
        Ok(Self { gpu, allocator, pointer, len, values: PhantomData })
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, for reading.
    pub fn slice(&self) -> Slice<'_, T> {
        Slice {
            pointer: self.pointer,
            len: self.len,
            ordinal: self.gpu.ordinal(),
            values: PhantomData,
        }
    }

    /// All of it, for writing.
    pub fn slice_mut(&mut self) -> SliceMut<'_, T> {
        SliceMut(Slice { values: PhantomData, ..self.slice() }, PhantomData)
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.pointer == 0 {
            return;
        }
        match self.gpu.bind() {
            // SAFETY: allocated in `new` with as many bytes, and freed once.
            Ok(_bound) => unsafe { self.allocator.free(self.pointer, self.len * size_of::<T>()) },
            Err(error) => tracing::debug!("freeing memory: {error}"),
        }
    }
}

impl<T: Plain> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer {:?}", self.slice())
    }
}

/// Borrowed device memory: `len` values of one device.
///
/// # Example
///
/// ```
/// use medcam::device::Slice;
///
/// // SAFETY: never read.
/// let values = unsafe { Slice::<f32>::from_raw(0, 0x1000, 8) };
/// let second_half = values.part(4..8)?;
/// assert_eq!((second_half.pointer(), second_half.len()), (0x1010, 4));
/// assert!(values.part(4..9).is_err());
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Slice<'a, T: Plain> {
    pointer: u64,
    len: usize,
    ordinal: usize,
    values: PhantomData<&'a T>,
}

impl<'a, T: Plain> Slice<'a, T> {
    /// Memory that somebody else owns, such as that of a libtorch tensor.
    ///
    /// # Safety
    ///
    /// `pointer` is aligned for `T` and points at `len` values on device `ordinal`, which stay there
    /// for `'a` and until the launches that read them are done.
    pub unsafe fn from_raw(ordinal: usize, pointer: u64, len: usize) -> Self {
        Self { pointer, len, ordinal, values: PhantomData }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of its device.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The address of the first value, in device memory.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub(super) fn address(&self) -> *const u64 {
        &raw const self.pointer
    }

    /// The values of `range`.
    ///
    /// # Errors
    ///
    /// If they are not all within.
    pub fn part(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.len {
            let len = self.len;
            return Err(Error::input("part", format!("range: {range:?} of a slice of {len}")));
        }
        let pointer = self.pointer + (range.start * size_of::<T>()) as u64;
        Ok(Self { pointer, len: range.len(), ..*self })
    }
}

impl<T: Plain> fmt::Debug for Slice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<T>();
        write!(f, "[{name}; {}] at {:#x} of device {}", self.len, self.pointer, self.ordinal)
    }
}

/// Exclusively borrowed device memory, which a launch may write to.
pub struct SliceMut<'a, T: Plain>(Slice<'a, T>, PhantomData<&'a mut T>);

impl<'a, T: Plain> SliceMut<'a, T> {
    /// Memory that somebody else owns, such as that of a libtorch tensor.
    ///
    /// # Safety
    ///
    /// As for [`Slice::from_raw`], and nothing else reads or writes it for `'a` and until the
    /// launches that use it are done, unless ordered by the same stream.
    pub unsafe fn from_raw(ordinal: usize, pointer: u64, len: usize) -> Self {
        Self(Slice { pointer, len, ordinal, values: PhantomData }, PhantomData)
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it holds no values.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The number of its device.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// The address of the first value, in device memory.
    pub fn pointer(&self) -> u64 {
        self.0.pointer
    }

    pub(super) fn address(&self) -> *const u64 {
        self.0.address()
    }

    /// The same memory, borrowed from this borrow.
    pub fn reborrow(&mut self) -> SliceMut<'_, T> {
        SliceMut(self.0, PhantomData)
    }

    /// The same memory for reading.
    pub fn as_slice(&self) -> Slice<'_, T> {
        self.0
    }

    /// The values of `range`.
    ///
    /// # Errors
    ///
    /// If they are not all within.
    pub fn part(&mut self, range: Range<usize>) -> Result<SliceMut<'_, T>> {
        Ok(SliceMut(self.0.part(range)?, PhantomData))
    }

    /// The values before `middle`, and those from there on.
    ///
    /// # Errors
    ///
    /// If there are fewer than `middle`.
    pub fn split_at(self, middle: usize) -> Result<(Self, Self)> {
        let (first, second) = (self.0.part(0..middle)?, self.0.part(middle..self.0.len)?);
        Ok((Self(first, PhantomData), Self(second, PhantomData)))
    }
}

impl<T: Plain> fmt::Debug for SliceMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

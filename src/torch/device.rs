//! Where a model runs.

#[cfg(feature = "cuda")]
use std::ffi::c_void;
use std::fmt;
use std::str::FromStr;

use tch::Tensor;

use super::ffi;
use super::tape::own;
use crate::error::{Error, Result};

/// Where a model runs.
///
/// # Example
///
/// ```
/// use medcam::Device;
///
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// assert!("tpu".parse::<Device>().unwrap_err().is_usage());
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device with this index.
    Cuda(usize),
}

impl Device {
    /// The first CUDA device if libtorch can use one, the CPU otherwise.
    pub fn best() -> Self {
        if cuda_devices() > 0 { Self::Cuda(0) } else { Self::Cpu }
    }

    /// The device itself, if this machine has it.
    ///
    /// # Errors
    ///
    /// [`Error::is_unavailable`] if it is a CUDA device that libtorch cannot use.
    pub fn available(self) -> Result<Self> {
        match self {
            Self::Cuda(index) if index >= cuda_devices() => Err(Error::unavailable(format!(
                "device {self}: libtorch sees {} CUDA device(s) on this machine. Use --device cpu, \
                 or check the driver with nvidia-smi",
                cuda_devices()
            ))),
            _ => Ok(self),
        }
    }

    pub(crate) fn to_tch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(index) => tch::Device::Cuda(index),
        }
    }

    /// As the shim counts: -1 for the CPU.
    pub(super) fn cuda_index(self) -> i64 {
        match self {
            Self::Cpu => -1,
            Self::Cuda(index) => i64::try_from(index).unwrap_or(i64::MAX),
        }
    }
}

fn cuda_devices() -> usize {
    // SAFETY: the function takes nothing, catches every exception and may be called at any time.
    usize::try_from(unsafe { ffi::mc_cuda_devices() }).unwrap_or(0)
}

/// The handle (a `CUstream`) of the stream on which libtorch launches from this thread on a CUDA device; null is
/// the default stream.
#[cfg(feature = "cuda")]
pub(crate) fn current_cuda_stream(ordinal: usize) -> Result<*mut c_void> {
    let index = i64::try_from(ordinal).unwrap_or(i64::MAX);
    let mut handle = std::ptr::null_mut();
    // SAFETY: `handle` takes what the shim sets, and outlives the call.
    ffi::checked(|error| unsafe { ffi::mc_cuda_stream(index, &raw mut handle, error) })
        .map_err(Error::device)?;
    Ok(handle)
}

/// A new tensor on the CPU of the shape and type of another, in pinned memory: copies between that and a device
/// are made without a stop at other memory of the host.
pub(crate) fn pinned(like: &Tensor) -> Result<Tensor> {
    let mut empty = std::ptr::null_mut();
    // SAFETY: `like` is alive for the call, and a torch-sys tensor pointer is the at::Tensor that the shim expects;
    // `empty` takes what the shim sets.
    ffi::checked(|error| unsafe { ffi::mc_pinned(like.as_ptr().cast(), &raw mut empty, error) })
        .map_err(Error::model)?;
    // SAFETY: on success the shim hands out a tensor that is ours.
    Ok(unsafe { own(empty) })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::usage(format!("device '{text}': expected cpu, cuda or cuda:N"));
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// Asks the C allocator to keep freed memory for reuse rather than hand it back to the system.
///
/// Worth it in a program whose work is forwards of 3D networks on the CPU: activations of tens of
/// megabytes otherwise come from the system and go back to it layer by layer, and each of their
/// pages is cleared anew. It made inference itself 1.3 times faster where it was measured (a DynUNet
/// at 64x64x64), and maps more. The price: the process keeps the most memory it ever held, and no
/// block is taken from the system by itself, up to 2 GiB each.
///
/// A setting of the whole process, so the library never makes it by itself; the `medcam` program
/// does. Call it first thing. Returns whether the allocator knows the setting (glibc does).
///
/// # Example
///
/// ```
/// let kept = medcam::keep_freed_memory();
/// # let _ = kept;
/// ```
pub fn keep_freed_memory() -> bool {
    // SAFETY: takes nothing; mallopt may be called at any time.
    unsafe { ffi::mc_keep_freed_memory() }
}

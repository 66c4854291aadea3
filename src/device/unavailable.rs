//! Why there is no GPU to use.

use std::fmt;

use crate::error::Error;

/// Why no kernel can run here; what is missing is in the text.
///
/// # Example
///
/// ```
/// use medcam::device::{Unavailable, probe};
///
/// match probe() {
///     Ok(devices) => println!("{}", devices[0].name),
///     Err(Unavailable::NoDriver(why)) => println!("CPU only: {why}"),
///     Err(other) => println!("CPU only: {other}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// NVIDIA's driver (`libcuda.so.1`) is not installed, or does not start.
    NoDriver(String),
    /// NVRTC, which compiles the kernels, is not found.
    NoNvrtc(String),
    /// The driver is there and sees no device.
    NoDevice(String),
    /// The driver is for an older major version of CUDA than every NVRTC that is found.
    OldDriver(String),
    /// No NVRTC that is found compiles for the device.
    UnknownArchitecture(String),
    /// The driver does not load the machine code that NVRTC makes.
    Refused(String),
}

impl Unavailable {
    /// Whether it holds until the process ends, so that it is remembered; what is merely missing may come.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::OldDriver(_) | Self::UnknownArchitecture(_) | Self::Refused(_))
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver(why) => write!(f, "no CUDA driver: {why}"),
            Self::NoNvrtc(why) => write!(f, "no NVRTC, which compiles the kernels: {why}"),
            Self::NoDevice(why) => write!(f, "no CUDA device: {why}"),
            Self::OldDriver(why) => write!(f, "the CUDA driver is older than NVRTC: {why}"),
            Self::UnknownArchitecture(why) => {
                write!(f, "no NVRTC that knows the architecture of the CUDA device: {why}")
            }
            Self::Refused(why) => write!(f, "the CUDA driver does not load kernels: {why}"),
        }
    }
}

impl std::error::Error for Unavailable {}

impl From<Unavailable> for Error {
    fn from(why: Unavailable) -> Self {
        Self::unavailable(why.to_string())
    }
}

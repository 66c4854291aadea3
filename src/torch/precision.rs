//! The type of a model's numbers.

use std::ffi::c_char;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The type of a model's numbers.
///
/// # Example
///
/// ```
/// use medcam::Precision;
///
/// assert_eq!("bf16".parse::<Precision>()?, Precision::BFloat16);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    Float,
    /// 16 bits, with the range of f32 and 8 bits of precision.
    BFloat16,
    /// 16 bits, up to 65504, with 11 bits of precision.
    Half,
}

impl Precision {
    /// As the shim names it.
    pub(super) fn letter(self) -> c_char {
        match self {
            Self::Float => b'f' as c_char,
            Self::BFloat16 => b'b' as c_char,
            Self::Half => b'h' as c_char,
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::Float),
            "bf16" => Ok(Self::BFloat16),
            "f16" => Ok(Self::Half),
            other => Err(Error::usage(format!("precision {other}: expected f32, bf16 or f16"))),
        }
    }
}

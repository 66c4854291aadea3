//! Attention methods, and the score that they explain.

mod target;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub(crate) use target::Score;
pub use target::{ScoreAt, Target};

use crate::error::{Error, Result};
use crate::ops::Method;

/// An attention method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Backend {
    /// Grad-CAM (arXiv 1610.02391): `L[b,n] = ReLU(sum_c w[b,c]·A[b,c,n])` with
    /// `w[b,c] = mean_n G[b,c,n]`; for segmentation Seg-Grad-CAM (arXiv 2002.11434).
    #[default]
    #[serde(rename = "gcam")]
    GradCam,
}

impl Backend {
    /// The method of the ops.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::GradCam => Method::GradCam,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GradCam => "Grad-CAM",
        })
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "gcam" => Ok(Self::GradCam),
            _ => Err(Error::usage(format!("backend '{text}': expected gcam"))),
        }
    }
}

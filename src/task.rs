//! What a network does: classification or segmentation.

use serde::{Deserialize, Serialize};

#[cfg(feature = "torch")]
use crate::error::{Error, Result};

/// What a network does, told from the rank of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One score per class: output `(B, K)`.
    Classification,
    /// One score per class and voxel: output `(B, K, [D,] H, W)`.
    Segmentation,
}

#[cfg(feature = "torch")]
impl Task {
    /// Of an output `(B, K, ...)`.
    pub(crate) fn of(input: &[i64], output: &[i64]) -> Result<Self> {
        let space = input.get(2..).unwrap_or_default();
        match output.len() {
            2 => Ok(Self::Classification),
            rank if rank == input.len()
                && output[1..rank - 1] == *space
                && output[2..] != *space =>
            {
                Err(Error::model(format!(
                    "output of shape {output:?} for an input of shape {input:?}: its classes seem to be on \
                     the last axis, (B, [D,] H, W, K). Export a model that returns (B, K, [D,] H, W)"
                )))
            }
            rank if rank == input.len() => Ok(Self::Segmentation),
            _ => Err(Error::model(format!(
                "output of shape {output:?} for an input of shape {input:?}: neither one score per \
                 class (B, K) nor one per class and voxel"
            ))),
        }
    }
}

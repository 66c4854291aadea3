//! Checks the arguments of a call against the batch and the options.

use ndarray::ArrayD;
use tch::Tensor;

use super::{Call, Injected};
use crate::bridge::extents;
use crate::error::{Error, Result};
use crate::outputs::Names;
use crate::torch::Network;
use crate::volumes::Prepared;

impl<N: Network> Injected<N> {
    pub(super) fn check_call(&self, input: &Tensor, call: &Call) -> Result<()> {
        match (call.mask, &self.options.evaluate) {
            (Some(mask), Some(_)) => check_mask(mask, input)?,
            (None, Some(_)) => {
                return Err(Error::input(
                    "evaluate",
                    "no mask: give the ground truth of the batch with Call::mask to forward_with",
                ));
            }
            (Some(_), None) => {
                return Err(Error::input(
                    "mask",
                    "nothing evaluates it: say what is measured with Options::evaluate",
                ));
            }
            (None, None) => {}
        }
        if let Some(name) = &call.name {
            Names::check_stem(name)?;
        }
        if let Some(image) = call.image {
            check_image(image, input)?;
        }
        let (images, batch) = (call.raw_input.len(), extents(input).first().copied().unwrap_or(0));
        if images != 0 && images != batch {
            return Err(Error::input(
                "raw_input",
                format!("{images} image(s) for a batch of {batch}; give one per sample"),
            ));
        }
        Ok(())
    }
}

/// Checks that the batch has the shape of the prepared image: on another image's grid, maps would
/// be misplaced without any error.
fn check_image(image: &Prepared, input: &Tensor) -> Result<()> {
    let prepared = image.tensor.shape();
    if prepared == extents(input) {
        return Ok(());
    }
    Err(Error::input(
        "image",
        format!(
            "a batch of shape {:?}, but the image was prepared to {prepared:?}; give forward_with the \
             image that the batch was made of, one image a call",
            input.size()
        ),
    ))
}

/// Checks that a mask is `(B, 1, [D,] H, W)`, on any grid.
fn check_mask(mask: &ArrayD<f32>, input: &Tensor) -> Result<()> {
    let (shape, of_input) = (mask.shape(), extents(input));
    let batch = of_input.first().copied().unwrap_or(0);
    if shape.len() == of_input.len() && shape.get(..2) == Some(&[batch, 1]) {
        return Ok(());
    }
    let axes = if of_input.len() == 4 { "1, H, W" } else { "1, D, H, W" };
    Err(Error::input(
        "evaluate",
        format!("mask of shape {shape:?}; for this batch it must be ({batch}, {axes})"),
    ))
}

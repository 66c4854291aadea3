//! What a forward is given, held against the network and the options.

use ndarray::ArrayD;
use tch::{Kind, Tensor};

use super::Injected;
use super::options::{Call, MapSize};
use crate::error::{Error, Result};
use crate::torch::{Network, torch};

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
                    "nothing evaluates it: give an evaluator with Options::evaluate",
                ));
            }
            (None, None) => {}
        }
        if let Some(name) = &call.name {
            check_name(name)?;
        }
        let (images, batch) = (call.raw_input.len(), input.size()[0]);
        if images != 0 && i64::try_from(images).ok() != Some(batch) {
            return Err(Error::input(
                "raw_input",
                format!("{images} image(s) for a batch of {batch}; give one per sample"),
            ));
        }
        Ok(())
    }

    /// The size of the maps; `None` for that of the layer.
    pub(super) fn size(&self, input: &Tensor) -> Result<Option<[usize; 3]>> {
        let size = match self.options.size {
            MapSize::Layer => None,
            MapSize::Exact(size) => Some(size),
            MapSize::Input => Some(spatial(input)),
        };
        if let (4, Some([depth, ..])) = (input.dim(), size)
            && depth != 1
        {
            return Err(Error::input(
                "size",
                format!("a depth of {depth} for a 2D network; give 1, H and W"),
            ));
        }
        Ok(size)
    }
}

/// A name becomes a part of paths, also of those within an archive.
fn check_name(name: &str) -> Result<()> {
    if name.contains(['/', '\\', '\0']) || ["", ".", ".."].contains(&name) {
        return Err(Error::input(
            "name",
            format!("{name:?} cannot be part of a path; give one such as the stem of a file"),
        ));
    }
    Ok(())
}

/// A mask is `(B, 1, [D,] H, W)`, on any grid.
fn check_mask(mask: &ArrayD<f32>, input: &Tensor) -> Result<()> {
    let (shape, of_input) = (mask.shape(), input.size());
    let batch = usize::try_from(of_input[0]).unwrap_or(0);
    if shape.len() == of_input.len() && shape[..2] == [batch, 1] {
        return Ok(());
    }
    let axes = if of_input.len() == 4 { "1, H, W" } else { "1, D, H, W" };
    Err(Error::input(
        "evaluate",
        format!("mask of shape {shape:?}; for this batch it must be ({batch}, {axes})"),
    ))
}

/// `D, H, W` of an input; 2D has `D = 1`.
fn spatial(input: &Tensor) -> [usize; 3] {
    let mut extents = [1; 3];
    for (extent, &n) in extents.iter_mut().rev().zip(input.size()[2..].iter().rev()) {
        *extent = usize::try_from(n).unwrap_or(0);
    }
    extents
}

/// Refuses a score that has no gradient.
pub(super) fn differentiable(scored: &Tensor) -> Result<()> {
    let kind = scored.kind();
    if matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
        return Ok(());
    }
    let what = match kind {
        Kind::ComplexHalf | Kind::ComplexFloat | Kind::ComplexDouble => {
            "complex numbers have no greatest, so none is a score. Export the model with a real \
             output, such as their magnitude"
        }
        _ => {
            "what is not floating point, as behind an argmax or a threshold, has no gradient. Export \
             the model so that it returns its scores"
        }
    };
    Err(Error::model(format!(
        "the model's output is of type {kind:?}: {what}; or, if it returns several tensors, have \
         another explained (--explain-output, Model::with_output)"
    )))
}

/// Refuses NaN and infinity.
pub(super) fn finite(what: &str, tensor: &Tensor) -> Result<()> {
    let bad = torch(what, || {
        let tensor = tensor.f_detach()?;
        // One pass without a temporary; only a sum that is not finite calls for a closer look.
        if tensor.f_sum(Kind::Float)?.f_double_value(&[])?.is_finite() {
            return Ok(0);
        }
        i64::try_from(tensor.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?)
    })?;
    if bad == 0 {
        return Ok(());
    }
    Err(Error::input(what, format!("{bad} of {} values are NaN or infinite", tensor.numel())))
}

//! Checks the input and the output of a forward before maps are computed.

use tch::{Kind, Tensor};

use super::settings::MapSize;
use crate::bridge::{Fetched, Readback, Slot, extents, is_on_device};
use crate::error::{Error, Result};
use crate::torch::in_libtorch;

/// The size of the maps; `None` for that of the layer.
pub(super) fn size(asked: MapSize, input: &Tensor) -> Result<Option<[usize; 3]>> {
    let size = match asked {
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

/// `D, H, W` of an input; 2D has `D = 1`.
fn spatial(input: &Tensor) -> [usize; 3] {
    match extents(input)[..] {
        [_, _, d, h, w] => [d, h, w],
        [_, _, h, w] => [1, h, w],
        _ => [1; 3],
    }
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
    if sum(what, tensor).and_then(|sum| in_libtorch(what, || sum.f_double_value(&[])))?.is_finite()
    {
        return Ok(());
    }
    count(what, tensor)
}

/// A check for NaN and infinity in a tensor on a device, whose sum is on its way.
#[derive(Debug)]
pub(super) struct Unchecked {
    what: &'static str,
    tensor: Tensor,
    sum: Slot,
}

/// [`finite`], where that needs no wait; else what is left to be checked when the rest comes back.
pub(super) fn finite_later(
    what: &'static str,
    tensor: &Tensor,
    readback: &mut Readback,
) -> Result<Option<Unchecked>> {
    if !is_on_device(tensor) {
        return finite(what, tensor).map(|()| None);
    }
    let sum = readback.ask(&sum(what, tensor)?)?;
    Ok(Some(Unchecked { what, tensor: tensor.detach(), sum }))
}

impl Unchecked {
    pub(super) fn check(&self, fetched: &Fetched) -> Result<()> {
        if fetched.floats(&self.sum).iter().all(|sum| sum.is_finite()) {
            return Ok(());
        }
        count(self.what, &self.tensor)
    }
}

/// The sum: one pass without a temporary, and not finite where a value is not.
fn sum(what: &str, tensor: &Tensor) -> Result<Tensor> {
    in_libtorch(what, || tensor.f_detach()?.f_sum(Kind::Float))
}

/// Refuses NaN and infinity after a look at all values, as a sum of finite ones may have overflowed.
fn count(what: &str, tensor: &Tensor) -> Result<()> {
    let bad = in_libtorch(what, || {
        i64::try_from(tensor.f_detach()?.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?)
    })?;
    if bad == 0 {
        return Ok(());
    }
    Err(Error::input(what, format!("{bad} of {} values are NaN or infinite", tensor.numel())))
}

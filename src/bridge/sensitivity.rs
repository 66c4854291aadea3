//! How far rounding moves a map of Grad-CAM++.

use half::{bf16, f16};
use tch::{Kind, Tensor};

use super::layout::view;
use crate::error::Result;
use crate::ops;
use crate::torch::in_libtorch;

/// How sensitive to rounding each sample's map of Grad-CAM++ is, `(B)`: see
/// [`ops::alpha_weights::sensitivity`]. `None` where no activation is negative: then it is not.
///
/// Of tensors on a GPU those with a negative activation are copied to the CPU.
pub(super) fn alpha_sensitivity(
    activation: &Tensor,
    gradient: &Tensor,
) -> Result<Option<Vec<f32>>> {
    let is_negative =
        in_libtorch("alpha_sensitivity", || activation.f_min()?.f_double_value(&[]))? < 0.0;
    if !is_negative {
        return Ok(None);
    }
    let on_host = |tensor: &Tensor| {
        let kind = if activation.kind() == Kind::Double { Kind::Float } else { activation.kind() };
        in_libtorch("alpha_sensitivity", || {
            tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(kind)?.f_contiguous()
        })
    };
    let (activation, gradient) = (on_host(activation)?, on_host(gradient)?);
    // SAFETY: both are on the CPU, without gaps and of the type that is matched, and both are borrowed while
    // the views live.
    let sensitivity = unsafe {
        match activation.kind() {
            Kind::Half => {
                ops::alpha_weights::sensitivity::<f16>(&view(&activation)?, &view(&gradient)?)
            }
            Kind::BFloat16 => {
                ops::alpha_weights::sensitivity::<bf16>(&view(&activation)?, &view(&gradient)?)
            }
            _ => ops::alpha_weights::sensitivity::<f32>(&view(&activation)?, &view(&gradient)?),
        }
    }?;
    Ok(Some(sensitivity))
}

//! The ops on activations and gradients, one by one.

use std::ffi::{c_int, c_void};

use medcam_ops::dlpack::ffi::DLTensor;
use medcam_ops::dlpack::{Sum, Tensor, TensorMut};

use crate::choices;
use crate::status::medcam_status;
use crate::workspace::medcam_workspace;

/// Grad-CAM's channel weights: `w[b,c] = mean_n G[b,c,n]`.
///
/// `gradient` is `(B, C, [D,] H, W)`, f32, f16 or bf16; `weights` is `(B, C)`, f32, written.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_channel_weights(
    workspace: *mut medcam_workspace,
    gradient: *const DLTensor,
    weights: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: tensors and stream are what the caller vouches for, see the section on safety.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let gradient = Tensor::of("gradient", gradient)?;
            let mut weights = TensorMut::of("weights", weights)?;
            Ok(work.channel_weights(&gradient, &mut weights)?)
        })
    }
}

/// Grad-CAM++'s channel weights: `w[b,c] = sum_n alpha[b,c,n] ReLU(G[b,c,n])` with
/// `alpha = G^2 / (2 G^2 + D + epsilon)`; where G is 0, alpha is 0, and where only the denominator
/// is, alpha is `G^2`.
///
/// `denominator` is a `medcam_denominator` and says what D and epsilon are. `activation` and
/// `gradient` are `(B, C, [D,] H, W)` of one type (f32, f16 or bf16) and order in memory; `weights`
/// is `(B, C)`, f32, written.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_alpha_weights(
    workspace: *mut medcam_workspace,
    denominator: i32,
    activation: *const DLTensor,
    gradient: *const DLTensor,
    weights: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_channel_weights`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let denominator = choices::denominator(denominator)?;
            let activation = Tensor::of("activation", activation)?;
            let gradient = Tensor::of("gradient", gradient)?;
            let mut weights = TensorMut::of("weights", weights)?;
            Ok(work.alpha_weights(&activation, &gradient, denominator, &mut weights)?)
        })
    }
}

/// The weighted sum of the channels: `S[b,n] = sum_c w[b,c] A[b,c,n]`; `ReLU(S)` if `rectify` is
/// not 0, as Grad-CAM has it, and S itself as Captum has it.
///
/// `weights` is `(B, C)`, f32; `activation` is `(B, C, [D,] H, W)`, f32, f16 or bf16; `map` is of
/// its grid, `(B, [D,] H, W)` or `(B, 1, [D,] H, W)`, f32, written. Sums that are not finite are no
/// error here.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_project(
    workspace: *mut medcam_workspace,
    rectify: c_int,
    weights: *const DLTensor,
    activation: *const DLTensor,
    map: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_channel_weights`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let weights = Tensor::of("weights", weights)?;
            let activation = Tensor::of("activation", activation)?;
            let mut map = TensorMut::of("map", map)?;
            let sum = if rectify != 0 { Sum::Rectified(&weights) } else { Sum::Signed(&weights) };
            Ok(work.sum(sum, &activation, &mut map)?)
        })
    }
}

/// The maps of methods without channel weights: `method` is `MEDCAM_HIRES_CAM` or
/// `MEDCAM_LAYER_CAM`.
///
/// `activation` and `gradient` are `(B, C, [D,] H, W)` of one type (f32, f16 or bf16) and order in
/// memory; `map` is of their grid, f32, written. Sums that are not finite are no error here.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_elementwise(
    workspace: *mut medcam_workspace,
    method: i32,
    activation: *const DLTensor,
    gradient: *const DLTensor,
    map: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_channel_weights`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let method = choices::elementwise(method)?;
            let activation = Tensor::of("activation", activation)?;
            let gradient = Tensor::of("gradient", gradient)?;
            let mut map = TensorMut::of("map", map)?;
            Ok(work.elementwise(method, &activation, &gradient, &mut map)?)
        })
    }
}

/// The mean over the channels, `L[b,n] = mean_c T[b,c,n]`: the map of Guided Backpropagation, from
/// the gradient at the input.
///
/// `tensor` is `(B, C, [D,] H, W)`, f32, f16 or bf16; `map` is of its grid, f32, written.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_channel_mean(
    workspace: *mut medcam_workspace,
    tensor: *const DLTensor,
    map: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_channel_weights`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let tensor = Tensor::of("tensor", tensor)?;
            let mut map = TensorMut::of("map", map)?;
            Ok(work.sum(Sum::Mean, &tensor, &mut map)?)
        })
    }
}

/// The backward of a guided ReLU: `output = gradient` where both `gradient` and `input` are above
/// 0, and 0 elsewhere (arXiv 1412.6806, section 3.4).
///
/// `gradient` is that at the ReLU's output, and `output` becomes that at its input. All three are
/// of one shape (1 to 5 axes), one type (f32, f16 or bf16) and one order in memory, and share no
/// memory. The ReLU's output can stand for `input`. A NaN in `gradient` stays where `input` is
/// above 0.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_guided_activation(
    workspace: *mut medcam_workspace,
    input: *const DLTensor,
    gradient: *const DLTensor,
    output: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_channel_weights`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let input = Tensor::of("input", input)?;
            let gradient = Tensor::of("gradient", gradient)?;
            let mut output = TensorMut::of("output", output)?;
            Ok(work.guided_activation(&input, &gradient, &mut output)?)
        })
    }
}

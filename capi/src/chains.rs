//! The chains: from an activation and its gradient to finished maps.

use std::ffi::{c_int, c_void};

use medcam_ops::dlpack::ffi::DLTensor;
use medcam_ops::dlpack::{Tensor, TensorMut};
use medcam_ops::ops::Range;
use medcam_ops::ops::fused::Summary;

use crate::choices::method;
use crate::status::{Failure, medcam_status};
use crate::workspace::{medcam_workspace, room};

/// What is known of a map beside its values.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct medcam_map_info {
    /// The least value of the map on its grid, before normalisation.
    pub minimum: f32,
    /// The greatest.
    pub maximum: f32,
    /// 1 if Grad-CAM's channel weights are rounding noise, and so is the map: they are below 1e-4
    /// of the gradient's magnitude, as in front of an instance norm. Otherwise 0, and with other
    /// methods.
    pub weights_cancel: i32,
}

/// Where the infos of a call go, if any are asked for.
fn infos_room(infos: *mut medcam_map_info) -> Result<Option<*mut medcam_map_info>, Failure> {
    (!infos.is_null()).then(|| room("infos", infos)).transpose()
}

/// Writes one info for each map.
///
/// # Safety
///
/// `infos` points at room for as many as there are maps.
unsafe fn write_infos(infos: Option<*mut medcam_map_info>, summary: Option<Summary>) {
    let (Some(infos), Some(Summary { ranges, weights_cancel })) = (infos, summary) else { return };
    for (i, (Range { minimum, maximum }, cancel)) in
        ranges.into_iter().zip(weights_cancel).enumerate()
    {
        let info = medcam_map_info { minimum, maximum, weights_cancel: i32::from(cancel) };
        // SAFETY: there is one range for each map, and room for as many by the caller's word.
        unsafe { infos.add(i).write(info) };
    }
}

/// Makes the maps of a layer, from the raw gradient to the finished maps: the method's map,
/// resampled linearly to the grid of `map`, and brought to [0, 1] if `normalized` is not 0.
///
/// - `method`: a `medcam_method`;
/// - `activation`: `(B, C, [D,] H, W)`, f32, f16 or bf16;
/// - `gradient` of the score at the layer: the same shape and type and, but for Grad-CAM, order in
///   memory;
/// - `map`: `(B, [D',] H', W')` or `(B, 1, [D',] H', W')`, f32, f16 or u8; written;
/// - `infos`: one for each map, written; or NULL.
///
/// Normalisation is `(v - min) / (max - min)`, sample by sample; a constant map becomes 0. A u8 map
/// holds 255ths and has to be normalised.
///
/// With `infos` the call waits for the maps, also on a GPU. Without, on a GPU it is only enqueued,
/// and values that are not finite are not found: a map with such values is undefined then. On the
/// CPU they are always `MEDCAM_INVALID`.
///
/// # Safety
///
/// As for all calls. `infos` is NULL or points at room for B infos.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_cam(
    workspace: *mut medcam_workspace,
    method: i32,
    normalized: c_int,
    activation: *const DLTensor,
    gradient: *const DLTensor,
    map: *mut DLTensor,
    infos: *mut medcam_map_info,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: tensors, infos and stream are what the caller vouches for, see the section on safety.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let method = self::method(method)?;
            let infos = infos_room(infos)?;
            let activation = Tensor::of("activation", activation)?;
            let gradient = Tensor::of("gradient", gradient)?;
            let mut map = TensorMut::of("map", map)?;
            let told = infos.is_some();
            let summary =
                work.cam(method, normalized != 0, &activation, &gradient, &mut map, told)?;
            write_infos(infos, summary);
            Ok(())
        })
    }
}

/// Guided Grad-CAM (arXiv 1610.02391, section 3.2): the maps of `medcam_cam`, before normalisation,
/// times guided maps `guided`, `(B, [D',] H', W')` f32 on the grid of `map`; then normalised if
/// asked for.
///
/// Everything else is as in `medcam_cam`; the infos are of the product.
///
/// # Safety
///
/// As for all calls. `infos` is NULL or points at room for B infos.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_guided_cam(
    workspace: *mut medcam_workspace,
    method: i32,
    normalized: c_int,
    activation: *const DLTensor,
    gradient: *const DLTensor,
    guided: *const DLTensor,
    map: *mut DLTensor,
    infos: *mut medcam_map_info,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_cam`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let method = self::method(method)?;
            let infos = infos_room(infos)?;
            let activation = Tensor::of("activation", activation)?;
            let gradient = Tensor::of("gradient", gradient)?;
            let guided = Tensor::of("guided", guided)?;
            let mut map = TensorMut::of("map", map)?;
            let (normalized, told) = (normalized != 0, infos.is_some());
            let summary = work.guided_cam(
                method,
                normalized,
                &activation,
                &gradient,
                &guided,
                &mut map,
                told,
            )?;
            write_infos(infos, summary);
            Ok(())
        })
    }
}

//! The ops on maps, one by one.

use std::ffi::{c_int, c_void};

use medcam_ops::dlpack::ffi::DLTensor;
use medcam_ops::dlpack::{Tensor, TensorMut};

use crate::choices;
use crate::status::{Failure, medcam_status};
use crate::workspace::{medcam_workspace, room};

/// Maps on another grid, that of `out`; and each brought to [0, 1] if `normalized` is not 0.
///
/// Along each axis voxel d of the new grid lies at `(d + 1/2) from / to - 1/2` of the old one, with
/// half-pixel centres. `interpolation` is a `medcam_interpolation`. `map` is `(B, [D,] H, W)`, f32;
/// `out` is `(B, [D',] H', W')`, f32, f16 or u8, written; a channel axis of 1 may follow B in each.
/// A u8 map holds 255ths and has to be normalised.
///
/// On the CPU a map to be normalised whose values are not finite is `MEDCAM_INVALID`; on a GPU the
/// values are not checked.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_resample(
    workspace: *mut medcam_workspace,
    interpolation: i32,
    normalized: c_int,
    map: *const DLTensor,
    out: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: tensors and stream are what the caller vouches for, see the section on safety.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let interpolation = choices::interpolation(interpolation)?;
            let map = Tensor::of("map", map)?;
            let mut out = TensorMut::of("out", out)?;
            Ok(work.resample(interpolation, normalized != 0, &map, &mut out)?)
        })
    }
}

/// Brings maps `(B, [D,] H, W)`, f32, to [0, 1], in place: `(v - min) / (max - min)`, sample by
/// sample. A constant map becomes 0.
///
/// On the CPU a map whose values are not finite is `MEDCAM_INVALID`, and as before; on a GPU the
/// values are not checked.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_normalize(
    workspace: *mut medcam_workspace,
    map: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_resample`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let mut map = TensorMut::of("map", map)?;
            Ok(work.normalize(&mut map)?)
        })
    }
}

/// Guided Grad-CAM from its two maps: `P[b,n] = resample(map)[b,n] guided[b,n]`, linear as in
/// `medcam_resample`; and each product brought to [0, 1] if `normalized` is not 0.
///
/// `map` is `(B, [D,] H, W)` and `guided` `(B, [D',] H', W')`, both f32; `out` is of the grid of
/// `guided`, f32, f16 or u8, written. A u8 map holds 255ths and has to be normalised.
///
/// On the CPU a product that is not finite is `MEDCAM_INVALID`; on a GPU the values are not
/// checked.
///
/// # Safety
///
/// As for all calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_guided_product(
    workspace: *mut medcam_workspace,
    normalized: c_int,
    map: *const DLTensor,
    guided: *const DLTensor,
    out: *mut DLTensor,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_resample`.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let map = Tensor::of("map", map)?;
            let guided = Tensor::of("guided", guided)?;
            let mut out = TensorMut::of("out", out)?;
            Ok(work.guided_product(normalized != 0, &map, &guided, &mut out)?)
        })
    }
}

/// How much of a map is above a threshold, and how much of that is in the mask.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct medcam_evaluation {
    /// The sum of the map's values.
    pub sum: f64,
    /// The sum of its values in the mask.
    pub sum_in_mask: f64,
    /// The sum of its values at or above the threshold.
    pub sum_above: f64,
    /// The sum of those of them in the mask.
    pub sum_above_in_mask: f64,
    /// How many voxels the map has.
    pub voxels: u64,
    /// How many are in the mask.
    pub in_mask: u64,
    /// How many are at or above the threshold.
    pub above: u64,
    /// How many of these are in the mask.
    pub above_in_mask: u64,
    /// The threshold: the one that was given, or Otsu's.
    pub threshold: f32,
}

/// What metrics of a map against a mask are made of: counts and sums above a threshold.
///
/// `map` is `(B, [D,] H, W)`, f32 in [0, 1]; `mask` is of the same shape, u8 (or bool), 0 outside
/// and anything else inside; `evaluations` has room for B. `threshold` points at a number in [0,
/// 1], or is NULL for Otsu's threshold of each map (of 256 bins of [0, 1], as scikit-image's
/// `threshold_otsu` of a normalised map).
///
/// Intersection over union, for one, is `above_in_mask / (above + in_mask - above_in_mask)`.
///
/// Waits for the result, also on a GPU. A value that is not in [0, 1] is `MEDCAM_INVALID`.
///
/// # Safety
///
/// As for all calls. `threshold` is NULL or points at a number, `evaluations` at room for B.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_evaluate(
    workspace: *mut medcam_workspace,
    map: *const DLTensor,
    mask: *const DLTensor,
    threshold: *const f32,
    evaluations: *mut medcam_evaluation,
    stream: *mut c_void,
) -> medcam_status {
    // SAFETY: as in `medcam_resample`; thresholds and evaluations are the caller's word too.
    unsafe {
        medcam_workspace::run(workspace, stream, |work| {
            let evaluations = room("evaluations", evaluations)?;
            let threshold = match threshold {
                pointer if pointer.is_null() => None,
                pointer if pointer.is_aligned() => Some(pointer.read()),
                _ => return Err(Failure::invalid("threshold: not aligned to 4 bytes")),
            };
            let map = Tensor::of("map", map)?;
            let mask = Tensor::of("mask", mask)?;
            let sums = work.evaluation_sums(&map, &mask, threshold)?;
            for (i, sums) in sums.iter().enumerate() {
                let threshold = threshold.unwrap_or_else(|| sums.otsu());
                let (all, above) = (sums.above(0.0)?, sums.above(threshold)?);
                evaluations.add(i).write(medcam_evaluation {
                    sum: all.sum,
                    sum_in_mask: all.sum_in_mask,
                    sum_above: above.sum,
                    sum_above_in_mask: above.sum_in_mask,
                    voxels: all.count,
                    in_mask: all.in_mask,
                    above: above.count,
                    above_in_mask: above.in_mask,
                    threshold,
                });
            }
            Ok(())
        })
    }
}

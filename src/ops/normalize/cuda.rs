//! Normalisation on a GPU, by the kernel `rescale` of `kernels/resample.cu`.

use super::check_parts;
use crate::device::{Slice, SliceMut, Stream};
use crate::error::Result;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::resample::cuda::rescale;

/// [`normalize()`](super::normalize()) in device memory, in place, with the range of each map found
/// before. Enqueued, not waited for.
///
/// `map` is `(B, N)` with one of `extremes` for each sample. Where nothing of a sample is finite it
/// becomes 0, and where it is not finite in places, these become 0: look at `not_finite`.
///
/// # Errors
///
/// If `map` cannot be parted into as many maps as there are `extremes`, these are more than 65535,
/// memory is not on the stream's device, or the launch fails.
pub fn normalize(
    stream: &Stream,
    map: SliceMut<f32>,
    extremes: Slice<DeviceExtremes>,
) -> Result<()> {
    check_parts(map.len(), extremes.len())?;
    rescale("normalize", stream, map.as_slice(), extremes.len(), Some(extremes), &map)
}

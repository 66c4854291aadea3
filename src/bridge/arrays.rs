//! Copies between libtorch's tensors and arrays.

use ndarray::ArrayD;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::torch::{Device, in_libtorch, pinned};

/// A copy of a tensor as an f32 array of the same shape.
///
/// # Errors
///
/// If libtorch cannot copy or convert it.
pub fn to_array(tensor: &Tensor) -> Result<ArrayD<f32>> {
    let there = in_libtorch("to_array", || tensor.f_detach()?.f_contiguous())?;
    let here = download(&there)?;
    let values = in_libtorch("to_array", || {
        let tensor = here.f_to_kind(Kind::Float)?;
        let mut values = vec![0.0_f32; tensor.numel()];
        tensor.f_contiguous()?.f_copy_data(&mut values, tensor.numel())?;
        Ok(values)
    })?;
    ArrayD::from_shape_vec(extents(tensor), values)
        .map_err(|error| Error::input("to_array", &error).because(error))
}

/// A copy of an array as a tensor of the same shape on a device.
///
/// # Errors
///
/// If libtorch cannot allocate or convert it.
///
/// # Example
///
/// ```
/// use medcam::Device;
///
/// let array = ndarray::array![[1.0_f32, 2.0], [3.0, 4.0]].into_dyn();
/// let tensor = medcam::to_tensor(&array, Device::Cpu, tch::Kind::Half)?;
/// assert_eq!(medcam::to_array(&tensor)?, array);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn to_tensor(array: &ArrayD<f32>, device: Device, kind: Kind) -> Result<Tensor> {
    let shape: Vec<i64> =
        array.shape().iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect();
    let array = array.as_standard_layout();
    let values = array.as_slice().unwrap_or(&[]);
    let tensor = in_libtorch("to_tensor", || Tensor::f_from_slice(values)?.f_reshape(&shape))?;
    let tensor = upload(&tensor, device.to_tch())?;
    in_libtorch("to_tensor", || tensor.f_to_kind(kind))
}

/// A tensor on the host as one on a device: to CUDA through pinned memory, which nobody waits for. (libtorch
/// keeps that memory until the copy is made.)
pub(crate) fn upload(tensor: &Tensor, device: tch::Device) -> Result<Tensor> {
    if !matches!(device, tch::Device::Cuda(_)) || tensor.device() != tch::Device::Cpu {
        return in_libtorch("upload", || tensor.f_to_device(device));
    }
    let mut staged = pinned(tensor)?;
    in_libtorch("upload", || {
        staged.f_copy_(tensor)?;
        staged.f_to_device_(device, tensor.kind(), true, false)
    })
}

/// A tensor on a device as one on the host: from CUDA through pinned memory, and waited for.
pub(super) fn download(tensor: &Tensor) -> Result<Tensor> {
    if !matches!(tensor.device(), tch::Device::Cuda(_)) {
        return in_libtorch("download", || tensor.f_to_device(tch::Device::Cpu));
    }
    let mut staged = pinned(tensor)?;
    in_libtorch("download", || {
        staged.f_copy_(tensor)?;
        Ok(staged)
    })
}

/// The shape of a tensor as arrays count it.
pub(crate) fn extents(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect()
}

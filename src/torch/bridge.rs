//! From libtorch's memory to the ops, without a copy where the layout allows.

use half::{bf16, f16};
use ndarray::ArrayD;
use tch::{Kind, Tensor};

use super::device::Device;
use super::torch;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::{self, Maps, View};
use crate::shape::{Layout, Shape};

/// Grad-CAM of one layer: see [`ops::grad_cam`].
///
/// `activation` and `gradient` are `(B, C, [D,] H, W)` of any floating type, contiguous or
/// channels-last (anything else is copied once).
pub(crate) fn grad_cam(
    activation: &Tensor,
    gradient: &Tensor,
    size: Option<[usize; 3]>,
) -> Result<Maps> {
    let activation = on_host(activation)?;
    let gradient = on_host(&torch("grad_cam", || gradient.f_to_kind(activation.kind()))?)?;
    match activation.kind() {
        Kind::Half => typed::<f16>(&activation, &gradient, size),
        Kind::BFloat16 => typed::<bf16>(&activation, &gradient, size),
        _ => typed::<f32>(&activation, &gradient, size),
    }
}

/// A copy of a tensor as an f32 array of the same shape.
///
/// # Errors
///
/// If libtorch cannot copy or convert it.
pub fn to_array(tensor: &Tensor) -> Result<ArrayD<f32>> {
    let values = torch("to_array", || {
        let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?;
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
    torch("to_tensor", || {
        Tensor::f_from_slice(values)?
            .f_reshape(&shape)?
            .f_to_device(device.to_tch())?
            .f_to_kind(kind)
    })
}

fn extents(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect()
}

fn typed<T: Element>(
    activation: &Tensor,
    gradient: &Tensor,
    size: Option<[usize; 3]>,
) -> Result<Maps> {
    // SAFETY: `on_host` made both CPU tensors of type T (the caller matched the kind) without gaps,
    // and both are borrowed for as long as the views live.
    let (activation, gradient) = unsafe { (view::<T>(activation)?, view::<T>(gradient)?) };
    ops::grad_cam(&activation, &gradient, size, true)
}

/// The tensor on the CPU, as f32, f16 or bf16, with its elements laid out without gaps.
fn on_host(tensor: &Tensor) -> Result<Tensor> {
    torch("grad_cam", || {
        let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?;
        let tensor = match tensor.kind() {
            Kind::Float | Kind::Half | Kind::BFloat16 => tensor,
            _ => tensor.f_to_kind(Kind::Float)?,
        };
        if layout(&tensor).is_some() { Ok(tensor) } else { tensor.f_contiguous() }
    })
}

/// How a tensor lies in memory, if it is gapless in one of the two ways that the ops know.
fn layout(tensor: &Tensor) -> Option<Layout> {
    let (shape, strides) = (tensor.size(), tensor.stride());
    let matches = |order: &mut dyn Iterator<Item = usize>| {
        let mut expected = 1;
        for axis in order {
            // The stride of an axis of extent 1 is never used, and libtorch sets it freely.
            if shape[axis] != 1 && strides[axis] != expected {
                return false;
            }
            expected *= shape[axis];
        }
        true
    };
    let rank = shape.len();
    if matches(&mut (0..rank).rev()) {
        Some(Layout::Contiguous)
    } else if matches(&mut std::iter::once(1).chain((2..rank).rev()).chain([0])) {
        Some(Layout::ChannelsLast)
    } else {
        None
    }
}

/// The memory of a tensor as a view.
///
/// # Safety
///
/// The tensor is on the CPU, its elements are of type `T`, and nothing writes to it while the view
/// lives.
unsafe fn view<T: Element>(tensor: &Tensor) -> Result<View<'_, T>> {
    let extents = extents(tensor);
    let shape = match extents[..] {
        [b, c, h, w] => Shape::new(b, c, [1, h, w])?,
        [b, c, d, h, w] => Shape::new(b, c, [d, h, w])?,
        _ => return Err(Error::input("grad_cam", format!("activation of shape {extents:?}"))),
    };
    let layout = layout(tensor)
        .ok_or_else(|| Error::input("grad_cam", "the elements of a tensor have gaps"))?;
    // SAFETY: a gapless tensor on the CPU has exactly `elements` values of type T behind its data
    // pointer, which libtorch aligns; `Shape::new` keeps their number above 0 and below isize::MAX
    // bytes, since libtorch allocated them; the tensor is borrowed while the slice lives.
    let data = unsafe {
        std::slice::from_raw_parts(tensor.data_ptr().cast::<T>().cast_const(), shape.elements())
    };
    View::new(data, shape, layout)
}

//! Describes the memory of a tensor in the terms of the ops.

use tch::{Kind, Tensor};

use super::arrays::extents;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::View;
use crate::shape::{Layout, Shape};
use crate::torch::in_libtorch;

/// The tensor as f32, f16 or bf16, copied if its strides leave gaps.
pub(super) fn gapless(tensor: &Tensor) -> Result<Tensor> {
    in_libtorch("maps", || {
        let tensor = tensor.f_detach()?;
        let tensor = match tensor.kind() {
            Kind::Float | Kind::Half | Kind::BFloat16 => tensor,
            _ => tensor.f_to_kind(Kind::Float)?,
        };
        if layout(&tensor).is_some() { Ok(tensor) } else { tensor.f_contiguous() }
    })
}

/// The layout of a tensor that is contiguous or channels-last without gaps; else `None`.
pub(super) fn layout(tensor: &Tensor) -> Option<Layout> {
    Layout::of(&extents(tensor), &tensor.stride())
}

/// The shape of a gapless tensor `(B, C, [D,] H, W)` for the ops, and its memory layout.
pub(super) fn shape_and_layout(tensor: &Tensor) -> Result<(Shape, Layout)> {
    let extents = extents(tensor);
    let shape = match extents[..] {
        [b, c, h, w] => Shape::new(b, c, [1, h, w])?,
        [b, c, d, h, w] => Shape::new(b, c, [d, h, w])?,
        _ => return Err(Error::input("maps", format!("activation of shape {extents:?}"))),
    };
    let layout =
        layout(tensor).ok_or_else(|| Error::input("maps", "the elements of a tensor have gaps"))?;
    Ok((shape, layout))
}

/// The memory of a tensor as a view.
///
/// # Safety
///
/// The tensor is on the CPU, its elements are of type `T`, and nothing writes to it while the view
/// lives.
pub(super) unsafe fn view<T: Element>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (shape, layout) = shape_and_layout(tensor)?;
    // SAFETY: a gapless tensor on the CPU has exactly `elements` values of type T behind its data
    // pointer, which libtorch aligns; `Shape::new` keeps their number above 0 and below isize::MAX
    // bytes, since libtorch allocated them; the tensor is borrowed while the slice lives.
    let data = unsafe {
        std::slice::from_raw_parts(tensor.data_ptr().cast::<T>().cast_const(), shape.elements())
    };
    View::new(data, shape, layout)
}

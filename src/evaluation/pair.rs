//! Brings a map and a mask read from disk to the same axes.

use ndarray::{Array3, ArrayD, Axis, Ix3};

use crate::error::{Error, Result};
use crate::volumes::{Input, to_axes_of};

/// A map and its mask in the form that [`Evaluator::add`](super::Evaluator::add) takes: `(D, H, W)`
/// each, with the same axes, on two grids that cover the same field of view.
///
/// | map | mask | |
/// |---|---|---|
/// | NIfTI | NIfTI | matched by affine: the map is reoriented to the mask's axes; the fields of view must agree |
/// | NIfTI or array | the other kind | of the same shape and voxel order |
/// | array or picture | array or picture | assumed to cover the same field of view |
///
/// Arrays are `(H, W)`, `(D, H, W)`, or one sample as `medcam map` writes it. Pictures are gray; a
/// mask may also have a palette. A mask of only black and white is 0/1; in any other picture, the
/// labels are the integers in the file: gray values of 1 to 16 bits, or palette indices.
///
/// # Errors
///
/// If an array or a picture has another form, or map and mask differ in shape or field of view.
pub fn pair(map: &Input, mask: &Input) -> Result<(Array3<f32>, Array3<f32>)> {
    let refuse =
        |what: &str, message: String| Error::input("evaluate", format!("{what}: {message}"));
    match (map, mask) {
        (Input::Volume(volume), Input::Volume(other)) => {
            let of_mask = to_axes_of(other, other).map_err(|error| refuse("mask", error))?;
            Ok((to_axes_of(volume, other).map_err(|error| refuse("map", error))?, of_mask))
        }
        (Input::Image(_), Input::Volume(_)) | (Input::Volume(_), Input::Image(_)) => {
            Err(refuse("mask", "a picture and a NIfTI volume do not belong together".to_owned()))
        }
        _ => {
            let voxels =
                |what, input, mask| voxels(input, mask).map_err(|message| refuse(what, message));
            let (voxels_of_map, voxels_of_mask) =
                (voxels("map", map, false)?, voxels("mask", mask, true)?);
            let placed = matches!(map, Input::Volume(_)) || matches!(mask, Input::Volume(_));
            let (shape, other) = (voxels_of_mask.dim(), voxels_of_map.dim());
            if placed && shape != other {
                return Err(refuse(
                    "mask",
                    format!(
                        "shape {shape:?}, the map has {other:?}; an array does not say where it \
                         lies, so beside a NIfTI it has the same shape"
                    ),
                ));
            }
            Ok((voxels_of_map, voxels_of_mask))
        }
    }
}

fn voxels(input: &Input, mask: bool) -> Result<Array3<f32>, String> {
    match input {
        Input::Volume(volume) => to_axes_of(volume, volume),
        Input::Array(array) => of_array(array),
        Input::Image(image) if mask => image.labels().ok_or_else(|| {
            "a picture in colour; expected a gray one, or a palette whose indices are the labels"
                .to_owned()
        }),
        Input::Image(image) => {
            let channels = image.data.dim().0;
            if channels != 1 {
                return Err("a picture in colour; expected a gray one".to_owned());
            }
            Ok(image.data.clone())
        }
    }
}

fn of_array(array: &ArrayD<f32>) -> Result<Array3<f32>, String> {
    let shape = array.shape().to_vec();
    let mut view = array.view();
    while view.ndim() > 3 && view.shape()[0] == 1 {
        view = view.index_axis_move(Axis(0), 0);
    }
    if view.ndim() == 2 {
        view = view.insert_axis(Axis(0));
    }
    let view = view.into_dimensionality::<Ix3>().map_err(|_| {
        format!("shape {shape:?}; expected (H, W) or (D, H, W), and 1 in front of it: one sample")
    })?;
    Ok(view.to_owned())
}

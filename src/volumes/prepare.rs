//! From an image on disk to a model's input.

use ndarray::{Array4, ArrayD, ArrayView, ArrayView4, Axis, CowArray, Dimension, Zip};
use rayon::prelude::*;

use super::affine::{Affine, Orientation};
use super::card::{AxisOrder, Card, Color, Nan, Sampling, Step, Values};
use super::grid::{AS_STORED, Axes, Grid, to_model};
use super::header::Header;
use super::intensity;
use super::write::check_memory;
use super::{Image, Input};
use crate::error::{Error, Result};
use crate::ops::{Resize, resample};

/// A model's input, and the grid of the image that it came from.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `(1, C, D, H, W)` or `(1, C, H, W)`; a ready-made array keeps its batch `B`. Contiguous.
    pub tensor: ArrayD<f32>,
    /// The grid to which maps of this input are written back.
    pub grid: Grid,
}

impl Card {
    /// Refuses a card that describes no input of so many spatial axes and channels.
    ///
    /// # Errors
    ///
    /// If `spatial_dims`, `size` or `spacing_mm` has another number of axes, or an affine step
    /// numbers for another number of channels.
    pub fn check_fits(&self, axes: usize, channels: usize) -> Result<()> {
        let lengths = match &self.input.sampling {
            Some(Sampling::Size(size)) => ("size", size.len()),
            Some(Sampling::SpacingMm(spacing_mm)) => ("spacing_mm", spacing_mm.len()),
            None => ("size", axes),
        };
        let dims = ("spatial_dims", self.input.spatial_dims.unwrap_or(axes));
        if let Some((key, n)) = [dims, lengths].into_iter().find(|&(_, n)| n != axes) {
            let message = format!("`{key}` is for {n} spatial axes, the input has {axes}");
            return Err(Error::input("model card", message));
        }
        for step in &self.intensity {
            if let Step::Affine { multiply, add } = step {
                intensity::of_channel(multiply, 0, channels, "multiply")?;
                intensity::of_channel(add, 0, channels, "add")?;
            }
        }
        Ok(())
    }

    /// Prepares an image for the model, in this order: colour, values that are not finite,
    /// orientation and order of axes, size, intensity steps.
    ///
    /// A volume gives `(1, C, D, H, W)`. With `spatial_rank` 2, a volume with one axis of extent 1
    /// loses that axis. Arrays (`.npy`) are ready-made model input: their values are only checked
    /// to be finite.
    ///
    /// # Errors
    ///
    /// If the image has values that are not finite (unless the card says `nan = "zero"`), has
    /// another number of axes than `spatial_rank` (2 or 3), or the card asks for what this kind
    /// of image does not have, such as the orientation of a PNG.
    pub fn prepare(&self, input: &Input, spatial_rank: Option<usize>) -> Result<Prepared> {
        let spatial_rank = self.input.spatial_dims.or(spatial_rank);
        match input {
            Input::Volume(volume) => {
                let axes = self.axes_of(volume.shape(), &volume.affine, spatial_rank)?;
                let data = self.finite(volume.data.view())?;
                let flat = spatial_rank == Some(2);
                let spacing_mm = axes.map(|(axis, _)| volume.spacing_mm[axis]);
                let tensor = self.finish(to_model(data.view(), &axes), Some(spacing_mm), flat)?;
                Ok(Prepared { tensor, grid: Grid::of(input, axes) })
            }
            Input::Image(image) => {
                if spatial_rank == Some(3) {
                    return Err(refuse("the model is 3D, the input is a 2D image"));
                }
                let tensor = self.prepare_image(image)?;
                Ok(Prepared { tensor, grid: Grid::of(input, AS_STORED) })
            }
            Input::Array(array) if array.is_empty() => {
                Err(refuse(format!("the array is empty, with shape {:?}", array.shape())))
            }
            Input::Array(array) => {
                let rank = spatial_rank.unwrap_or(array.ndim().saturating_sub(2));
                if array.ndim() != rank + 2 || !(2..=3).contains(&rank) {
                    let expected = match spatial_rank {
                        Some(2) => "(B, C, H, W)",
                        Some(_) => "(B, C, D, H, W)",
                        None => "(B, C, H, W) or (B, C, D, H, W)",
                    };
                    let shape = array.shape();
                    return Err(refuse(format!("the array has shape {shape:?}, not {expected}")));
                }
                let tensor = self.finite(array.view())?.as_standard_layout().into_owned();
                Ok(Prepared { tensor, grid: Grid::of(input, AS_STORED) })
            }
        }
    }

    /// The shape of what [`prepare`](Self::prepare) makes of an image with this header; of a picture, with the most
    /// channels that it may have.
    ///
    /// # Errors
    ///
    /// Where `prepare` refuses the size of the image.
    pub fn input_shape(&self, header: &Header, spatial_rank: Option<usize>) -> Result<Vec<usize>> {
        let spatial_rank = self.input.spatial_dims.or(spatial_rank);
        let (channels, from, spacing_mm, flat) = match header {
            Header::Array(shape) => return Ok(shape.clone()),
            Header::Image { channels, height, width } => {
                let channels = if self.input.color == Some(Color::Gray) { 1 } else { *channels };
                (channels, [1, *height, *width], None, true)
            }
            Header::Volume { channels, shape, affine, spacing_mm } => {
                let axes = self.axes_of(*shape, affine, spatial_rank)?.map(|(axis, _)| axis);
                let spacing_mm = axes.map(|axis| spacing_mm[axis]);
                let flat = spatial_rank == Some(2);
                (*channels, axes.map(|axis| shape[axis]), Some(spacing_mm), flat)
            }
        };
        let to = self.target_size(from, spacing_mm, flat)?;
        let spatial = to.into_iter().skip(usize::from(flat));
        Ok([1, channels].into_iter().chain(spatial).collect())
    }

    fn prepare_image(&self, image: &Image) -> Result<ArrayD<f32>> {
        if self.input.orientation.is_some() {
            return Err(refuse(
                "the card asks for an orientation, which a picture does not have; give a NIfTI \
                 volume, or remove `orientation` from the card",
            ));
        }
        let stored = (self.input.values == Values::Stored).then(|| image.as_stored());
        let image = stored.as_ref().unwrap_or(image);
        let data = match self.input.color {
            Some(Color::Rgb) => image.rgb(),
            Some(Color::Gray) => image.gray(),
            None => image.data.clone(),
        };
        let data = data.insert_axis(Axis(1));
        let data = self.finite(data.view())?;
        self.finish(data.view(), None, true)
    }

    /// Resizes `(C, D, H, W)`, applies the intensity steps and adds the batch axis; `flat` drops
    /// `D`.
    fn finish(
        &self,
        data: ArrayView4<'_, f32>,
        spacing_mm: Option<[f64; 3]>,
        flat: bool,
    ) -> Result<ArrayD<f32>> {
        if data.is_empty() {
            return Err(refuse(format!("the image is empty, with shape {:?}", data.shape())));
        }
        let (_, d, h, w) = data.dim();
        let to = self.target_size([d, h, w], spacing_mm, flat)?;
        let mut data = self.resize(data, to)?;
        for step in &self.intensity {
            intensity::apply(step, &mut data)?;
        }
        let tensor = data.into_dyn().insert_axis(Axis(0));
        Ok(if flat { tensor.index_axis_move(Axis(2), 0) } else { tensor })
    }

    /// The extents `D, H, W` that the card asks for.
    fn target_size(
        &self,
        from: [usize; 3],
        spacing_mm: Option<[f64; 3]>,
        flat: bool,
    ) -> Result<[usize; 3]> {
        let Some(sampling) = &self.input.sampling else { return Ok(from) };
        let first = usize::from(flat);
        let rank = 3 - first;
        let mut to = from;
        let check = |key: &str, given: usize| match given == rank {
            true => Ok(()),
            false => {
                Err(refuse(format!("the card's `{key}` has {given} numbers, the input is {rank}D")))
            }
        };
        match sampling {
            Sampling::Size(size) => {
                check("size", size.len())?;
                to[first..].copy_from_slice(size);
            }
            Sampling::SpacingMm(wanted) => {
                check("spacing_mm", wanted.len())?;
                let Some(spacing_mm) = spacing_mm else {
                    return Err(refuse(
                        "the card asks for a spacing, which a picture does not have; use `size`",
                    ));
                };
                for (axis, wanted) in (first..3).zip(wanted) {
                    let extent = (from[axis] as f64 * spacing_mm[axis] / wanted).round().max(1.0);
                    if extent > 32767.0 {
                        return Err(refuse(format!(
                            "a spacing of {wanted} mm needs {extent} voxels along one axis; the \
                             image has {} of {} mm",
                            from[axis], spacing_mm[axis]
                        )));
                    }
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "within 1..=32767"
                    )]
                    {
                        to[axis] = extent as usize;
                    }
                }
            }
        }
        Ok(to)
    }

    /// `(C, D, H, W)` on a grid of `to` voxels, contiguous.
    fn resize(&self, data: ArrayView4<'_, f32>, to: [usize; 3]) -> Result<Array4<f32>> {
        let (channels, d, h, w) = data.dim();
        let from = [d, h, w];
        check_memory(data.len()).map_err(refuse)?;
        if to == from {
            return Ok(contiguous(data));
        }
        // Resamples with the axes in memory order and permutes the result: strided reads of a large
        // volume cost far more than permuting the smaller result.
        let mut order = [0, 1, 2];
        order.sort_by_key(|&axis| std::cmp::Reverse(data.strides()[axis + 1].unsigned_abs()));
        let [x, y, z] = order;
        let data = contiguous(data.permuted_axes([0, x + 1, y + 1, z + 1]));
        let values = data.as_slice().unwrap_or_default();
        let [near, far] = [from, to].map(|size| order.map(|axis| size[axis]));
        let resize = Resize { batch: channels, from: near, to: far };
        let values = resample(values, resize, self.input.interpolation)?;
        let resized = Array4::from_shape_vec((channels, far[0], far[1], far[2]), values)
            .map_err(|error| refuse(error.to_string()))?;
        let mut back = [0; 4];
        for (position, axis) in order.into_iter().enumerate() {
            back[axis + 1] = position + 1;
        }
        Ok(contiguous(resized.view().permuted_axes(back)))
    }

    fn axes_of(
        &self,
        shape: [usize; 3],
        affine: &Affine,
        spatial_rank: Option<usize>,
    ) -> Result<Axes> {
        let mut axes = match &self.input.orientation {
            Some(orientation) => orientation.axes_from(&Orientation::of(affine)),
            None => AS_STORED,
        };
        if self.input.axes == AxisOrder::Zyx {
            axes.reverse();
        }
        if spatial_rank == Some(2) {
            let single = |&(axis, _): &(usize, bool)| shape[axis] == 1;
            if axes.iter().filter(|a| single(a)).count() != 1 {
                return Err(refuse(format!(
                    "the model is 2D, the volume has shape {shape:?}; it needs exactly one axis \
                     of extent 1"
                )));
            }
            // The stable sort moves the axis of extent 1 to the front, where it becomes the map's
            // `D`.
            axes.sort_by_key(|a| !single(a));
        }
        Ok(axes)
    }

    /// Checks that `values` are finite, or replaces the others by 0 if the card says so.
    fn finite<'a, D: Dimension>(
        &self,
        values: ArrayView<'a, f32, D>,
    ) -> Result<CowArray<'a, f32, D>> {
        let memory = values.as_slice_memory_order();
        if memory.is_some_and(|memory| memory.par_iter().all(|v| v.is_finite())) {
            return Ok(values.into());
        }
        let wrong = || values.iter().enumerate().filter(|(_, v)| !v.is_finite());
        match wrong().next() {
            None => Ok(values.into()),
            Some(_) if self.input.nan == Nan::Zero => {
                Ok(values.mapv(|v| if v.is_finite() { v } else { 0.0 }).into())
            }
            Some((mut rest, value)) => {
                let mut index = values.shape().to_vec();
                for extent in index.iter_mut().rev() {
                    (*extent, rest) = (rest % *extent, rest / *extent);
                }
                Err(refuse(format!(
                    "{} of {} values are not finite, the first is {value} at index {index:?}; \
                     repair the image, or set `nan = \"zero\"` in the card's [input]",
                    wrong().count(),
                    values.len()
                )))
            }
        }
    }
}

/// A copy in row-major order.
fn contiguous(view: ArrayView4<'_, f32>) -> Array4<f32> {
    let mut out = Array4::zeros(view.raw_dim());
    Zip::from(out.axis_iter_mut(Axis(1)))
        .and(view.axis_iter(Axis(1)))
        .par_for_each(|mut out, view| out.assign(&view));
    out
}

fn refuse(message: impl Into<String>) -> Error {
    Error::input("prepare", message.into())
}

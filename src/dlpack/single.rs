//! The ops one by one.

use super::chains::grid_for;
use super::{Kind, Tensor, TensorMut, Work, for_element, for_map_element};
use crate::error::Result;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::{
    self, Denominator, Elementwise, EvaluationSums, Interpolation, Range, Resize, alpha_weights,
    channel_weights, elementwise, evaluation_sums, guided_activation, guided_product, normalize,
    project, resample,
};
use crate::shape::Shape;

/// Sums over the channels of each voxel.
#[derive(Debug, Clone, Copy)]
pub enum Sum<'a, 't> {
    /// [`project()`](ops::project()) with these weights, `(B, C)` f32.
    Rectified(&'a Tensor<'t>),
    /// [`weighted_sum()`](ops::weighted_sum()) with these weights.
    Signed(&'a Tensor<'t>),
    /// [`channel_mean()`](ops::channel_mean()).
    Mean,
}

impl Work<'_> {
    /// [`channel_weights()`](ops::channel_weights()) of a gradient `(B, C, [D,] H, W)` into `weights`,
    /// `(B, C)` f32.
    ///
    /// # Errors
    ///
    /// If tensors do not fit each other, are on other devices or share memory.
    pub fn channel_weights(&mut self, gradient: &Tensor, weights: &mut TensorMut) -> Result<()> {
        self.check(&[gradient], &[weights])?;
        check_weights(gradient, weights.tensor())?;
        for_element!(gradient, T => match &mut self.stream {
            None => {
                gradient.check_memory()?;
                let of_channels = ops::channel_weights(&gradient.view::<T>()?)?;
                weights.values()?.copy_from_slice(&of_channels);
                Ok(())
            }
            Some(stream) => {
                stream.release_scratch();
                let magnitudes = stream.scratch(weights.tensor().count())?;
                let (gradient, weights) = (gradient.device_view::<T>()?, weights.slice()?);
                channel_weights::cuda::channel_weights(stream, &gradient, weights, magnitudes)
            }
        })
    }

    /// [`alpha_weights()`](ops::alpha_weights()) of an activation and a gradient `(B, C, [D,] H, W)`
    /// into `weights`, `(B, C)` f32.
    ///
    /// # Errors
    ///
    /// As [`alpha_weights()`](ops::alpha_weights()), and if tensors do not fit each other, are on other
    /// devices or share memory.
    pub fn alpha_weights(
        &mut self,
        activation: &Tensor,
        gradient: &Tensor,
        denominator: Denominator,
        weights: &mut TensorMut,
    ) -> Result<()> {
        self.check(&[activation, gradient], &[weights])?;
        gradient.check_kind(activation.kind())?;
        check_weights(activation, weights.tensor())?;
        for_element!(activation, T => match &mut self.stream {
            None => {
                activation.check_memory()?;
                let (activation, gradient) = (activation.view::<T>()?, gradient.view::<T>()?);
                let of_channels = ops::alpha_weights(&activation, &gradient, denominator)?;
                weights.values()?.copy_from_slice(&of_channels);
                Ok(())
            }
            Some(stream) => {
                stream.release_scratch();
                let activation = activation.device_view::<T>()?;
                let gradient = gradient.device_view::<T>()?;
                let weights = weights.slice()?;
                alpha_weights::cuda::alpha_weights(stream, &activation, &gradient, denominator, weights)
            }
        })
    }

    /// A [`Sum`] over the channels of an activation `(B, C, [D,] H, W)` into `map`, `(B, [D,] H, W)`
    /// f32 of the activation's grid.
    ///
    /// # Errors
    ///
    /// If tensors do not fit each other, are on other devices or share memory.
    pub fn sum(&mut self, sum: Sum, activation: &Tensor, map: &mut TensorMut) -> Result<()> {
        match sum {
            Sum::Rectified(weights) | Sum::Signed(weights) => {
                self.check(&[weights, activation], &[map])?;
                check_weights(activation, weights)?;
            }
            Sum::Mean => self.check(&[activation], &[map])?,
        }
        let batch = check_layer_map(activation, map.tensor())?;
        for_element!(activation, T => match &mut self.stream {
            None => {
                activation.check_memory()?;
                let activation = activation.view::<T>()?;
                let sums = match sum {
                    Sum::Rectified(weights) => ops::project(weights.values()?, &activation),
                    Sum::Signed(weights) => ops::weighted_sum(weights.values()?, &activation),
                    Sum::Mean => ops::channel_mean(&activation),
                }?;
                map.values()?.copy_from_slice(&sums);
                Ok(())
            }
            Some(stream) => {
                stream.release_scratch();
                let ends = stream.scratch::<DeviceExtremes>(batch)?;
                let (activation, map) = (activation.device_view::<T>()?, map.slice()?);
                match sum {
                    Sum::Rectified(weights) => {
                        project::cuda::project(stream, weights.slice()?, &activation, map, ends)
                    }
                    Sum::Signed(weights) => {
                        project::cuda::weighted_sum(stream, weights.slice()?, &activation, map, ends)
                    }
                    Sum::Mean => project::cuda::channel_mean(stream, &activation, map, ends),
                }
            }
        })
    }

    /// [`elementwise()`](ops::elementwise()) of an activation and a gradient `(B, C, [D,] H, W)` into
    /// `map`, `(B, [D,] H, W)` f32 of their grid.
    ///
    /// # Errors
    ///
    /// As [`elementwise()`](ops::elementwise()), and if tensors do not fit each other, are on other
    /// devices or share memory.
    pub fn elementwise(
        &mut self,
        method: Elementwise,
        activation: &Tensor,
        gradient: &Tensor,
        map: &mut TensorMut,
    ) -> Result<()> {
        self.check(&[activation, gradient], &[map])?;
        gradient.check_kind(activation.kind())?;
        let batch = check_layer_map(activation, map.tensor())?;
        for_element!(activation, T => match &mut self.stream {
            None => {
                activation.check_memory()?;
                let (activation, gradient) = (activation.view::<T>()?, gradient.view::<T>()?);
                let sums = ops::elementwise(&activation, &gradient, method)?;
                map.values()?.copy_from_slice(&sums);
                Ok(())
            }
            Some(stream) => {
                stream.release_scratch();
                let ends = stream.scratch::<DeviceExtremes>(batch)?;
                let activation = activation.device_view::<T>()?;
                let gradient = gradient.device_view::<T>()?;
                let map = map.slice()?;
                elementwise::cuda::elementwise(stream, &activation, &gradient, method, map, ends)
            }
        })
    }

    /// [`resample()`](ops::resample()) of maps `(B, [D,] H, W)` f32 into `out`, whose grid they are
    /// resampled to, and each to `[0, 1]` if `normalized`. `out` is f32, f16 or u8.
    ///
    /// # Errors
    ///
    /// As [`resample_into()`](resample::resample_into()) and, on the CPU, where a map that is to be
    /// normalised is not finite; if tensors do not fit each other, are on other devices or share memory.
    pub fn resample(
        &mut self,
        interpolation: Interpolation,
        normalized: bool,
        map: &Tensor,
        out: &mut TensorMut,
    ) -> Result<()> {
        self.check(&[map], &[out])?;
        let (values, resize) = (map.check_kind(Kind::F32), resize(map, out.tensor())?);
        values?;
        for_map_element!(out.tensor(), O => match &mut self.stream {
            None => {
                let (map, out) = (map.values()?, out.values::<O>()?);
                let ranges: Option<Vec<Range>> = normalized
                    .then(|| resample::extremes(map, resize, interpolation))
                    .transpose()?;
                resample::resample_into(map, resize, interpolation, ranges.as_deref(), out)
            }
            Some(stream) => {
                stream.release_scratch();
                let (map, out) = (map.slice()?, out.slice::<O>()?);
                let mut ends = stream.scratch::<DeviceExtremes>(resize.batch)?;
                if normalized {
                    let ends = ends.reborrow();
                    resample::cuda::extremes(stream, map, resize, interpolation, ends)?;
                }
                let ends = normalized.then_some(ends.as_slice());
                resample::cuda::resample_into(stream, map, resize, interpolation, ends, out)
            }
        })
    }

    /// [`normalize()`](ops::normalize()) of maps `(B, [D,] H, W)` f32, in place.
    ///
    /// # Errors
    ///
    /// On the CPU, if a value is not finite; the map is as before then. If the tensor is not of maps,
    /// or on another device.
    pub fn normalize(&mut self, map: &mut TensorMut) -> Result<()> {
        self.check(&[], &[map])?;
        map.tensor().check_kind(Kind::F32)?;
        let (batch, grid) = map.tensor().maps()?;
        match &mut self.stream {
            None => ops::normalize(map.values()?, batch).map(|_| ()),
            Some(stream) => {
                stream.release_scratch();
                let resize = Resize { batch, from: grid, to: grid };
                let mut ends = stream.scratch::<DeviceExtremes>(batch)?;
                let (values, linear) = (map.tensor().slice()?, Interpolation::Linear);
                resample::cuda::extremes(stream, values, resize, linear, ends.reborrow())?;
                normalize::cuda::normalize(stream, map.slice()?, ends.as_slice())
            }
        }
    }

    /// [`guided_product()`](ops::guided_product()) of maps `(B, [D,] H, W)` and guided maps
    /// `(B, [D',] H', W')`, both f32, into `out`, of the latter's grid and f32, f16 or u8.
    ///
    /// # Errors
    ///
    /// On the CPU, if a value of the product is not finite; if tensors do not fit each other, are on
    /// other devices or share memory.
    pub fn guided_product(
        &mut self,
        normalized: bool,
        map: &Tensor,
        guided: &Tensor,
        out: &mut TensorMut,
    ) -> Result<()> {
        self.check(&[map, guided], &[out])?;
        map.check_kind(Kind::F32)?;
        guided.check_kind(Kind::F32)?;
        let resize = resize(map, out.tensor())?;
        if guided.maps()? != out.tensor().maps()? {
            return Err(guided.refuse("its grid is not that of the result"));
        }
        for_map_element!(out.tensor(), O => match &mut self.stream {
            None => {
                let (map, guided, out) = (map.values()?, guided.values()?, out.values::<O>()?);
                let ranges = guided_product::extremes(map, guided, resize)?;
                let ranges = normalized.then_some(&ranges[..]);
                guided_product::guided_product_into(map, guided, resize, ranges, out)
            }
            Some(stream) => {
                stream.release_scratch();
                let (map, guided, out) = (map.slice()?, guided.slice()?, out.slice::<O>()?);
                let mut ends = stream.scratch::<DeviceExtremes>(resize.batch)?;
                guided_product::cuda::extremes(stream, map, guided, resize, ends.reborrow())?;
                let ends = normalized.then_some(ends.as_slice());
                guided_product::cuda::guided_product_into(stream, map, guided, resize, ends, out)
            }
        })
    }

    /// [`guided_activation()`](ops::guided_activation()): the gradient at the input of a ReLU, from that
    /// at its output, into `output`. All three are of one shape, type and order in memory.
    ///
    /// # Errors
    ///
    /// If they are not, are on other devices or share memory.
    pub fn guided_activation(
        &mut self,
        input: &Tensor,
        gradient: &Tensor,
        output: &mut TensorMut,
    ) -> Result<()> {
        self.check(&[input, gradient], &[output])?;
        for tensor in [gradient, output.tensor()] {
            tensor.check_kind(input.kind())?;
            check_same_order(input, tensor)?;
        }
        for_element!(input, T => match &mut self.stream {
            None => {
                let output = output.values::<T>()?;
                ops::guided_activation(input.values::<T>()?, gradient.values::<T>()?, output)
            }
            Some(stream) => guided_activation::cuda::guided_activation(
                stream,
                input.slice::<T>()?,
                gradient.slice::<T>()?,
                output.slice::<T>()?,
            ),
        })
    }

    /// [`evaluation_sums()`](ops::evaluation_sums()) of maps and masks `(B, [D,] H, W)`, f32 in `[0, 1]`
    /// and u8. Waits for the counts.
    ///
    /// # Errors
    ///
    /// As [`evaluation_sums()`](ops::evaluation_sums()), and if tensors do not fit each other or are on
    /// other devices.
    pub fn evaluation_sums(
        &mut self,
        map: &Tensor,
        mask: &Tensor,
        threshold: Option<f32>,
    ) -> Result<Vec<EvaluationSums>> {
        self.check(&[map, mask], &[])?;
        map.check_kind(Kind::F32)?;
        mask.check_kind(Kind::U8)?;
        let (batch, grid) = map.maps()?;
        if mask.maps()? != (batch, grid) {
            return Err(mask.refuse(&format!("the map has {batch} samples of {grid:?}")));
        }
        match &mut self.stream {
            None => ops::evaluation_sums(map.values()?, Some(mask.values()?), batch, threshold),
            Some(stream) => {
                stream.release_scratch();
                let mut tables = stream.scratch::<u64>(batch * evaluation_sums::TABLE_LENGTH)?;
                let (map, mask) = (map.slice()?, Some(mask.slice()?));
                let room = tables.reborrow();
                evaluation_sums::cuda::evaluation_sums(stream, map, mask, batch, threshold, room)?;
                EvaluationSums::from_tables(&stream.download(tables.as_slice())?, threshold)
            }
        }
    }
}

/// Refuses weights that are not one f32 for each sample and channel.
fn check_weights(activation: &Tensor, weights: &Tensor) -> Result<()> {
    let (Shape { batch, channels, .. }, _) = activation.form()?;
    weights.check_kind(Kind::F32)?;
    weights.check_order()?;
    if weights.extents() == [batch, channels] {
        return Ok(());
    }
    Err(weights.refuse(&format!("here it is (B, C), ({batch}, {channels})")))
}

/// Refuses a map that is not f32, or not of the grid of its activation; returns `B`.
fn check_layer_map(activation: &Tensor, map: &Tensor) -> Result<usize> {
    map.check_kind(Kind::F32)?;
    let (shape, _) = activation.form()?;
    if grid_for(activation, map)? != shape.spatial {
        return Err(map.refuse(&format!("its grid is not that of the activation, {shape}")));
    }
    Ok(shape.batch)
}

/// From the grid of one tensor of maps to that of another.
fn resize(map: &Tensor, out: &Tensor) -> Result<Resize> {
    let ((batch, from), (of_out, to)) = (map.maps()?, out.maps()?);
    if batch != of_out {
        return Err(out.refuse(&format!("{of_out} maps from {batch}")));
    }
    Ok(Resize { batch, from, to })
}

/// Refuses tensors whose values do not lie in memory in one order, without gaps.
fn check_same_order(input: &Tensor, other: &Tensor) -> Result<()> {
    if input.extents() != other.extents() {
        return Err(other.refuse(&format!(
            "the shape of {} is {:?}",
            input.name(),
            input.extents()
        )));
    }
    match input.form() {
        Ok(form) if form == other.form()? => Ok(()),
        Ok(_) => Err(other.refuse(&format!("lay it out in memory as {}", input.name()))),
        Err(_) => input.check_order().and_then(|()| other.check_order()),
    }
}

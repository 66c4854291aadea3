//! The chains: from an activation and its gradient to finished maps.

use super::{Kind, Tensor, TensorMut, Work, for_element, for_map_element};
use crate::error::Result;
use crate::ops::fused::{self, Summary};
use crate::ops::{Method, Recipe};

impl Work<'_> {
    /// [`cam()`](crate::ops::cam()) into `map`, whose grid the map is resampled to.
    ///
    /// | argument | shape | type |
    /// |---|---|---|
    /// | `activation`, `gradient` | `(B, C, [D,] H, W)` | f32, f16 or bf16, both of one |
    /// | `map` | `(B, [D',] H', W')` or `(B, 1, [D',] H', W')` | f32, f16 or u8; written |
    ///
    /// `summary` asks for what the call knows of the maps. On a device that takes a wait; without it the
    /// chain is enqueued, and values that are not finite are not told.
    ///
    /// # Errors
    ///
    /// As [`cam()`](crate::ops::cam()), and if tensors do not fit each other, are on other devices or
    /// share memory.
    pub fn cam(
        &mut self,
        method: Method,
        normalized: bool,
        activation: &Tensor,
        gradient: &Tensor,
        map: &mut TensorMut,
        summary: bool,
    ) -> Result<Option<Summary>> {
        self.check(&[activation, gradient], &[map])?;
        gradient.check_kind(activation.kind())?;
        let to = Some(grid_for(activation, map.tensor())?);
        let recipe = Recipe { method, to, normalized };
        for_element!(activation, T => for_map_element!(map.tensor(), O => match &mut self.stream {
            None => {
                activation.check_memory()?;
                let (activation, gradient) = (activation.view::<T>()?, gradient.view::<T>()?);
                let told = fused::cam_into(&activation, &gradient, &recipe, map.values::<O>()?)?;
                Ok(summary.then_some(told))
            }
            Some(stream) => {
                let activation = activation.device_view::<T>()?;
                let gradient = gradient.device_view::<T>()?;
                let map = map.slice::<O>()?;
                let pending = fused::cuda::cam(stream, &activation, &gradient, &recipe, map)?;
                summary.then(|| pending.finish()).transpose()
            }
        }))
    }

    /// [`guided_cam()`](crate::ops::guided_cam()) into `map`.
    ///
    /// `guided` and `map` are `(B, [D',] H', W')` of one grid, `guided` f32; everything else as in
    /// [`cam`](Self::cam).
    ///
    /// # Errors
    ///
    /// As [`guided_cam()`](crate::ops::guided_cam()) and [`cam`](Self::cam).
    #[expect(clippy::too_many_arguments, reason = "four tensors and what to do with them")]
    pub fn guided_cam(
        &mut self,
        method: Method,
        normalized: bool,
        activation: &Tensor,
        gradient: &Tensor,
        guided: &Tensor,
        map: &mut TensorMut,
        summary: bool,
    ) -> Result<Option<Summary>> {
        self.check(&[activation, gradient, guided], &[map])?;
        gradient.check_kind(activation.kind())?;
        guided.check_kind(Kind::F32)?;
        let to = grid_for(activation, map.tensor())?;
        if guided.maps()? != map.tensor().maps()? {
            return Err(guided.refuse("its grid is not that of the map"));
        }
        let recipe = Recipe { method, to: Some(to), normalized };
        for_element!(activation, T => for_map_element!(map.tensor(), O => match &mut self.stream {
            None => {
                activation.check_memory()?;
                let (activation, gradient) = (activation.view::<T>()?, gradient.view::<T>()?);
                let (guided, map) = (guided.values::<f32>()?, map.values::<O>()?);
                let told = fused::guided_cam_into(&activation, &gradient, guided, &recipe, map)?;
                Ok(summary.then_some(told))
            }
            Some(stream) => {
                let activation = activation.device_view::<T>()?;
                let gradient = gradient.device_view::<T>()?;
                let (guided, map) = (guided.slice::<f32>()?, map.slice::<O>()?);
                let pending =
                    fused::cuda::guided_cam(stream, &activation, &gradient, guided, &recipe, map)?;
                summary.then(|| pending.finish()).transpose()
            }
        }))
    }
}

/// The grid of maps that an activation becomes: of its batch, and in 2D if it is.
pub(super) fn grid_for(activation: &Tensor, map: &Tensor) -> Result<[usize; 3]> {
    let (shape, _) = activation.form()?;
    let (batch, grid) = map.maps()?;
    if batch != shape.batch {
        return Err(map.refuse(&format!("{batch} maps for a batch of {}", shape.batch)));
    }
    if activation.extents().len() == 4 && grid[0] != 1 {
        return Err(map.refuse("a depth, and the activation is 2D, (B, C, H, W)"));
    }
    Ok(grid)
}

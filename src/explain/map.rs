//! A finished attention map.

#[cfg(feature = "files")]
use std::borrow::Cow;

use ndarray::{Array5, ArrayD, ArrayViewD, Axis, Zip};
use tch::Tensor;

use super::fuse::check_sizes;
use super::settings::Fuse;
use crate::bridge::{FinishedMaps, MapValues};
use crate::error::{Error, Result};
use crate::ops::{Range, normalize};
use crate::torch::in_libtorch;

/// The attention maps of one layer and one target, for one batch.
#[derive(Debug, Clone)]
pub struct AttentionMap {
    pub(super) layer: String,
    pub(super) target: String,
    /// Shared by layers that return the same tensor.
    pub(super) values: MapValues,
    pub(super) ranges: Vec<Range>,
    pub(super) weights_cancel: Vec<bool>,
    /// Whether each sample's weights of Grad-CAM++ hang on rounding; empty if none do.
    pub(super) unstable_weights: Vec<bool>,
    /// Whether the gradient behind each sample's map is 0 everywhere; empty if unchecked.
    pub(super) zero_gradient: Vec<bool>,
    pub(super) classes: Vec<Option<usize>>,
    pub(super) spatial_rank: usize,
    pub(super) signed: bool,
}

impl AttentionMap {
    /// The layer's name as it was requested; `input` for a method that takes no layer, `fused` for
    /// the map of several layers.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The target by name: `best`, `class2`, `predicted1`, `component1`...
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The maps, `(B, 1, D, H, W)`, in [0, 1] per sample; 2D has `D = 1`.
    ///
    /// Maps of a network on a GPU stay there until their values are asked for: the first call waits for
    /// them and copies them, later ones give the same. [`tensor`](Self::tensor) does neither.
    ///
    /// # Errors
    ///
    /// If they cannot be copied from their device.
    pub fn values(&self) -> Result<&Array5<f32>> {
        self.values.array()
    }

    /// The maps with the axes of the network's input: `(B, 1, H, W)` or `(B, 1, D, H, W)`.
    ///
    /// # Errors
    ///
    /// As [`values`](Self::values).
    pub fn view(&self) -> Result<ArrayViewD<'_, f32>> {
        self.values().map(|values| self.with_axes_of_input(values))
    }

    /// A copy of [`view`](Self::view).
    ///
    /// # Errors
    ///
    /// As [`values`](Self::values).
    pub fn to_array(&self) -> Result<ArrayD<f32>> {
        self.view().map(|view| view.to_owned())
    }

    /// The maps as a tensor with the axes of the network's input, f32, where they were made: of a network
    /// on a GPU the maps themselves, which nothing waits for, else a copy.
    ///
    /// # Errors
    ///
    /// If libtorch cannot allocate the copy.
    pub fn tensor(&self) -> Result<Tensor> {
        let tensor = self.values.tensor()?;
        match self.spatial_rank {
            2 => in_libtorch("map", || tensor.f_squeeze_dim(2)),
            _ => Ok(tensor),
        }
    }

    /// The maps `(B, 1, D, H, W)` as a reader of 8-bit files gets them, in 255ths, where that means that a
    /// quarter of the bytes is copied from a device; others as they are.
    #[cfg(feature = "files")]
    pub(crate) fn values_in_255ths(&self) -> Result<Cow<'_, Array5<f32>>> {
        self.values.array_in_255ths()
    }

    /// Values of this map's shape, `(B, 1, D, H, W)`, with the axes of the network's input.
    pub(crate) fn with_axes_of_input<'v>(&self, values: &'v Array5<f32>) -> ArrayViewD<'v, f32> {
        match self.spatial_rank {
            2 => values.index_axis(Axis(2), 0).into_dyn(),
            _ => values.view().into_dyn(),
        }
    }

    /// Whether the values have a sign, as those of the guided methods do.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// The range of each sample's map before normalisation, in units of the score per voxel.
    ///
    /// Maps of guided methods are signed: in them, the former 0 is
    /// `-minimum / (maximum - minimum)`.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The class that each sample's map explains; `None` where the target is no single class.
    pub fn classes(&self) -> &[Option<usize>] {
        &self.classes
    }

    /// Fuses the maps of several layers, which must have one target and one size. In each sample,
    /// layers whose weights cancel are left out unless all are such. `there` are the fused maps, if they
    /// were made on a device.
    pub(super) fn fused(maps: &[Self], fuse: Fuse, there: Option<FinishedMaps>) -> Result<Self> {
        let Some((first, rest)) = maps.split_first() else {
            return Err(Error::layer("fuse: no layer has a map"));
        };
        for map in rest {
            check_sizes((&first.layer, first.values.form()), (&map.layer, map.values.form()))?;
        }
        let (batch, _) = first.values.form();
        let weights_cancel: Vec<bool> =
            (0..batch).map(|b| maps.iter().all(|map| map.weights_cancel[b])).collect();
        let (values, ranges) = match there {
            Some(FinishedMaps { values, ranges, .. }) => (values, ranges),
            None => on_host(maps, fuse, &weights_cancel)?,
        };
        Ok(Self {
            layer: "fused".to_owned(),
            values,
            ranges,
            weights_cancel,
            unstable_weights: Vec::new(),
            zero_gradient: Vec::new(),
            ..first.clone()
        })
    }
}

/// The fused maps, and their ranges before normalisation. `weights_cancel` says of each sample whether all
/// maps are noise.
fn on_host(
    maps: &[AttentionMap],
    fuse: Fuse,
    weights_cancel: &[bool],
) -> Result<(MapValues, Vec<Range>)> {
    let all = maps.iter().map(AttentionMap::values).collect::<Result<Vec<_>>>()?;
    let mut values = all.first().map(|first| (*first).clone()).unwrap_or_default();
    for (b, mut fused) in values.outer_iter_mut().enumerate() {
        let kept = maps.iter().zip(&all);
        let kept = kept.filter(|(map, _)| weights_cancel[b] || !map.weights_cancel[b]);
        let mut count = 0.0;
        for (_, values) in kept {
            count += 1.0;
            let of_layer = values.index_axis(Axis(0), b);
            if count == 1.0 {
                fused.assign(&of_layer);
                continue;
            }
            Zip::from(&mut fused).and(&of_layer).par_for_each(|fused, &value| match fuse {
                Fuse::Mean => *fused += value,
                Fuse::Max => *fused = fused.max(value),
            });
        }
        if fuse == Fuse::Mean {
            fused.par_mapv_inplace(|value| value / count);
        }
    }
    let ranges = normalize(values.as_slice_mut().unwrap_or(&mut []), weights_cancel.len())?;
    Ok((MapValues::on_host(values), ranges))
}

//! A finished attention map.

use std::sync::Arc;

use ndarray::{Array5, ArrayD, ArrayViewD, Axis, Zip};

use super::settings::Fuse;
use crate::error::{Error, Result};
use crate::ops::{Maps, Range, normalize};

/// The attention maps of one layer and one target, for one batch.
#[derive(Debug, Clone)]
pub struct AttentionMap {
    pub(super) layer: String,
    pub(super) target: String,
    /// Shared by layers that return the same tensor.
    pub(super) values: Arc<Array5<f32>>,
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
    pub(super) fn new(
        layer: &str,
        target: &str,
        maps: Maps,
        classes: &[Option<usize>],
        spatial_rank: usize,
        signed: bool,
    ) -> Result<Self> {
        let [d, h, w] = maps.spatial;
        let values = Array5::from_shape_vec([maps.batch, 1, d, h, w], maps.values)
            .map_err(|error| Error::input("map", &error).because(error))?;
        Ok(Self {
            layer: layer.to_owned(),
            target: target.to_owned(),
            values: Arc::new(values),
            ranges: maps.ranges,
            weights_cancel: maps.weights_cancel,
            unstable_weights: Vec::new(),
            zero_gradient: Vec::new(),
            classes: classes.to_vec(),
            spatial_rank,
            signed,
        })
    }

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
    pub fn values(&self) -> &Array5<f32> {
        &self.values
    }

    /// The maps with the axes of the network's input: `(B, 1, H, W)` or `(B, 1, D, H, W)`.
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        match self.spatial_rank {
            2 => self.values.index_axis(Axis(2), 0).into_dyn(),
            _ => self.values.view().into_dyn(),
        }
    }

    /// A copy of [`view`](Self::view).
    pub fn to_array(&self) -> ArrayD<f32> {
        self.view().to_owned()
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
    /// layers whose weights cancel are left out unless all are such.
    pub(super) fn fused(maps: &[Self], fuse: Fuse) -> Result<Self> {
        let Some((first, rest)) = maps.split_first() else {
            return Err(Error::layer("fuse: no layer has a map"));
        };
        for map in rest {
            if map.values.dim() != first.values.dim() {
                return Err(Error::usage(format!(
                    "fuse: the maps of '{}' and '{}' have different sizes; ask for one size",
                    first.layer, map.layer
                )));
            }
        }
        let mut values = (*first.values).clone();
        let (batch, ..) = values.dim();
        let weights_cancel: Vec<bool> =
            (0..batch).map(|b| maps.iter().all(|map| map.weights_cancel[b])).collect();
        for (b, mut fused) in values.outer_iter_mut().enumerate() {
            let kept = maps.iter().filter(|map| weights_cancel[b] || !map.weights_cancel[b]);
            let mut count = 0.0;
            for map in kept {
                count += 1.0;
                let of_layer = map.values.index_axis(Axis(0), b);
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
        let ranges = normalize(values.as_slice_mut().unwrap_or(&mut []), batch)?;
        Ok(Self {
            layer: "fused".to_owned(),
            values: Arc::new(values),
            ranges,
            weights_cancel,
            unstable_weights: Vec::new(),
            zero_gradient: Vec::new(),
            ..first.clone()
        })
    }
}

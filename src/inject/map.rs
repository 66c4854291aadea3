//! A finished attention map, and what to be warned of in it.

use ndarray::{Array5, ArrayD, Axis};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::ops::{Maps, Range};

/// The attention maps of one layer for one batch.
#[derive(Debug, Clone)]
pub struct AttentionMap {
    pub(super) layer: String,
    pub(super) values: Array5<f32>,
    pub(super) ranges: Vec<Range>,
    pub(super) weights_cancel: Vec<bool>,
    pub(super) classes: Vec<Option<usize>>,
    pub(super) spatial_rank: usize,
}

impl AttentionMap {
    pub(super) fn new(
        layer: &str,
        maps: Maps,
        classes: &[Option<usize>],
        spatial_rank: usize,
    ) -> Result<Self> {
        let [d, h, w] = maps.spatial;
        let values = Array5::from_shape_vec([maps.batch, 1, d, h, w], maps.values)
            .map_err(|error| Error::input("map", &error).because(error))?;
        Ok(Self {
            layer: layer.to_owned(),
            values,
            ranges: maps.ranges,
            weights_cancel: maps.weights_cancel,
            classes: classes.to_vec(),
            spatial_rank,
        })
    }

    /// The layer, as it was asked for.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The maps, `(B, 1, D, H, W)`, in [0, 1] per sample; 2D has `D = 1`.
    pub fn values(&self) -> &Array5<f32> {
        &self.values
    }

    /// The maps with the axes of the network's input: `(B, 1, H, W)` or `(B, 1, D, H, W)`.
    pub fn to_array(&self) -> ArrayD<f32> {
        match self.spatial_rank {
            2 => self.values.index_axis(Axis(2), 0).to_owned().into_dyn(),
            _ => self.values.clone().into_dyn(),
        }
    }

    /// The range of each sample's map before normalisation, in units of the score per voxel.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The class that each sample's map explains; `None` where the target is no single class.
    pub fn classes(&self) -> &[Option<usize>] {
        &self.classes
    }
}

/// Something that a reader of a map should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Warning {
    /// A fixed name for programs: `ZERO_MAP`, `CONSTANT_MAP`, `WEIGHTS_CANCEL`,
    /// `EMPTY_TARGET`, `REDRAWS_OUTPUT` or `NO_GRADIENT`.
    pub code: &'static str,
    /// The layer; empty where the warning is of the whole run.
    pub layer: String,
    /// The sample of the batch, from 0; `None` where the warning is of all.
    pub sample: Option<usize>,
    /// What it means, and what to do.
    pub message: String,
}

/// Warnings about the values of a map.
pub(super) fn judge(map: &AttentionMap) -> Vec<Warning> {
    let warning = |code, sample, message: &str| Warning {
        code,
        layer: map.layer.clone(),
        sample: Some(sample),
        message: format!("layer '{}', sample {sample}: {message}", map.layer),
    };
    let of_sample = |(sample, (range, cancel)): (usize, (&Range, &bool))| {
        if *cancel {
            Some(warning(
                "WEIGHTS_CANCEL",
                sample,
                "the map is rounding noise: the gradient averages to zero in every channel, as it \
                 does in front of an instance normalisation. Take a layer behind one",
            ))
        } else if range.maximum <= 0.0 {
            Some(warning(
                "ZERO_MAP",
                sample,
                "the map is zero everywhere: nothing in this layer speaks for the score. Try \
                 another layer or class",
            ))
        } else if range.minimum >= range.maximum {
            Some(warning(
                "CONSTANT_MAP",
                sample,
                "the map is the same everywhere and is written as zeros. Try another layer",
            ))
        } else {
            None
        }
    };
    map.ranges.iter().zip(&map.weights_cancel).enumerate().filter_map(of_sample).collect()
}

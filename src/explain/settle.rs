//! The maps of a target once what they asked for is known: their warnings, and whether they may be used.

use super::map::AttentionMap;
use super::settings::Settings;
use super::warnings::{empty_target, judge, judge_fused};
use crate::bridge::{Fetched, FinishedMaps, LayerMaps, Told};
use crate::error::Result;
use crate::methods::Target;
use crate::ops::Range;
use crate::warning::Warning;

/// The maps of one target, which may still be under way.
pub(super) struct Made {
    pub asked: Target,
    pub label: String,
    pub classes: Told<Vec<Option<usize>>>,
    /// Samples whose score sums over no voxel.
    pub empty: Told<Vec<usize>>,
    pub layers: Vec<MadeLayer>,
    /// The maps of all layers as one, where they were fused on a device.
    pub fused: Option<LayerMaps>,
}

/// The maps of one layer.
pub(super) struct MadeLayer {
    pub label: String,
    pub maps: MadeMaps,
    /// About the layer, whatever its maps are.
    pub warnings: Vec<Warning>,
}

pub(super) enum MadeMaps {
    /// With whether the gradient of each sample is 0 everywhere, if that was looked at.
    Own(LayerMaps, Vec<bool>),
    /// Those of an earlier layer, by its place, which returned the same tensor.
    SameAs(usize),
    /// No gradient reached the layer.
    None,
}

/// The greatest part of its range by which the roundings of activations and gradients in f32 may move a
/// map of Grad-CAM++ before it is called unstable.
///
/// Of 2579 layers of the networks of the tests and of V-Nets, U-Nets and SegResNets with random
/// weights, none whose map by autograd in single precision is within 1e-4 of that in double comes to
/// more than 1/50.
const UNSTABLE: f32 = 1.0 / 32.0;

impl Made {
    /// The maps, in the order of the layers, and the warnings about them.
    pub(super) fn settled(
        self,
        settings: &Settings,
        spatial_rank: usize,
        fetched: &Fetched,
        warnings: &mut Vec<Warning>,
    ) -> Result<Vec<AttentionMap>> {
        let Self { asked, label, classes, empty, layers, fused } = self;
        let classes = match classes {
            Told::Now(classes) => classes,
            Told::Later(slot) => {
                let class = |&class: &i32| usize::try_from(class).ok();
                fetched.integers(&slot).iter().map(class).collect()
            }
        };
        let empty = match empty {
            Told::Now(empty) => empty,
            Told::Later(slot) => {
                let any = fetched.integers(&slot).iter().enumerate();
                any.filter(|(_, any)| **any == 0).map(|(sample, _)| sample).collect()
            }
        };
        warnings.extend(empty_target(&asked, &label, &empty));
        let signed = settings.backend.needs().guided;
        let map = |layer: &str, maps: FinishedMaps, zero_gradient: Vec<bool>| {
            let unstable_weights = unstable(&maps);
            let zero_gradient = maps.zero_gradient.unwrap_or(zero_gradient);
            AttentionMap {
                layer: layer.to_owned(),
                target: label.clone(),
                values: maps.values,
                ranges: maps.ranges,
                weights_cancel: maps.weights_cancel,
                unstable_weights,
                zero_gradient,
                classes: classes.clone(),
                spatial_rank,
                signed,
            }
        };
        let mut maps: Vec<Option<AttentionMap>> = Vec::new();
        for MadeLayer { label, maps: made, warnings: of_layer } in layers {
            for warning in of_layer {
                // Once per layer, not once per target.
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            maps.push(match made {
                MadeMaps::Own(made, zero_gradient) => {
                    let made = made.finished(fetched);
                    let made = made.map_err(|error| match settings.backend.needs().layer {
                        true => error.within(format!("layer '{label}'")),
                        false => error,
                    })?;
                    Some(map(&label, made, zero_gradient))
                }
                MadeMaps::SameAs(earlier) => {
                    let same = maps.get(earlier).and_then(Option::clone);
                    same.map(|map| AttentionMap { layer: label, ..map })
                }
                MadeMaps::None => None,
            });
        }
        let maps: Vec<_> = maps.into_iter().flatten().collect();
        let maps = match settings.fuse {
            Some(fuse) => {
                let there = fused.map(|fused| fused.finished(fetched)).transpose()?;
                let fused = AttentionMap::fused(&maps, fuse, there)?;
                warnings.extend(maps.iter().flat_map(|map| judge_fused(map, &fused)));
                vec![fused]
            }
            None => maps,
        };
        warnings.extend(maps.iter().flat_map(judge));
        Ok(maps)
    }
}

/// Whether each sample's weights of Grad-CAM++ hang on rounding; empty if none do.
fn unstable(maps: &FinishedMaps) -> Vec<bool> {
    let Some(sensitivity) = &maps.sensitivity else { return Vec::new() };
    let is_unstable = |(range, sensitivity): (&Range, &f32)| {
        // A map that is the same everywhere is warned of as such.
        let span = range.maximum - range.minimum;
        span > 0.0 && sensitivity * (f32::EPSILON / 2.0) > UNSTABLE * span
    };
    maps.ranges.iter().zip(sensitivity).map(is_unstable).collect()
}

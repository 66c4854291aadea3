//! Reproduces the numbers of M3d-CAM 0.1.22, so that a study begun with it can be continued.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use tch::{Kind, Tensor};

use super::score::TargetScore;
use super::target::Target;
use crate::bridge::Readback;
use crate::error::{Error, Result};
use crate::task::Task;
use crate::torch::{Layers, in_libtorch};

/// Whether maps reproduce the numbers of M3d-CAM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// This crate's own.
    #[default]
    None,
    /// Those of M3d-CAM 0.1.22 (arXiv 2007.00453), within 1e-4, wherever it is right.
    ///
    /// | | M3d-CAM and [`Compat::M3dCam`] | [`Compat::None`] |
    /// |---|---|---|
    /// | order | a map is normalised on the layer's grid, then resampled: its maximum is below 1 | resampled, then normalised |
    /// | Grad-CAM++ | `alpha = G² / (2·G² + sum_n(A·G³) + 1e-7)`; in segmentation `G` is multiplied by `exp` of the score at the voxel | [`Denominator::Paper`](crate::ops::Denominator), and no `exp` |
    /// | Guided Grad-CAM | Grad-CAM's map is normalised before it is multiplied | after |
    /// | layer `auto` | the last one, in the order in which modules were registered, whose output has more than one voxel along each axis: in segmentation the map only redraws the output there | see [`LayerChoice::Auto`](crate::LayerChoice) |
    /// | score | at the network's output | before a final softmax or sigmoid |
    /// | [`Target::Best`] in segmentation | the class with the greatest sum of the output over all voxels | the class predicted for the most voxels |
    /// | [`Target::All`] in classification | the best class: both stand for M3d-CAM's label `None` | all outputs |
    ///
    /// Where M3d-CAM fails or is wrong, the maps follow its formulas without the fault:
    ///
    /// - each sample of a batch is computed as if it were alone;
    /// - activations are those that the layer returned, even if an in-place ReLU follows;
    /// - every ReLU is guided, not only ReLU modules;
    /// - `exp` does not overflow.
    M3dCam,
}

impl FromStr for Compat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "m3dcam" => Ok(Self::M3dCam),
            _ => Err(Error::usage(format!("compat '{text}': expected none or m3dcam"))),
        }
    }
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::M3dCam => "m3dcam",
        })
    }
}

/// The layer that M3d-CAM's `auto` selects. `registered` lists all modules in the order of their
/// registration; if it is empty, the order of `layers` counts.
pub(crate) fn auto_layer(registered: &[String], layers: &Layers) -> Option<String> {
    let names = if registered.is_empty() {
        layers.iter().map(|layer| layer.name.clone()).collect()
    } else {
        registered.to_vec()
    };
    let carries = |name: &String| {
        layers.get(name).is_some_and(|layer| layer.can_carry_map && layer.has_extent())
    };
    parents_last(names).into_iter().rev().find(carries)
}

/// The order of M3d-CAM's `get_layers`: each module is moved behind those directly after it whose
/// names begin with its own. M3d-CAM takes them for its children.
fn parents_last(mut names: Vec<String>) -> Vec<String> {
    let mut at = 0;
    while at + 1 < names.len() {
        let children =
            names[at + 1..].iter().take_while(|name| name.starts_with(&names[at])).count();
        if children == 0 {
            at += 1;
        } else {
            names[at..=at + children].rotate_left(1);
        }
    }
    names
}

/// The target that M3d-CAM explains when asked for `target`; `output` is `(B, K, ...)`.
pub(crate) fn target(target: Target, task: Task, output: &Tensor) -> Result<Target> {
    match (target, task) {
        (Target::All, Task::Classification) => Ok(Target::Best),
        (Target::Best, Task::Segmentation) => in_libtorch("target", || {
            let sums = output.f_detach()?.f_flatten(2, -1)?.f_sum_dim_intlist(2, false, None)?;
            Vec::<i64>::try_from(sums.f_argmax(1, false)?)
        })
        .map(|best| {
            Target::Classes(best.into_iter().filter_map(|k| usize::try_from(k).ok()).collect())
        }),
        (target, _) => Ok(target),
    }
}

/// The contribution of each output to the score, `(B, K, [D,] H, W)`: M3d-CAM's `logits * mask`.
pub(crate) fn parts(target: &Target, task: Task, y: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let y = y.detach().set_requires_grad(true);
    let score = tch::with_grad(|| {
        TargetScore::of(target, task, &y, &logits.detach(), &mut Readback::default())
    })?;
    in_libtorch("target", || {
        let mask = Tensor::f_run_backward(&[&score.sum], &[&y], false, false)?.remove(0);
        y.f_detach()?.f_mul(&mask)
    })
}

/// Grad-CAM++'s maps `(B, 1, [D,] H, W)`, not normalised.
///
/// `parts` are the score's [`parts`] in segmentation. M3d-CAM resamples them and multiplies the
/// gradient by their `exp`, channel by channel. This fails unless there is one class or one per
/// channel; in the other cases, the parts are summed over the classes. The maximum is subtracted
/// first, so that `exp` does not overflow; the normalisation cancels this factor.
pub(crate) fn grad_cam_plus_plus(
    activation: &Tensor,
    gradient: &Tensor,
    parts: Option<&Tensor>,
) -> Result<Tensor> {
    in_libtorch("grad_cam_plus_plus", || {
        let (a, g) = (activation.f_to_kind(Kind::Float)?, gradient.f_to_kind(Kind::Float)?);
        let grid = &g.size()[2..];
        let axes: Vec<i64> = (2..).take(grid.len()).collect();
        let sum = |x: Tensor| x.f_sum_dim_intlist(&axes[..], true, None);
        let squared = g.f_square()?;
        let denominator = squared.f_mul_scalar(2)?.f_add(&sum(a.f_mul(&squared)?.f_mul(&g)?)?)?;
        let denominator =
            denominator.f_where_self(&denominator.f_ne(0)?, &denominator.f_ones_like()?)?;
        let alpha = squared.f_div(&denominator.f_add_scalar(1e-7)?)?;
        let positive = match parts {
            None => g.f_relu()?,
            Some(parts) => {
                let parts = resampled(&parts.f_to_kind(Kind::Float)?, grid)?;
                let channels = parts.size()[1];
                let parts = if channels == 1 || channels == g.size()[1] {
                    parts
                } else {
                    parts.f_sum_dim_intlist(1, true, None)?
                };
                let all: Vec<i64> = (1..).take(grid.len() + 1).collect();
                let factor = parts.f_sub(&parts.f_amax(&all[..], true)?)?.f_exp()?;
                factor.f_mul(&g)?.f_relu()?
            }
        };
        let weights = sum(alpha.f_mul(&positive)?)?;
        weights.f_mul(&a)?.f_sum_dim_intlist(1, true, None)?.f_relu()
    })
}

/// Linear interpolation with half-pixel centres.
fn resampled(x: &Tensor, grid: &[i64]) -> std::result::Result<Tensor, tch::TchError> {
    match grid.len() {
        2 => x.f_upsample_bilinear2d(grid, false, None, None),
        _ => x.f_upsample_trilinear3d(grid, false, None, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::parents_last;

    #[test]
    fn a_name_comes_after_those_that_begin_with_it() {
        let order = |names: &[&str]| parents_last(names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(order(&["a", "a.x", "a.x.1", "a.y", "b"]), ["a.x.1", "a.x", "a.y", "a", "b"]);
        // M3d-CAM takes conv for the parent of conv2, unless another module lies between.
        assert_eq!(order(&["conv", "conv2", "head"]), ["conv2", "conv", "head"]);
        assert_eq!(order(&["conv", "act", "conv2"]), ["conv", "act", "conv2"]);
        assert_eq!(order(&["one"]), ["one"]);
        assert_eq!(order(&[]), [""; 0]);
    }
}

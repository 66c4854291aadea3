//! The score of a target, ready for backward.

use ndarray::ArrayD;
use tch::{Kind, Tensor};

use super::target::Target;
use crate::bridge::{Readback, Told, is_on_device, to_tensor, upload};
use crate::error::{Error, Result};
use crate::task::Task;
use crate::torch::{Device, in_libtorch};

/// A score ready for backward.
#[derive(Debug)]
pub(crate) struct TargetScore {
    /// The sum of the scores of all samples. Its gradient holds the gradient of each sample's
    /// score, as no score depends on another sample's activation.
    pub sum: Tensor,
    /// The class of each sample, if the target selects one.
    pub classes: Told<Vec<Option<usize>>>,
    /// Samples whose score sums over no voxel.
    pub empty: Told<Vec<usize>>,
}

/// The class of each sample: given, or found by a device that has not told it yet.
enum Classes {
    Given(Vec<usize>),
    /// `(B)`
    OnDevice(Tensor),
}

impl Classes {
    fn told(&self, readback: &mut Readback) -> Result<Told<Vec<Option<usize>>>> {
        Ok(match self {
            Self::Given(classes) => Told::Now(classes.iter().copied().map(Some).collect()),
            Self::OnDevice(classes) => Told::Later(readback.ask(classes)?),
        })
    }
}

impl TargetScore {
    /// `y` is the tensor from which the score is taken. `logits` are the scores before a final
    /// activation, or the same tensor if there is none. Both are `(B, K)` or `(B, K, [D,] H, W)`. What a
    /// device finds out of them is asked for in `readback`, and not waited for.
    pub(crate) fn of(
        target: &Target,
        task: Task,
        y: &Tensor,
        logits: &Tensor,
        readback: &mut Readback,
    ) -> Result<Self> {
        let batch = extent(y, 0);
        let same = |class: usize| Classes::Given(vec![class; batch]);
        let unclassed =
            |sum| Self { sum, classes: Told::Now(vec![None; batch]), empty: Told::Now(Vec::new()) };
        let mut scored = |scores: Tensor, classes: &Classes, empty| {
            let classes = classes.told(readback)?;
            Ok(Self { sum: scores.sum(Kind::Float), classes, empty })
        };
        let none_empty = Told::Now(Vec::new());
        match target {
            Target::Best => {
                let classes = best(task, logits)?;
                scored(channels(y, &classes)?, &classes, none_empty)
            }
            Target::Class(class) => {
                let classes = same(*class);
                scored(channels(y, &classes)?, &classes, none_empty)
            }
            Target::Classes(classes) => {
                if classes.len() != batch {
                    return Err(Error::input(
                        "target",
                        format!("{} classes for a batch of {batch}", classes.len()),
                    ));
                }
                let classes = Classes::Given(classes.clone());
                scored(channels(y, &classes)?, &classes, none_empty)
            }
            Target::All => Ok(unclassed(y.sum(Kind::Float))),
            Target::Predicted(class) => {
                let classes = same(*class);
                let chosen = channels(y, &classes)?;
                let predicted = predicted_as(*class, logits)?;
                let any = any_voxel(&predicted)?;
                let empty = if is_on_device(&any) {
                    Told::Later(readback.ask(&any)?)
                } else {
                    Told::Now(empty_samples(&any)?)
                };
                let classes = classes.told(readback)?;
                Ok(Self { sum: (chosen * predicted).sum(Kind::Float), classes, empty })
            }
            Target::Region { class, mask } => {
                if task == Task::Classification {
                    return Err(Error::input(
                        "target",
                        "a mask needs an output with one score per voxel; this network classifies",
                    ));
                }
                let classes = match class {
                    Some(class) => same(*class),
                    None => best(task, logits)?,
                };
                let chosen = channels(y, &classes)?;
                let mask = region(mask, &chosen)?;
                let every = in_libtorch("target", || mask.f_expand_as(&chosen))?;
                let empty = Told::Now(empty_samples(&any_voxel(&every)?)?);
                let mask = upload(&mask, chosen.device())?;
                scored(chosen * mask, &classes, empty)
            }
            Target::Each | Target::Components(_) => {
                Err(Error::input("target", format!("{target:?} stands for several targets")))
            }
            Target::Function(function) => Ok(unclassed(function(y).sum(Kind::Float))),
        }
    }
}

fn extent(tensor: &Tensor, axis: usize) -> usize {
    tensor.size().get(axis).and_then(|&n| usize::try_from(n).ok()).unwrap_or(0)
}

/// The channel of the class of each sample: `(B)` or `(B, [D,] H, W)`.
fn channels(y: &Tensor, classes: &Classes) -> Result<Tensor> {
    match classes {
        Classes::Given(classes) => given_channels(y, classes),
        Classes::OnDevice(classes) => in_libtorch("target", || {
            let (mut one, mut all) = (vec![1; y.dim()], y.size());
            (one[0], all[1]) = (all[0], 1);
            let index = classes.f_reshape(&one)?.f_expand(&all, false)?;
            y.f_gather(1, &index, false)?.f_squeeze_dim(1)
        }),
    }
}

fn given_channels(y: &Tensor, classes: &[usize]) -> Result<Tensor> {
    let count = extent(y, 1);
    if let Some(class) = classes.iter().find(|&&class| class >= count) {
        return Err(Error::input(
            "target",
            format!(
                "class {class} is out of range: the output has {count} class(es), 0 to {}",
                count - 1
            ),
        ));
    }
    let index = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    in_libtorch("target", || match classes {
        // If all samples share the class, one view of the channel: its gradient is one pass. The
        // general case copies the channels and needs several passes over the output.
        [first, rest @ ..] if rest.iter().all(|class| class == first) => {
            y.f_select(1, index(*first))
        }
        _ => {
            let picked = classes.iter().enumerate();
            let picked = picked
                .map(|(sample, &class)| y.f_select(0, index(sample))?.f_select(0, index(class)))
                .collect::<Result<Vec<_>, _>>()?;
            Tensor::f_stack(&picked, 0)
        }
    })
}

/// The predicted class of each sample or voxel. A single channel predicts class 0 where it is above
/// 0, and else none, -1.
fn prediction(logits: &Tensor) -> Result<Tensor> {
    in_libtorch("target", || {
        if extent(logits, 1) == 1 {
            logits.f_select(1, 0)?.f_gt(0.0)?.f_to_kind(Kind::Int64)?.f_sub_scalar(1)
        } else {
            logits.f_argmax(1, false)
        }
    })
}

/// Which samples or voxels are predicted as a class, as booleans.
pub(super) fn predicted_as(class: usize, logits: &Tensor) -> Result<Tensor> {
    let predicted = prediction(&logits.detach())?;
    in_libtorch("target", || predicted.f_eq(i64::try_from(class).unwrap_or(i64::MAX)))
}

/// The best class of each sample.
fn best(task: Task, logits: &Tensor) -> Result<Classes> {
    let best = best_classes(task, &logits.detach())?;
    if is_on_device(&best) {
        return Ok(Classes::OnDevice(best));
    }
    let best = in_libtorch("target", || Vec::<i64>::try_from(best))?;
    Ok(Classes::Given(best.into_iter().map(|k| usize::try_from(k).unwrap_or(0)).collect()))
}

/// The best class of each sample, `(B)`, where the scores are. Nothing waits.
fn best_classes(task: Task, logits: &Tensor) -> Result<Tensor> {
    let classes = extent(logits, 1);
    if classes == 1 {
        return in_libtorch("target", || {
            Tensor::f_zeros([logits.size()[0]], (Kind::Int64, logits.device()))
        });
    }
    let predicted = prediction(logits)?;
    if task == Task::Classification {
        return Ok(predicted);
    }
    let predicted = in_libtorch("target", || predicted.f_flatten(1, -1))?;
    let counts = if is_on_device(&predicted) {
        counts_on_device(&predicted, classes)
    } else {
        counts_on_host(&predicted, classes)
    }?;
    // The first of equal classes wins. Class 0 is the background by convention.
    in_libtorch("target", || {
        let foreground = counts.f_narrow(1, 1, counts.size()[1] - 1)?;
        let best = foreground.f_argmax(1, false)?.f_add_scalar(1)?;
        let any = foreground.f_amax(1, false)?.f_gt(0)?;
        best.f_mul(&any)
    })
}

/// For how many voxels of each sample each class is predicted, `(B, K)`: one pass for each class, as
/// libtorch's `bincount` waits on a device.
fn counts_on_device(predicted: &Tensor, classes: usize) -> Result<Tensor> {
    in_libtorch("target", || {
        let of_class = |class| {
            let class = i64::try_from(class).unwrap_or(i64::MAX);
            predicted.f_eq(class)?.f_sum_dim_intlist(1, false, Kind::Int64)
        };
        Tensor::f_stack(&(0..classes).map(of_class).collect::<Result<Vec<_>, _>>()?, 1)
    })
}

/// The same in one pass.
fn counts_on_host(predicted: &Tensor, classes: usize) -> Result<Tensor> {
    in_libtorch("target", || {
        let of_sample = |sample| {
            let classes = i64::try_from(classes).unwrap_or(i64::MAX);
            predicted.f_select(0, sample)?.f_bincount::<Tensor>(None, classes)
        };
        let counts = (0..predicted.size()[0]).map(of_sample).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_stack(&counts, 0)
    })
}

/// The mask on the host, `(B, [D,] H, W)` or `(1, [D,] H, W)`, for the scores `chosen`.
fn region(mask: &ArrayD<f32>, chosen: &Tensor) -> Result<Tensor> {
    let mask = to_tensor(mask, Device::Cpu, Kind::Float)?;
    let (of_mask, grid) = (mask.size(), chosen.size());
    let mask = if of_mask == grid[1..] {
        mask.unsqueeze(0)
    } else if of_mask.len() == grid.len()
        && of_mask[1..] == grid[1..]
        && (of_mask[0] == grid[0] || of_mask[0] == 1)
    {
        mask
    } else {
        return Err(Error::input(
            "target",
            format!(
                "mask of shape {of_mask:?} for an output grid of {:?} (batch {})",
                &grid[1..],
                grid[0]
            ),
        ));
    };
    let finite = in_libtorch("target", || bool::try_from(mask.f_isfinite()?.f_all()?))?;
    if !finite {
        return Err(Error::input("target", "the mask has values that are NaN or infinite"));
    }
    Ok(mask)
}

/// Whether each sample has a voxel that is not 0, `(B)`.
fn any_voxel(weights: &Tensor) -> Result<Tensor> {
    in_libtorch("target", || {
        let nonzero = weights.f_ne(0)?;
        nonzero.f_reshape([nonzero.size()[0], -1])?.f_any_dim(1, false)
    })
}

/// The samples that have none.
fn empty_samples(any: &Tensor) -> Result<Vec<usize>> {
    let any = in_libtorch("target", || Vec::<bool>::try_from(any))?;
    Ok(any.iter().enumerate().filter(|(_, any)| !**any).map(|(sample, _)| sample).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_alike_on_both_sides() {
        let predicted = Tensor::from_slice(&[0_i64, 2, 2, 1, 0, 0, 0, 0]).reshape([2, 4]);
        let expected = [1, 1, 2, 0, 4, 0, 0, 0];
        for count in [counts_on_host, counts_on_device] {
            let counts = count(&predicted, 4).unwrap();
            assert_eq!(counts.size(), [2, 4]);
            assert_eq!(Vec::<i64>::try_from(counts.flatten(0, -1)).unwrap(), expected);
        }
    }

    #[test]
    fn channels_of_classes_on_a_device_are_those_of_given_ones() {
        for grid in [&[][..], &[2, 3]] {
            let size = [&[3, 4][..], grid].concat();
            let y = Tensor::rand(&size, (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
            let of = |classes: &Classes| {
                let chosen = channels(&y, classes).unwrap();
                let weighted = &chosen
                    * Tensor::arange(3, (Kind::Float, tch::Device::Cpu))
                        .reshape([&[3][..], &vec![1; grid.len()]].concat());
                let gradient =
                    Tensor::run_backward(&[weighted.sum(Kind::Float)], &[&y], false, false);
                (chosen.detach(), gradient[0].shallow_clone())
            };
            for classes in [[1, 1, 1], [3, 0, 2]] {
                let given = of(&Classes::Given(classes.map(|class| class as usize).to_vec()));
                let there = of(&Classes::OnDevice(Tensor::from_slice(&classes.map(i64::from))));
                assert_eq!(given.0, there.0);
                assert_eq!(given.1, there.1);
            }
        }
    }
}

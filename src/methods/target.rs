//! The score that a map explains: its gradient is taken.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::ArrayD;
use serde::{Serialize, Serializer};
use tch::{Kind, Tensor};

use crate::bridge::to_tensor;
use crate::error::{Error, Result};
use crate::task::Task;
use crate::torch::{Device, in_libtorch};

/// The output that a map explains. The score of sample `b` is
///
/// | target | classification, output `(B, K)` | segmentation, output `(B, K, [D,] H, W)` |
/// |---|---|---|
/// | `Class(k)` | `y[b,k]` | `sum_n y[b,k,n]` |
/// | `Classes([k_0, k_1, ...])` | `y[b,k_b]` | `sum_n y[b,k_b,n]` |
/// | `Best` | the class with the highest score, per sample | the class predicted for the most voxels, per sample; class 0 (background) only if there is no other |
/// | `All` | `sum_k y[b,k]` | `sum_k,n y[b,k,n]` |
/// | `Predicted(k)` | `y[b,k]` where `k` is the predicted class | `y[b,k,n]` summed over the voxels that are predicted as `k` |
/// | `Region {class, mask}` | not possible | `sum_n mask[b,n]·y[b,k,n]` |
/// | `Function(f)` | `sum f(y)` | `sum f(y)` |
/// | `Each` | `Class(k)` for each `k`, a map each | the same |
/// | `Components(k)` | not possible | `sum_n y[b,k,n]` over the voxels of one connected component of those predicted as `k`, a map each, the largest first |
///
/// with `y` before a final softmax or sigmoid ([`ScoreAt::Logits`]) or after it. A network with a
/// single output channel predicts class 0 where `y > 0`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Target {
    /// The best class of each sample.
    #[default]
    Best,
    /// One class for the whole batch.
    Class(usize),
    /// One class per sample.
    Classes(Vec<usize>),
    /// All outputs.
    All,
    /// The voxels predicted as a class.
    Predicted(usize),
    /// A region of the output grid.
    Region {
        /// The class; `None` for the best one.
        class: Option<usize>,
        /// The weight of each voxel, usually 0 or 1: `([D,] H, W)`, or with a leading batch axis.
        mask: Arc<ArrayD<f32>>,
    },
    /// Each class, with a map of its own, from one forward.
    Each,
    /// Each connected component of the voxels predicted as a class, such as each lesion, with a map
    /// of its own, from one forward. Voxels that share a face, an edge or a corner are connected.
    /// Only the 64 largest components of each sample have maps.
    Components(usize),
    /// Any function of the output; the tensor that it returns is summed. It must not mix samples:
    /// their gradients would mix as well.
    Function(Arc<dyn Fn(&Tensor) -> Tensor + Send + Sync>),
}

impl Target {
    /// Whether this is a single target that expands to no others.
    #[cfg(feature = "files")]
    pub(crate) fn is_single(targets: &[Self]) -> bool {
        matches!(targets, [target] if !matches!(target, Self::Each | Self::Components(_)))
    }

    /// The name of its maps; the targets that `Each` and `Components` expand to have other names.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Best => "best".to_owned(),
            Self::Class(class) => format!("class{class}"),
            Self::Classes(_) => "classes".to_owned(),
            Self::All => "all".to_owned(),
            Self::Predicted(class) => format!("predicted{class}"),
            Self::Region { .. } => "region".to_owned(),
            Self::Each => "each".to_owned(),
            Self::Components(class) => format!("components{class}"),
            Self::Function(_) => "function".to_owned(),
        }
    }
}

/// Where the score is taken in a network that ends in a softmax or sigmoid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreAt {
    /// Before it. A softmax whose output is near 0 or 1 has almost no gradient; its input does not
    /// saturate.
    #[default]
    Logits,
    /// After it, at the output itself.
    Output,
}

impl FromStr for ScoreAt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "logits" => Ok(Self::Logits),
            "output" => Ok(Self::Output),
            _ => Err(Error::usage(format!("score '{text}': expected logits or output"))),
        }
    }
}

/// Serialises as the text that is parsed. Classes are a list, a region has its voxels, and a
/// function is the word alone.
impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct RegionOf<'a> {
            class: &'a Option<usize>,
            shape: &'a [usize],
            mask: Vec<f32>,
        }
        match self {
            Self::Best | Self::All | Self::Each | Self::Function(_) => {
                serializer.serialize_str(&self.label())
            }
            Self::Class(class) => serializer.serialize_str(&class.to_string()),
            Self::Classes(classes) => classes.serialize(serializer),
            Self::Predicted(class) => serializer.serialize_str(&format!("predicted:{class}")),
            Self::Components(class) => serializer.serialize_str(&format!("components:{class}")),
            Self::Region { class, mask } => {
                let (shape, mask) = (mask.shape(), mask.iter().copied().collect());
                RegionOf { class, shape, mask }.serialize(serializer)
            }
        }
    }
}

/// Functions are equal by identity, all else by value.
impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Best, Self::Best) | (Self::All, Self::All) | (Self::Each, Self::Each) => true,
            (Self::Class(a), Self::Class(b))
            | (Self::Predicted(a), Self::Predicted(b))
            | (Self::Components(a), Self::Components(b)) => a == b,
            (Self::Classes(a), Self::Classes(b)) => a == b,
            (Self::Region { class: a, mask: m }, Self::Region { class: b, mask: n }) => {
                a == b && m == n
            }
            (Self::Function(a), Self::Function(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    /// `best`, `all`, `each`, a class index, `predicted:N` or `components:N`.
    fn from_str(text: &str) -> Result<Self> {
        let class = |class: &str| {
            class.parse().map_err(|_| {
                Error::usage(format!(
                    "label '{text}': expected best, all, each, N, predicted:N or components:N"
                ))
            })
        };
        match (text, text.split_once(':')) {
            ("best", _) => Ok(Self::Best),
            ("all", _) => Ok(Self::All),
            ("each", _) => Ok(Self::Each),
            (_, Some(("predicted", of))) => class(of).map(Self::Predicted),
            (_, Some(("components", of))) => class(of).map(Self::Components),
            _ => class(text).map(Self::Class),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("Best"),
            Self::Class(class) => f.debug_tuple("Class").field(class).finish(),
            Self::Classes(classes) => f.debug_tuple("Classes").field(classes).finish(),
            Self::All => f.write_str("All"),
            Self::Each => f.write_str("Each"),
            Self::Components(class) => f.debug_tuple("Components").field(class).finish(),
            Self::Predicted(class) => f.debug_tuple("Predicted").field(class).finish(),
            Self::Region { class, mask } => {
                f.debug_struct("Region").field("class", class).field("mask", &mask.shape()).finish()
            }
            Self::Function(_) => f.write_str("Function(..)"),
        }
    }
}

/// A score ready for backward.
#[derive(Debug)]
pub(crate) struct TargetScore {
    /// The sum of the scores of all samples. Its gradient holds the gradient of each sample's
    /// score, as no score depends on another sample's activation.
    pub sum: Tensor,
    /// The class of each sample, if the target selects one.
    pub classes: Vec<Option<usize>>,
    /// Samples whose score sums over no voxel.
    pub empty: Vec<usize>,
}

impl TargetScore {
    /// `y` is the tensor from which the score is taken. `logits` are the scores before a final
    /// activation, or the same tensor if there is none. Both are `(B, K)` or `(B, K, [D,] H, W)`.
    pub(crate) fn of(target: &Target, task: Task, y: &Tensor, logits: &Tensor) -> Result<Self> {
        let batch = extent(y, 0);
        let same = |class: usize| vec![class; batch];
        let scored = |sum: Tensor, classes: &[usize], empty| Self {
            sum,
            classes: classes.iter().copied().map(Some).collect(),
            empty,
        };
        match target {
            Target::Best => {
                let classes = best(task, logits)?;
                Ok(scored(channels(y, &classes)?.sum(Kind::Float), &classes, Vec::new()))
            }
            Target::Class(class) => {
                let classes = same(*class);
                Ok(scored(channels(y, &classes)?.sum(Kind::Float), &classes, Vec::new()))
            }
            Target::Classes(classes) => {
                if classes.len() != batch {
                    return Err(Error::input(
                        "target",
                        format!("{} classes for a batch of {batch}", classes.len()),
                    ));
                }
                Ok(scored(channels(y, classes)?.sum(Kind::Float), classes, Vec::new()))
            }
            Target::All => {
                Ok(Self { sum: y.sum(Kind::Float), classes: vec![None; batch], empty: Vec::new() })
            }
            Target::Predicted(class) => {
                let classes = same(*class);
                let chosen = channels(y, &classes)?;
                let predicted = predicted_as(*class, logits)?;
                let empty = empty_samples(&predicted)?;
                Ok(scored((chosen * predicted).sum(Kind::Float), &classes, empty))
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
                let empty = empty_samples(&mask)?;
                Ok(scored((chosen * mask).sum(Kind::Float), &classes, empty))
            }
            Target::Each | Target::Components(_) => {
                Err(Error::input("target", format!("{target:?} stands for several targets")))
            }
            Target::Function(function) => Ok(Self {
                sum: function(y).sum(Kind::Float),
                classes: vec![None; batch],
                empty: Vec::new(),
            }),
        }
    }
}

fn extent(tensor: &Tensor, axis: usize) -> usize {
    tensor.size().get(axis).and_then(|&n| usize::try_from(n).ok()).unwrap_or(0)
}

/// The channel `classes[b]` of each sample: `(B)` or `(B, [D,] H, W)`.
fn channels(y: &Tensor, classes: &[usize]) -> Result<Tensor> {
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
fn best(task: Task, logits: &Tensor) -> Result<Vec<usize>> {
    let classes = extent(logits, 1);
    if classes == 1 {
        return Ok(vec![0; extent(logits, 0)]);
    }
    let predicted = prediction(&logits.detach())?;
    (0..extent(logits, 0))
        .map(|sample| {
            let of_sample = in_libtorch("target", || {
                predicted.f_select(0, i64::try_from(sample).unwrap_or(i64::MAX))?.f_flatten(0, -1)
            })?;
            if task == Task::Classification {
                return Ok(usize::try_from(of_sample.int64_value(&[0])).unwrap_or(0));
            }
            let counts = in_libtorch("target", || {
                Vec::<i64>::try_from(
                    of_sample
                        .f_bincount::<Tensor>(None, i64::try_from(classes).unwrap_or(i64::MAX))?,
                )
            })?;
            // `rev` makes the first of equal classes win, as `max_by_key` returns the last. Class 0
            // is the background by convention.
            let foreground = (1..classes).rev().max_by_key(|&class| counts[class]);
            Ok(foreground.filter(|&class| counts[class] > 0).unwrap_or(0))
        })
        .collect()
}

/// The mask as `(B, [D,] H, W)` on the device of `chosen`.
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
    in_libtorch("target", || mask.f_to_device(chosen.device())?.f_expand(&grid, false))
}

fn empty_samples(weights: &Tensor) -> Result<Vec<usize>> {
    let any = in_libtorch("target", || {
        let nonzero = weights.f_ne(0)?;
        let batch = nonzero.size()[0];
        Vec::<bool>::try_from(nonzero.f_reshape([batch, -1])?.f_any_dim(1, false)?)
    })?;
    Ok(any.iter().enumerate().filter(|(_, any)| !**any).map(|(sample, _)| sample).collect())
}

//! The score that a map explains: its gradient is taken.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::ArrayD;
use serde::{Serialize, Serializer};
use tch::Tensor;

use crate::error::{Error, Result};

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

//! Converts masks, 0/1 or with one label per class, to 0/1.

use std::str::FromStr;

use ndarray::ArrayView3;
use serde::Serialize;

use crate::error::{Error, Result};

/// How the values of masks are read.
///
/// | | no class | class `k` |
/// |---|---|---|
/// | [`Binary`](Self::Binary) | 0/1 | 0/1; the class is only recorded, as in M3d-CAM |
/// | [`Labels`](Self::Labels) | an error | the voxels whose label is `k` |
/// | [`Detect`](Self::Detect) | 0/1 | the voxels whose label is `k`; an error if the mask is 0/1 and the class is not 1, which leaves the reading ambiguous |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Masks {
    /// Inferred from the values.
    #[default]
    Detect,
    /// 0 outside, 1 inside.
    Binary,
    /// The label of a class at each voxel: whole numbers from 0 on.
    Labels,
}

/// `detect`, `binary` or `labels`.
impl FromStr for Masks {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "detect" => Ok(Self::Detect),
            "binary" => Ok(Self::Binary),
            "labels" => Ok(Self::Labels),
            _ => Err(Error::usage(format!(
                "mask values '{text}': expected detect, binary or labels"
            ))),
        }
    }
}

/// The greatest label: above it, f32 does not represent every whole number.
const MOST_LABELS: f32 = (1 << 24) as f32;

impl Masks {
    /// The warning for a mask without voxels of the class, or without any; `None` if it has some.
    pub(crate) fn emptiness(
        self,
        mask: ArrayView3<'_, f32>,
        class: Option<usize>,
    ) -> Option<String> {
        let class = class.filter(|_| self != Self::Binary);
        let inside = class.unwrap_or(1) as f32;
        (!mask.iter().any(|&value| value == inside))
            .then(|| class.map_or_else(|| "is empty".to_owned(), |k| format!("has no class {k}")))
    }

    /// The voxels of `class`, or of a binary mask: 1 inside and 0 outside, in the order of the
    /// voxels.
    pub(super) fn select(self, mask: ArrayView3<'_, f32>, class: Option<usize>) -> Result<Vec<u8>> {
        let refuse = |what: String| Err(Error::input("evaluate", format!("mask: {what}")));
        let all = mask.len();
        if mask.is_empty() {
            return refuse(format!("shape {:?} has no voxels", mask.shape()));
        }
        let bad = mask.iter().filter(|value| !value.is_finite()).count();
        if bad > 0 {
            return refuse(format!("{bad} of the {all} voxels are not finite"));
        }
        let odd = |fits: &dyn Fn(f32) -> bool| {
            let first = mask.indexed_iter().find(|&(_, &value)| !fits(value));
            first.map(|((d, h, w), value)| {
                let count = mask.iter().filter(|&&value| !fits(value)).count();
                format!("{count} of the {all} voxels, the first is {value} at [{d}, {h}, {w}]")
            })
        };
        let not_binary = odd(&|value| value == 0.0 || value == 1.0);
        let Some(class) = class.filter(|_| self != Self::Binary) else {
            return match not_binary {
                _ if self == Self::Labels => refuse("labels need a class to be chosen".to_owned()),
                Some(which) => refuse(format!(
                    "neither 0 nor 1 at {which}; make it 0/1, or choose a class of a mask of labels"
                )),
                None => Ok(mask.iter().map(|&value| u8::from(value == 1.0)).collect()),
            };
        };
        if let Some(which) =
            odd(&|value| value.fract() == 0.0 && (0.0..=MOST_LABELS).contains(&value))
        {
            return refuse(format!("no label at {which}; labels are whole numbers from 0 on"));
        }
        let open = self == Self::Detect && not_binary.is_none() && class != 1;
        if open && mask.iter().any(|&value| value == 1.0) {
            return refuse(format!(
                "it has only 0 and 1, and class {class} is evaluated: is this the mask of that \
                 class (masks: binary), or are its voxels those of class 1 (masks: labels)? Say which"
            ));
        }
        Ok(mask.iter().map(|&value| u8::from(f64::from(value) == class as f64)).collect())
    }
}

//! Selects the explained tensor of a model that returns several.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Selects the explained tensor of a model that returns several.
///
/// Nested tuples, lists and dicts are traversed depth first. A tensor's number counts all leaves
/// from 0, also those that are no tensors. Its name joins the keys of dicts, the fields of named
/// tuples and the positions in other sequences by dots:
///
/// | returned | outputs |
/// |---|---|
/// | `y` | 0 |
/// | `(y, z)` or `[y, z]` (deep supervision) | 0, 1 |
/// | `{"out": y, "aux": z}` (torchvision) | 0 or `out`, 1 or `aux` |
/// | `[[y, z], w]` | 0 or `0.0`, 1 or `0.1`, 2 |
///
/// # Example
///
/// ```
/// use medcam::Output;
///
/// assert_eq!("1".parse::<Output>()?, Output::Index(1));
/// assert_eq!("aux".parse::<Output>()?, Output::Name("aux".into()));
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Output {
    /// The first tensor.
    #[default]
    First,
    /// The tensor with this number.
    Index(usize),
    /// The tensor with this name.
    Name(String),
}

impl FromStr for Output {
    type Err = Error;

    /// A number, or else a name.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::usage("output '': expected the number or the name of an output"));
        }
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Index))
    }
}

//! Models that return several tensors: which of them is explained.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Which tensor is explained, of a model that returns several.
///
/// Tuples, lists and dicts, nested at will, are gone through depth first. A tensor's number counts
/// from 0, and counts what is no tensor too. Its name is made of the keys of dicts, the fields of named
/// tuples, and the places in unnamed ones, joined by dots:
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
    /// The one with this number.
    Index(usize),
    /// The one with this name.
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

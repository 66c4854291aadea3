//! Checks of arguments that several ops share.

use std::fmt;

use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

/// Refuses an argument whose number of values is not `expected`, which is that of the axes `axes` of
/// `of`: a shape, a grid or a batch.
pub fn check_length(
    operation: &str,
    argument: &str,
    given: usize,
    (expected, axes): (usize, &str),
    of: impl fmt::Display,
) -> Result<()> {
    if given == expected {
        return Ok(());
    }
    Err(Error::input(
        operation,
        format!("{argument}: {of} takes {expected} values ({axes}), it has {given}"),
    ))
}

/// Refuses an argument that does not have one value for each sample.
pub fn check_samples(operation: &str, argument: &str, given: usize, batch: usize) -> Result<()> {
    check_length(operation, argument, given, (batch, "B"), format_args!("a batch of {batch}"))
}

/// Refuses a gradient whose shape or layout is not that of the activation.
pub fn check_same_form(
    operation: &str,
    (shape, layout): (Shape, Layout),
    gradient: (Shape, Layout),
) -> Result<()> {
    if gradient.0 != shape {
        return Err(Error::input(
            operation,
            format!("gradient: its shape {} is not that of the activation, {shape}", gradient.0),
        ));
    }
    if gradient.1 != layout {
        return Err(Error::input(
            operation,
            format!(
                "gradient: its layout is {:?}, that of the activation {layout:?}; lay one out as \
                 the other",
                gradient.1
            ),
        ));
    }
    Ok(())
}

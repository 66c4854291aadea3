//! What launchers share: the arguments that they refuse, and the grids of blocks that they take.

use crate::device::{Launch, Stream};
use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

/// What a thread reads or writes at once, at most.
pub(super) const PACK_BYTES: usize = 16;

/// Whether the channels of a voxel are read side by side: one channel lies as a row, whatever the
/// layout, and one voxel as a column.
pub(super) fn is_columns(shape: Shape, layout: Layout) -> bool {
    shape.channels > 1 && (layout == Layout::ChannelsLast || shape.voxels() == 1)
}

/// Blocks, or a part of them, as a kernel takes their number.
///
/// # Errors
///
/// If that is more than a grid has; `argument` is what it is too many for.
pub(super) fn blocks_of(
    operation: &str,
    argument: &str,
    shape: Shape,
    blocks: usize,
) -> Result<i32> {
    i32::try_from(blocks).map_err(|_| {
        Error::input(
            operation,
            format!("{argument}: {shape} takes more blocks than a grid has; part the tensor"),
        )
    })
}

/// A launch of so many blocks side by side.
pub(super) fn launch_of(blocks: i32, block_threads: u32) -> Launch {
    Launch { grid: [blocks.cast_unsigned(), 1, 1], block_threads, shared_bytes: 0 }
}

/// Refuses an argument whose length is not what the shape says.
pub(super) fn check_length(
    operation: &str,
    argument: &str,
    shape: Shape,
    expected: (usize, &str),
    given: usize,
) -> Result<()> {
    let (expected, axes) = expected;
    if given == expected {
        return Ok(());
    }
    Err(Error::input(
        operation,
        format!("{argument}: a tensor {shape} takes {expected} ({axes}) values, it has {given}"),
    ))
}

/// Refuses memory that is not on the device of the stream.
pub(super) fn check_devices(
    operation: &str,
    stream: &Stream,
    arguments: &[(&str, usize)],
) -> Result<()> {
    let own = stream.gpu().ordinal();
    match arguments.iter().find(|(_, ordinal)| *ordinal != own) {
        Some((argument, ordinal)) => Err(Error::input(
            operation,
            format!(
                "{argument}: on device {ordinal}, and the stream is on device {own}; take a stream of \
                 that device, or copy it over"
            ),
        )),
        None => Ok(()),
    }
}

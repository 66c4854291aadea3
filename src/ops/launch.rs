//! What launchers share: sizes of launches, and the check of devices.

use crate::device::{Argument, Launch, Stream};
use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

/// The widest access of a thread.
pub const PACK_BYTES: usize = 16;

/// 32-bit registers of a multiprocessor, on every architecture since sm_30.
const REGISTERS: u32 = 65_536;

/// The registers of a thread with which `resident_blocks` blocks fit a multiprocessor: the budget of
/// a kernel whose launch bounds say so. The hardware gives a warp registers in steps of 8 a thread.
pub const fn registers_for(resident_blocks: u32, block_threads: u32) -> u32 {
    REGISTERS / (resident_blocks * block_threads) / 8 * 8
}

/// Whether a kernel reads the channels of a voxel side by side. A tensor of one channel is a row, and
/// one of a single voxel a column, whatever its layout says.
pub fn is_columns(shape: Shape, layout: Layout) -> bool {
    shape.channels > 1 && (layout == Layout::ChannelsLast || shape.voxels() == 1)
}

/// A number of blocks as kernels take it.
///
/// # Errors
///
/// If a grid cannot have that many; the message names `argument`, which needs them.
pub fn blocks_of(operation: &str, argument: &str, shape: Shape, blocks: usize) -> Result<i32> {
    i32::try_from(blocks).map_err(|_| {
        Error::input(
            operation,
            format!("{argument}: {shape} takes more blocks than a grid has; part the tensor"),
        )
    })
}

/// A launch of that many blocks along x.
pub fn launch_of(blocks: i32, block_threads: u32) -> Launch {
    Launch { grid: [blocks.cast_unsigned(), 1, 1], block_threads, shared_bytes: 0 }
}

/// Refuses memory that is not on the device of the stream, and names the argument.
pub fn check_devices(
    operation: &str,
    stream: &Stream,
    arguments: &[(&str, &dyn Argument)],
) -> Result<()> {
    let own = stream.gpu().ordinal();
    for (name, argument) in arguments {
        if let Some(other) = argument.ordinal().filter(|&ordinal| ordinal != own) {
            return Err(Error::input(
                operation,
                format!(
                    "{name}: on device {other}, and the stream is on device {own}; take a stream of \
                     that device, or copy it over"
                ),
            ));
        }
    }
    Ok(())
}

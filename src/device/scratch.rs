//! Device memory of the call under way, used again by the next.

use std::cell::RefCell;

use super::{Buffer, Gpu};
use crate::error::{Error, Result};

/// Every piece begins at a multiple of this, as every allocation of the driver does.
const ALIGNMENT: usize = 256;
/// The least that is asked of the driver at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Blocks that are handed out piece by piece, and all taken back at once.
#[derive(Default)]
pub(super) struct Scratch {
    blocks: RefCell<Vec<Block>>,
}

struct Block {
    memory: Buffer<u8>,
    used: usize,
}

impl Block {
    fn room(&self) -> usize {
        self.memory.len() - self.used
    }
}

impl Scratch {
    /// The address of `bytes` bytes that nobody else has until `release`.
    pub(super) fn take(&self, gpu: &'static Gpu, bytes: usize) -> Result<u64> {
        let bytes = bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(|| {
            Error::input("scratch", format!("len: {bytes} bytes are more than memory can be"))
        })?;
        let mut blocks = self.blocks.borrow_mut();
        let fitting = blocks.iter().enumerate().filter(|(_, block)| block.room() >= bytes);
        let index = match fitting.min_by_key(|(_, block)| block.room()) {
            Some((index, _)) => index,
            None => {
                // What is too small for a call that has grown makes way. As only smaller blocks go,
                // calls that come again end up allocating nothing, in whatever order they come.
                blocks.retain(|block| block.used > 0);
                let memory = Buffer::new(gpu, bytes.max(BLOCK_BYTES))?;
                blocks.push(Block { memory, used: 0 });
                blocks.len() - 1
            }
        };
        let block = &mut blocks[index];
        let pointer = block.memory.slice().pointer() + block.used as u64;
        block.used += bytes;
        Ok(pointer)
    }

    /// Everything is free again; the memory is kept.
    pub(super) fn release(&mut self) {
        for block in self.blocks.get_mut() {
            block.used = 0;
        }
    }
}

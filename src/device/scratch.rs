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

impl Scratch {
    /// The address of `bytes` bytes that nobody else has until `release`.
    pub(super) fn take(&self, gpu: &'static Gpu, bytes: usize) -> Result<u64> {
        let bytes = bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(|| {
            Error::input("scratch", format!("len: {bytes} bytes are more than memory can be"))
        })?;
        let mut blocks = self.blocks.borrow_mut();
        let free = blocks.iter().position(|block| block.memory.len() - block.used >= bytes);
        let index = match free {
            Some(index) => index,
            None => {
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

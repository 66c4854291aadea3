//! Scratch memory: a call takes it piece by piece, and the next call reuses it.

use std::cell::RefCell;

use super::Buffer;
use crate::error::{Error, Result};

/// Every piece begins at a multiple of this, as every allocation does.
const ALIGNMENT: usize = 256;
/// Bytes of the smallest block.
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
    /// The address of `bytes` bytes that nobody else has until `release`; `allocate` gives new memory.
    pub(super) fn take(
        &self,
        bytes: usize,
        allocate: impl FnOnce(usize) -> Result<Buffer<u8>>,
    ) -> Result<u64> {
        let bytes = bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(|| {
            Error::input("scratch", format!("len: {bytes} bytes are more than memory can be"))
        })?;
        let mut blocks = self.blocks.borrow_mut();
        let fitting = blocks.iter().enumerate().filter(|(_, block)| block.room() >= bytes);
        let index = match fitting.min_by_key(|(_, block)| block.room()) {
            Some((index, _)) => index,
            None => {
                // Blocks that are not in use are too small for this call: free them. Only smaller blocks
                // are ever replaced, so calls that repeat, in any order, end up allocating nothing.
                blocks.retain(|block| block.used > 0);
                let memory = allocate(bytes.max(BLOCK_BYTES))?;
                blocks.push(Block { memory, used: 0 });
                blocks.len() - 1
            }
        };
        let block = &mut blocks[index];
        let pointer = block.memory.slice().pointer() + block.used as u64;
        block.used += bytes;
        Ok(pointer)
    }

    /// Ends a call: all pieces are free again. The blocks are kept.
    pub(super) fn release(&mut self) {
        for block in self.blocks.get_mut() {
            block.used = 0;
        }
    }
}

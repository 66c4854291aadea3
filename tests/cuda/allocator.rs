//! Buffers and scratch come from the allocator of their stream, and go back to it.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use medcam::device::{Allocator, DriverAllocator, Slice};

use crate::common::gpu;

/// The driver's allocator with a list of the memory in use; refuses more than `limit` bytes at once.
struct Listing {
    in_use: Mutex<BTreeMap<u64, usize>>,
    limit: usize,
}

impl Listing {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { in_use: Mutex::default(), limit })
    }

    fn count(&self) -> usize {
        self.in_use.lock().unwrap().len()
    }

    /// Whether the whole slice lies in memory that is in use.
    fn holds(&self, slice: Slice<u8>) -> bool {
        let in_use = self.in_use.lock().unwrap();
        let before = in_use.range(..=slice.pointer()).next_back();
        before.is_some_and(|(pointer, bytes)| {
            slice.pointer() + slice.len() as u64 <= pointer + *bytes as u64
        })
    }
}

// SAFETY: the driver's memory.
unsafe impl Allocator for Listing {
    fn allocate(
        &self,
        bytes: usize,
        stream: *mut c_void,
    ) -> Result<u64, Box<dyn Error + Send + Sync>> {
        if bytes > self.limit {
            return Err("the pool is empty".into());
        }
        let pointer = DriverAllocator.allocate(bytes, stream)?;
        assert_eq!(self.in_use.lock().unwrap().insert(pointer, bytes), None);
        Ok(pointer)
    }

    unsafe fn free(&self, pointer: u64, bytes: usize) {
        assert_eq!(self.in_use.lock().unwrap().remove(&pointer), Some(bytes));
        // SAFETY: as the caller promises.
        unsafe { DriverAllocator.free(pointer, bytes) };
    }
}

#[test]
fn small_memory_comes_from_the_allocator_and_goes_back() {
    let Some(stream) = gpu() else { return };
    let allocator = Listing::new(usize::MAX);
    let mut stream = stream.with_allocator(allocator.clone());
    let values: Vec<u8> = (0..200).collect();
    let buffer = stream.upload(&values).unwrap();
    assert!(allocator.holds(buffer.slice()));
    assert_eq!(stream.download(buffer.slice()).unwrap(), values);
    let scratch = stream.scratch::<u8>(1000).unwrap();
    assert!(allocator.holds(scratch.as_slice()));
    assert_eq!(allocator.count(), 2);
    assert_eq!(stream.download(stream.counters(3).unwrap().as_slice()).unwrap(), [0; 3]);
    assert_eq!(allocator.count(), 3);
    // An empty buffer takes no memory, and the next call reuses the scratch of the last.
    drop(stream.allocate::<f32>(0).unwrap());
    stream.release_scratch();
    stream.scratch::<u8>(1000).unwrap();
    assert_eq!(allocator.count(), 3);
    // A buffer may outlive its stream.
    drop(stream);
    assert_eq!(allocator.count(), 1);
    drop(buffer);
    assert_eq!(allocator.count(), 0);
}

#[test]
fn what_the_allocator_refuses_is_an_error_with_its_words() {
    let Some(stream) = gpu() else { return };
    let stream = stream.with_allocator(Listing::new(1000));
    stream.allocate::<u8>(1000).unwrap();
    let error = stream.allocate::<u8>(1001).unwrap_err();
    assert!(error.is_device(), "{error}");
    assert!(error.to_string().starts_with("1001 bytes of memory on "), "{error}");
    assert!(error.to_string().ends_with(": the pool is empty"), "{error}");
    // Bytes of the smallest block of scratch.
    let error = stream.scratch::<u8>(1).unwrap_err();
    assert!(error.to_string().starts_with("1048576 bytes of memory on "), "{error}");
}

//! What is kept between calls.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use super::{Place, Tensor, TensorMut};
use crate::device::{Allocator, Gpu, Stream};
use crate::error::{Error, Result};

/// What calls on one device keep: compiled kernels (with the device), the stream and scratch memory.
///
/// It can be sent to another thread, and be used by one at a time.
pub struct Workspace {
    place: Place,
    stream: Option<Stream>,
    allocator: Option<Arc<dyn Allocator>>,
}

impl Workspace {
    /// Nothing is kept yet.
    ///
    /// # Errors
    ///
    /// If the device is not there, or its driver or NVRTC:
    /// [`is_unavailable`](crate::Error::is_unavailable).
    pub fn new(place: Place) -> Result<Self> {
        if let Place::Cuda(ordinal) = place {
            Gpu::get(ordinal)?;
        }
        Ok(Self { place, stream: None, allocator: None })
    }

    /// Scratch memory on the device comes from `allocator` from now on, instead of from the driver.
    /// What there is goes back.
    pub fn set_allocator(&mut self, allocator: Arc<dyn Allocator>) {
        self.stream = None;
        self.allocator = Some(allocator);
    }

    /// Work on the caller's stream; on the CPU that is ignored. A stream other than the last gives
    /// the scratch memory back.
    ///
    /// # Errors
    ///
    /// If the device is not there.
    ///
    /// # Safety
    ///
    /// On a device, `stream` is one of its primary context (null is the default stream), on which the
    /// tensors of the calls are ready, and which is not destroyed before another is given or this is
    /// dropped.
    pub unsafe fn on(&mut self, stream: *mut c_void) -> Result<Work<'_>> {
        let Self { place, stream: kept, allocator } = self;
        let Place::Cuda(ordinal) = *place else {
            return Ok(Work { place: *place, stream: None });
        };
        if kept.as_ref().is_none_or(|kept| kept.handle() != stream) {
            *kept = None;
            // SAFETY: by the caller's word.
            let of_caller = unsafe { Stream::from_raw(Gpu::get(ordinal)?, stream) };
            *kept = Some(match allocator {
                Some(allocator) => of_caller.with_allocator(Arc::clone(allocator)),
                None => of_caller,
            });
        }
        Ok(Work { place: *place, stream: kept.as_mut() })
    }

    /// Where it works.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workspace on {:?}", self.place)
    }
}

/// The ops, on one stream of a device or on the CPU.
#[derive(Debug)]
pub struct Work<'a> {
    pub(super) place: Place,
    /// None on the CPU.
    pub(super) stream: Option<&'a mut Stream>,
}

impl Work<'_> {
    /// Refuses tensors that are elsewhere, and outputs in the memory of another tensor.
    pub(super) fn check(&self, inputs: &[&Tensor], outputs: &[&TensorMut]) -> Result<()> {
        let all = inputs.iter().copied().chain(outputs.iter().map(|output| output.tensor()));
        for tensor in all.clone() {
            if tensor.place() != self.place {
                let (own, other) = (self.place, tensor.place());
                return Err(Error::input(
                    tensor.name(),
                    format!("on {other:?}, and the call works on {own:?}; copy it over"),
                ));
            }
        }
        for (i, output) in outputs.iter().enumerate() {
            let place = inputs.len() + i;
            let others = all.clone().enumerate().filter(|&(other, _)| other != place);
            if let Some((_, other)) = { others }.find(|(_, other)| output.tensor().overlaps(other))
            {
                return Err(output.tensor().refuse(&format!(
                    "it shares memory with {}; give it memory of its own",
                    other.name()
                )));
            }
        }
        Ok(())
    }
}

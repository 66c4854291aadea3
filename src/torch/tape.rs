//! What one run of a network records.

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use tch::Tensor;

use super::{backward_error, ffi};
use crate::error::{Error, Result};

/// What one run of a network records: the activations that were asked for, and the tensor that the
/// score is taken from.
///
/// Networks written in Rust pass the output of each of their layers through [`Tape::tap`]; for
/// TorchScript models the rewritten graph does so. Everything up to the first layer that was asked
/// for runs without autograd; from there on the tape runs. See [`Network`](crate::Network).
#[derive(Debug)]
pub struct Tape {
    raw: NonNull<ffi::mc_tape>,
    wishes: usize,
}

// SAFETY: a tape may be used from any one thread at a time: between calls the shim keeps nothing of it in
// thread-local state, and the reference counts of libtorch are atomic. Tensors of its forward may be in use in
// another thread at the same time. A backward there reaches three parts of the tape: the `Receiver`, which locks;
// the flag of the guided rule, which is atomic; and the gates, which nobody changes once they are made, and whose
// rule is `Send + Sync` (`guide_relus_by`).
unsafe impl Send for Tape {}

/// One run of a layer, as the tape saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub name: String,
    pub sizes: Vec<i64>,
    pub is_floating_point: bool,
}

impl Tape {
    /// A tape that asks for nothing and only notes what runs.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: takes nothing; the result is ours until `drop`.
        let raw = unsafe { ffi::mc_tape_new() };
        let raw = NonNull::new(raw).ok_or_else(|| Error::model("tape: out of memory"))?;
        Ok(Self { raw, wishes: 0 })
    }

    /// Asks for the activation of the `run`-th run (from 1) of a layer, or of its last; returns the
    /// wish's number.
    pub(crate) fn want(&mut self, name: &str, run: Option<usize>) -> Result<usize> {
        let text = c_string(name)?;
        let run = run.map_or(0, |run| i64::try_from(run).unwrap_or(i64::MAX));
        // SAFETY: the tape is alive, `text` is NUL-terminated and outlives the call.
        ffi::checked(|error| unsafe {
            ffi::mc_tape_want(self.raw.as_ptr(), text.as_ptr(), run, error)
        })
        .map_err(Error::model)?;
        self.wishes += 1;
        Ok(self.wishes - 1)
    }

    /// Passes the output of the layer `name` through the tape. The network must go on with what
    /// comes back, not with `output`.
    ///
    /// Names are dotted paths, as PyTorch names submodules. A layer that runs more than once may be
    /// tapped under the same name each time.
    ///
    /// # Errors
    ///
    /// If the name holds a NUL byte, or if this run was asked for and `output` is not floating
    /// point.
    pub fn tap(&mut self, name: &str, output: &Tensor) -> Result<Tensor> {
        let text = c_string(name)?;
        let mut tapped = std::ptr::null_mut();
        // SAFETY: the tape and the tensor are alive, `text` is NUL-terminated, and all outlive the
        // call; a torch-sys tensor pointer is the at::Tensor that the shim expects.
        ffi::checked(|error| unsafe {
            ffi::mc_tape_tap(
                self.raw.as_ptr(),
                text.as_ptr(),
                output.as_ptr().cast(),
                &raw mut tapped,
                error,
            )
        })
        .map_err(|message| Error::layer(format!("layer '{name}': {message}")))?;
        // SAFETY: on success the shim hands out a tensor that is ours.
        Ok(unsafe { own(tapped) })
    }

    /// Notes that the score is taken from `logits` rather than from the network's output: for a
    /// network that ends in a softmax or sigmoid. The network must go on with what comes back.
    ///
    /// # Errors
    ///
    /// If libtorch cannot copy the tensor.
    pub fn logits(&mut self, logits: &Tensor) -> Result<Tensor> {
        let mut noted = std::ptr::null_mut();
        // SAFETY: as in `tap`.
        ffi::checked(|error| unsafe {
            ffi::mc_tape_score(self.raw.as_ptr(), logits.as_ptr().cast(), &raw mut noted, error)
        })
        .map_err(Error::model)?;
        // SAFETY: on success the shim hands out a tensor that is ours.
        Ok(unsafe { own(noted) })
    }

    /// Whether the run of the layer that a wish asked for happened.
    pub(crate) fn recorded(&self, wish: usize) -> bool {
        // SAFETY: the tape is alive; an index out of range gives false.
        unsafe { ffi::mc_tape_recorded(self.raw.as_ptr(), wish) }
    }

    /// The first wish that recorded the same tensor as this one: a module often returns what its
    /// last child returned.
    pub(crate) fn same(&self, wish: usize) -> usize {
        if !self.recorded(wish) {
            return wish;
        }
        // SAFETY: the tape is alive and, as the wish was recorded, it has that many.
        unsafe { ffi::mc_tape_same(self.raw.as_ptr(), wish) }
    }

    /// Runs autograd from `score` back to the recorded activations and hands each, with its
    /// gradient, to `each(wish, activation, gradient)` as soon as that is there: once per tensor,
    /// by its first wish ([`Tape::same`]). What no gradient reaches is not handed out.
    ///
    /// `start` is the input, where the tape started there. Without `keep` nothing is kept that is
    /// not needed any more: the tape is used up.
    pub(crate) fn backward<F>(
        &mut self,
        score: &Tensor,
        start: Option<&Tensor>,
        keep: bool,
        mut each: F,
    ) -> Result<()>
    where
        F: FnMut(usize, &Tensor, &Tensor) + Send,
    {
        let start = start.map_or(std::ptr::null(), |start| start.as_ptr().cast());
        // SAFETY: tape and tensors are alive for the call; `hand_out::<F>` gets back the `each` that it is made
        // for. Autograd calls it from threads of its own, hence Send; the shim's `Receiver` locks, so that two
        // never call at once, and none calls once `mc_tape_backward` has returned, even if it failed while the
        // thread of another device went on.
        ffi::checked(|error| unsafe {
            ffi::mc_tape_backward(
                self.raw.as_ptr(),
                score.as_ptr().cast(),
                start,
                keep,
                Some(hand_out::<F>),
                (&raw mut each).cast(),
                error,
            )
        })
        .map_err(|message| backward_error(&message))
    }

    /// The tensor noted as the one that the score is taken from.
    pub(crate) fn noted_logits(&self) -> Option<Tensor> {
        // SAFETY: the tape is alive; what is not NULL is ours.
        unsafe {
            let tensor = ffi::mc_tape_noted_score(self.raw.as_ptr());
            (!tensor.is_null()).then(|| own(tensor))
        }
    }

    /// The runs of layers so far, in the order in which they ended.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        // SAFETY: the tape is alive and not changed while `self` is borrowed; indices are below the
        // count; name and sizes are copied before the tape can change.
        unsafe {
            (0..ffi::mc_tape_seen_count(self.raw.as_ptr()))
                .map(|index| {
                    let seen = ffi::mc_tape_seen(self.raw.as_ptr(), index);
                    let sizes = if seen.rank == 0 {
                        Vec::new()
                    } else {
                        std::slice::from_raw_parts(seen.sizes, seen.rank).to_vec()
                    };
                    let name = CStr::from_ptr(seen.name).to_string_lossy().into_owned();
                    Seen { name, sizes, is_floating_point: seen.is_floating_point }
                })
                .collect()
        }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::mc_tape {
        self.raw.as_ptr()
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        // SAFETY: made by mc_tape_new and freed once, here. A graph that still runs holds a
        // reference of its own to what the tape records.
        unsafe { ffi::mc_tape_free(self.raw.as_ptr()) }
    }
}

/// Hands an activation and its gradient to the closure behind `context`.
///
/// # Safety
///
/// `context` is an `F` that nobody else uses during the call, and the tensors are alive.
unsafe extern "C" fn hand_out<F: FnMut(usize, &Tensor, &Tensor)>(
    context: *mut c_void,
    wish: usize,
    activation: *const ffi::mc_tensor,
    gradient: *const ffi::mc_tensor,
) {
    // SAFETY: by the caller's word; cloning shares the tensor and leaves the original as it is.
    unsafe {
        let each = &mut *context.cast::<F>();
        let activation = Tensor::clone_from_ptr(activation.cast_mut().cast());
        let gradient = Tensor::clone_from_ptr(gradient.cast_mut().cast());
        each(wish, &activation, &gradient);
    }
}

fn c_string(name: &str) -> Result<CString> {
    CString::new(name)
        .map_err(|_| Error::layer(format!("layer '{}': NUL in a name", name.escape_debug())))
}

/// Takes over a tensor that the shim handed out.
///
/// # Safety
///
/// `tensor` is a valid tensor of the shim's that nobody else frees.
pub(super) unsafe fn own(tensor: *mut ffi::mc_tensor) -> Tensor {
    // SAFETY: by the caller's word; the shim's tensors and torch-sys's are the same C++ type, and
    // both are freed with `delete`.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

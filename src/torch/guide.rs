//! Guided backpropagation: activations that let through only what speaks for the score.

use std::ffi::{CString, c_char, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use serde::Serialize;
use tch::Tensor;

use super::ffi;
use super::tape::{Tape, own};
use crate::error::{Error, Result};

/// Which activations guided backpropagation guides.
///
/// Backward through a guided activation `y = f(x)` is
///
/// `g_in = g_out · f'(x)` where `g_out > 0` and `x > 0`, else 0,
///
/// which for ReLU is the rule of Springenberg et al. 2014
/// ([arXiv 1412.6806](https://arxiv.org/abs/1412.6806), section 3.4). Forward is not changed.
///
/// ```
/// use medcam::Guide;
///
/// assert_eq!("all".parse::<Guide>()?, Guide::All);
/// assert_eq!(Guide::default(), Guide::Relu);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Guide {
    /// ReLU, as a module or a function, in place or not; ReLU6; and clamp, hardtanh and threshold
    /// where they cut off at 0.
    #[default]
    Relu,
    /// LeakyReLU, PReLU, RReLU, ELU, SELU, CELU, SiLU, GELU, Mish and Hardswish too, each with its
    /// own derivative.
    All,
}

impl fmt::Display for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relu => "relu",
            Self::All => "all",
        })
    }
}

impl FromStr for Guide {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "relu" => Ok(Self::Relu),
            "all" => Ok(Self::All),
            _ => Err(Error::usage(format!("guide '{text}': expected relu or all"))),
        }
    }
}

impl Tape {
    /// Has the forward to come run with activations that can be guided.
    ///
    /// It must run with autograd on, from an input that requires grad (a copy of a leaf: networks may
    /// write to their input). What does not come from such a one is not guided.
    pub(crate) fn guide(&mut self, guide: Guide) {
        let guide = match guide {
            Guide::Relu => ffi::mc_guide_MC_GUIDE_RELU,
            Guide::All => ffi::mc_guide_MC_GUIDE_ALL,
        };
        // SAFETY: the tape is alive and exclusively ours.
        unsafe { ffi::mc_tape_guide(self.as_ptr(), guide) }
    }

    /// Whether backwards to come through the forward of this tape take the guided rule; at first
    /// they take the true derivative.
    pub(crate) fn set_guided(&self, guided: bool) {
        // SAFETY: the tape is alive; what is set is atomic.
        unsafe { ffi::mc_tape_set_guided(self.as_ptr(), guided) }
    }

    /// How many activations of the forward can be guided.
    pub(crate) fn guided_activations(&self) -> usize {
        // SAFETY: the tape is alive and not changed while `self` is borrowed.
        unsafe { ffi::mc_tape_guided_activations(self.as_ptr()) }
    }

    /// Has the ReLUs of the forward to come guided by a rule of the caller's, such as a kernel of its own.
    ///
    /// `rule(gradient, output)` gives the part of a gradient that passes: 0 where the gradient or the output of
    /// the ReLU, which is positive where its input is, is not positive. It is called in backward, by several
    /// threads at once where the network is on several devices. An error or a panic of the rule is an error of
    /// backward. Clamps keep the shim's own rule, and so does a ReLU whose output the network overwrites.
    #[cfg_attr(not(test), expect(dead_code, reason = "for a kernel that guides on a GPU"))]
    pub(crate) fn guide_relus_by<R>(&mut self, rule: R) -> Result<()>
    where
        R: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        let context = Box::into_raw(Box::new(rule)).cast::<c_void>();
        // SAFETY: the tape is alive and exclusively ours. The shim owns `context`, an `R`, from here on: it hands
        // it to `pass::<R>`, from any thread (R: Send + Sync), until it drops it once with `drop_rule::<R>`,
        // which may be after the tape is gone (R: 'static).
        ffi::checked(|error| unsafe {
            let (pass, drop) = (Some(pass::<R> as _), Some(drop_rule::<R> as _));
            ffi::mc_tape_gate(self.as_ptr(), pass, context, drop, error)
        })
        .map_err(Error::model)
    }

    /// ReLU that guided backpropagation can guide; without it, `x.relu()`.
    ///
    /// A network written in Rust is guided where it calls this. In TorchScript models the rewritten
    /// graph does it.
    ///
    /// # Errors
    ///
    /// If libtorch cannot allocate the result.
    ///
    /// # Example
    ///
    /// ```
    /// use medcam::{Network, Result, Tape};
    /// use tch::Tensor;
    /// use tch::nn::{self, Module};
    ///
    /// struct Net {
    ///     features: nn::Conv2D,
    ///     head: nn::Linear,
    /// }
    ///
    /// impl Network for Net {
    ///     fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
    ///         let x = tape.relu(&self.features.forward(input))?;
    ///         let x = tape.tap("features", &x)?;
    ///         Ok(self.head.forward(&x.mean_dim([2_i64, 3].as_slice(), false, None)))
    ///     }
    /// }
    /// ```
    pub fn relu(&mut self, x: &Tensor) -> Result<Tensor> {
        let mut y = std::ptr::null_mut();
        // SAFETY: tape and tensor are alive for the call; a torch-sys tensor pointer is the at::Tensor
        // that the shim expects.
        ffi::checked(|error| unsafe {
            ffi::mc_tape_relu(self.as_ptr(), x.as_ptr().cast(), &raw mut y, error)
        })
        .map_err(Error::model)?;
        // SAFETY: on success the shim hands out a tensor that is ours.
        Ok(unsafe { own(y) })
    }
}

/// Whether the shim's table of operators calls one a ReLU where its numbers say so.
pub(super) fn is_like_relu(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: `name` is NUL-terminated and outlives the call.
    unsafe { ffi::mc_operator_is_like_relu(name.as_ptr()) }
}

/// Applies the rule behind `context`; its error or panic becomes a message.
///
/// # Safety
///
/// `context` is a live `R`, the tensors are alive, and what `passed` and `error` point to can be written.
unsafe extern "C" fn pass<R: Fn(&Tensor, &Tensor) -> Result<Tensor> + Sync>(
    context: *mut c_void,
    gradient: *const ffi::mc_tensor,
    output: *const ffi::mc_tensor,
    passed: *mut *mut ffi::mc_tensor,
    error: *mut *mut c_char,
) -> bool {
    // SAFETY: by the caller's word; cloning shares a tensor and leaves the original as it is.
    let apply = || unsafe {
        let rule = &*context.cast::<R>().cast_const();
        let gradient = Tensor::clone_from_ptr(gradient.cast_mut().cast());
        let output = Tensor::clone_from_ptr(output.cast_mut().cast());
        rule(&gradient, &output)
    };
    // What a panic left half done is the rule's own; nothing of the shim's is.
    let message = match catch_unwind(AssertUnwindSafe(apply)) {
        Ok(Ok(tensor)) => {
            // The shim frees it.
            let tensor = ManuallyDrop::new(tensor);
            // SAFETY: by the caller's word.
            unsafe { *passed = tensor.as_ptr().cast_mut().cast() };
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the rule panicked".to_owned(),
    };
    let message = CString::new(message.replace('\0', "")).unwrap_or_default();
    // SAFETY: by the caller's word; `message` is NUL-terminated, and the shim copies it.
    unsafe { *error = ffi::mc_string_copy(message.as_ptr()) };
    false
}

/// # Safety
///
/// `context` is an `R` from `Box::into_raw` that nobody uses any more.
unsafe extern "C" fn drop_rule<R>(context: *mut c_void) {
    // SAFETY: by the caller's word.
    let rule = unsafe { Box::from_raw(context.cast::<R>()) };
    // A panic must not reach the shim.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(rule)));
}

#[cfg(test)]
mod tests;

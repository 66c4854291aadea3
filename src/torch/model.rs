//! A TorchScript model.

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use tch::{Kind, Tensor};

use super::device::Device;
use super::network::{Facts, Network, TrainingSteps};
use super::output::Output;
use super::precision::Precision;
use super::tape::{Tape, own};
use super::{check_input, failure, ffi};
use crate::error::{Error, Result};

/// A TorchScript model, in evaluation mode, on its device.
///
/// Its parameters do not require gradients; otherwise the model is as it was loaded.
pub struct Model {
    raw: NonNull<ffi::mc_module>,
    path: PathBuf,
    device: Device,
    facts: Facts,
}

// SAFETY: a TorchScript module may be used from any one thread at a time; the shim keeps no
// thread-local state between calls, and `Model` is not Sync.
unsafe impl Send for Model {}

// A caller may move a network and its tape to a thread of its own.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Model>();
    is_send::<Tape>();
};

/// Loads a TorchScript model, as `torch.jit.save` writes it, traced or scripted.
///
/// Of a model that returns several tensors the first is explained; [`Model::with_output`] chooses
/// another.
///
/// # Errors
///
/// [`Error::is_file`] if the file is missing or not TorchScript, [`Error::is_model`] if the model
/// takes more than one input, [`Error::is_unavailable`] if the device is not there.
///
/// # Example
///
/// ```no_run
/// use medcam::{Device, Options};
///
/// let model = medcam::load("bbox_model.pt", Device::best())?;
/// let mut model = medcam::inject(model, Options::default().save_maps("attention_maps"))?;
/// # let batch = tch::Tensor::zeros([1, 1, 128, 128, 128], (tch::Kind::Float, tch::Device::Cpu));
/// let output = model.forward(&batch)?; // the model's own output, bit for bit; maps saved
/// let maps = model.attention_maps();
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn load(path: impl AsRef<Path>, device: Device) -> Result<Model> {
    let path = path.as_ref();
    let device = device.available()?;
    let size = std::fs::metadata(path).map_err(|error| {
        Error::file(path, format!("model cannot be opened: {error}")).because(error)
    })?;
    if size.is_dir() {
        return Err(Error::file(path, "model is a folder, not a TorchScript file"));
    }
    let text = path
        .to_str()
        .and_then(|text| CString::new(text).ok())
        .ok_or_else(|| Error::file(path, "model path is not UTF-8"))?;
    let mut raw = std::ptr::null_mut();
    // SAFETY: `text` is NUL-terminated and outlives the call; on success `raw` is a module of ours.
    ffi::checked(|error| unsafe {
        ffi::mc_module_load(text.as_ptr(), device.cuda_index(), &raw mut raw, error)
    })
    .map_err(|message| failure::at_load(path, &message))?;
    let raw = NonNull::new(raw).ok_or_else(|| Error::model("load: no module came back"))?;
    // SAFETY: `raw` was just made and nobody else uses it.
    let facts = unsafe { read_facts(raw) };
    Ok(Model { raw, path: path.to_owned(), device, facts })
}

/// # Safety
///
/// `raw` is a live module.
unsafe fn read_facts(raw: NonNull<ffi::mc_module>) -> Facts {
    // SAFETY: the module is alive by the caller's word; its strings live as long as it does and are
    // copied here; indices are below the counts.
    unsafe {
        let text = |pointer: *const c_char| CStr::from_ptr(pointer).to_string_lossy().into_owned();
        let facts = ffi::mc_module_facts(raw.as_ptr());
        let named = |pointer| Some(text(pointer)).filter(|name: &String| !name.is_empty());
        let known = |n: i64| usize::try_from(n).ok().filter(|&n| n > 0);
        let mut result = Facts {
            input_channels: known(facts.input_channels),
            input_rank: known(facts.input_rank),
            input_kind: match text(facts.input_type).as_str() {
                "Float" => Some(Kind::Float),
                "Half" => Some(Kind::Half),
                "BFloat16" => Some(Kind::BFloat16),
                "Double" => Some(Kind::Double),
                _ => None,
            },
            final_activation: named(facts.final_activation),
            named_device: named(facts.device),
            quantized: named(facts.quantized),
            bare_convolutions: facts.bare_convolutions,
            outputs: usize::try_from(facts.outputs).ok(),
            ..Facts::default()
        };
        for index in 0..facts.modules {
            result.registered.push(text(ffi::mc_module_name(raw.as_ptr(), index)));
        }
        // Facts of a layer that runs more than once are those of its last run, so a later tap
        // replaces an earlier one.
        for index in 0..facts.taps {
            let tap = ffi::mc_module_tap(raw.as_ptr(), index);
            let name = text(tap.name);
            for (set, member) in [
                (&mut result.unreached, !tap.reaches_score),
                (&mut result.after_score, tap.follows_score),
                (&mut result.redrawing, tap.redraws_score),
                (&mut result.cancelling, tap.weights_cancel),
                (&mut result.channels_last, tap.channels_last),
                (&mut result.products, tap.is_product),
                (&mut result.regridding, tap.regrids),
                (&mut result.patch_embeddings, tap.embeds_patches),
            ] {
                if member {
                    set.insert(name.clone());
                } else {
                    set.remove(&name);
                }
            }
            if let Ok(count) = usize::try_from(tap.sources) {
                let source = |i| text(ffi::mc_module_tap_source(raw.as_ptr(), index, i));
                result.sources.insert(text(tap.run), (0..count).map(source).collect());
            }
            result.layer_types.insert(name, text(tap.type_));
        }
        for index in 0..facts.untapped {
            let ffi::mc_untapped { name, returns } = ffi::mc_module_untapped(raw.as_ptr(), index);
            result.untapped.insert(text(name), text(returns));
        }
        for index in 0..facts.activations {
            let activation = ffi::mc_module_activation(raw.as_ptr(), index);
            result.activations.insert(text(activation.name), activation.count);
        }
        for index in 0..facts.training_steps {
            let ffi::mc_training { name, count, is_random } =
                ffi::mc_module_training(raw.as_ptr(), index);
            result.training_steps.push(TrainingSteps { name: text(name), count, is_random });
        }
        result
    }
}

impl Model {
    /// Selects the output that the model returns and that is explained.
    ///
    /// When maps are computed, steps that only other outputs need no longer run.
    ///
    /// The graph may not show which of its values the output is (a list that is built in a loop).
    /// The output is then found after the model has run: the score is taken from the output itself,
    /// even behind a final activation, and layers of other outputs count as layers of this one.
    /// Name a layer then, rather than use [`LayerChoice::Auto`](crate::LayerChoice::Auto).
    ///
    /// # Errors
    ///
    /// If libtorch cannot rewrite the graph. Whether the model returns such a tensor shows only
    /// when it runs: if not, a forward fails with [`Error::is_model`] and a list of the returned
    /// tensors.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use medcam::{Device, Output};
    ///
    /// let model = medcam::load("inf_net.pt", Device::Cpu)?.with_output(&Output::Index(3))?;
    /// # Ok::<(), medcam::Error>(())
    /// ```
    pub fn with_output(mut self, output: &Output) -> Result<Self> {
        let (index, name) = match output {
            Output::First => (-1, ""),
            Output::Index(index) => (i64::try_from(*index).unwrap_or(i64::MAX), ""),
            Output::Name(name) => (-1, name.as_str()),
        };
        let name = CString::new(name).map_err(|_| {
            Error::usage(format!("output '{}': NUL in a name", name.escape_debug()))
        })?;
        // SAFETY: the module is alive and exclusively ours; `name` is NUL-terminated and outlives
        // the call.
        ffi::checked(|error| unsafe {
            ffi::mc_module_choose_output(self.raw.as_ptr(), index, name.as_ptr(), error)
        })
        .map_err(|message| Error::model(format!("{}: {message}", self.path.display())))?;
        // SAFETY: the module is alive, and `self.facts` holds copies of what was read before.
        let facts = unsafe { read_facts(self.raw) };
        self.facts = Facts { operations: self.facts.operations, ..facts };
        Ok(self)
    }

    /// The model in another precision: its parameters and buffers are converted, and its input has to be of
    /// this type. Activations and gradients take half as much memory in half precision, and the output is no
    /// longer that of the model as it was saved. Maps are computed in f32 from what the layers give.
    ///
    /// # Errors
    ///
    /// If libtorch cannot convert it. That some step has no kernel for a type on a device shows when the model runs.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use medcam::{Device, Precision};
    ///
    /// let model = medcam::load("model.pt", Device::Cpu)?.in_precision(Precision::BFloat16)?;
    /// # Ok::<(), medcam::Error>(())
    /// ```
    pub fn in_precision(mut self, precision: Precision) -> Result<Self> {
        // SAFETY: the module is alive and exclusively ours.
        ffi::checked(|error| unsafe {
            ffi::mc_module_convert(self.raw.as_ptr(), precision.letter(), error)
        })
        .map_err(|message| Error::model(format!("{}: {message}", self.path.display())))?;
        // SAFETY: the module is alive, and `self.facts` holds copies of what was read before.
        let facts = unsafe { read_facts(self.raw) };
        self.facts = Facts { operations: self.facts.operations, ..facts };
        Ok(self)
    }

    /// The model's own output (of several, the selected one) for a batch `(B, C, [D,] H, W)`,
    /// without autograd.
    ///
    /// # Errors
    ///
    /// If the input does not fit the model.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        check_input(&self.facts, input)?;
        let mut output = std::ptr::null_mut();
        let _no_grad = tch::no_grad_guard();
        // SAFETY: module and tensor are alive for the call; see `run`.
        self.run(input, |error| unsafe {
            ffi::mc_module_forward(self.raw.as_ptr(), input.as_ptr().cast(), &raw mut output, error)
        })?;
        // SAFETY: on success the shim hands out a tensor that is ours.
        Ok(unsafe { own(output) })
    }

    /// The file from which the model was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device on which the model runs.
    pub fn device(&self) -> Device {
        self.device
    }

    fn run(&self, input: &Tensor, call: impl FnOnce(*mut *mut c_char) -> bool) -> Result<()> {
        let device = self.facts.named_device.as_deref().filter(|_| self.device == Device::Cpu);
        ffi::checked(call)
            .map_err(|message| failure::at_run(&self.path, &message, &input.size(), device))
    }
}

impl Network for Model {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let mut output = std::ptr::null_mut();
        // SAFETY: module, tape and tensor are alive for the call, and the tape is exclusively ours.
        self.run(input, |error| unsafe {
            ffi::mc_module_forward_tapped(
                self.raw.as_ptr(),
                input.as_ptr().cast(),
                tape.as_ptr(),
                &raw mut output,
                error,
            )
        })?;
        // SAFETY: on success the shim hands out a tensor that is ours.
        Ok(unsafe { own(output) })
    }

    fn tap_operations(&mut self, on: bool) -> Result<bool> {
        // SAFETY: the module is alive and exclusively ours.
        ffi::checked(|error| unsafe {
            ffi::mc_module_tap_operations(self.raw.as_ptr(), on, error)
        })
        .map_err(|message| Error::model(format!("{}: {message}", self.path.display())))?;
        // SAFETY: the module is alive, and `self.facts` holds copies of what was read before.
        self.facts = Facts { operations: on, ..unsafe { read_facts(self.raw) } };
        Ok(true)
    }

    fn forward_shapes(&self, input: &Tensor, tape: &mut Tape) -> Option<Tensor> {
        let mut output = std::ptr::null_mut();
        // SAFETY: module, tape and tensor are alive for the call, and the tape is exclusively ours.
        let found = ffi::checked(|error| unsafe {
            ffi::mc_module_shapes(
                self.raw.as_ptr(),
                input.as_ptr().cast(),
                tape.as_ptr(),
                &raw mut output,
                error,
            )
        });
        // SAFETY: on success the shim hands out a tensor that is ours.
        found.is_ok().then(|| unsafe { own(output) })
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: made by mc_module_load and freed once, here.
        unsafe { ffi::mc_module_free(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("path", &self.path)
            .field("device", &self.device)
            .field("layers", &self.facts.layer_types.len())
            .finish_non_exhaustive()
    }
}

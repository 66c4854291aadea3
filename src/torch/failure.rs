//! Translates libtorch's errors about TorchScript files that do not load or run for whoever
//! exported them.
//!
//! A TorchScript file does not say which torch wrote it. Its `version` counts changes of the file
//! format and of operators' semantics, and did not change between torch 2.11 and 2.15.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::Error;

/// Namespaces of torch's own operators and classes; all others belong to extensions.
const OWN_NAMESPACES: [&str; 13] = [
    "aten",
    "prim",
    "prims",
    "quantized",
    "quantization",
    "sparse",
    "mkldnn",
    "mkldnn_prepacked",
    "onednn",
    "prepacked",
    "xnnpack",
    "rnn",
    "cuda",
];

/// The error for a file that does not load.
pub(super) fn at_load(path: &Path, message: &str) -> Error {
    if message.starts_with("forward ") || message.contains("Method 'forward' is not defined") {
        return Error::model(format!("{}: {message}", path.display()));
    }
    let what = if let Some(what) = of_another_torch(message) {
        what
    } else if let Some(what) = other_archive(path) {
        what.to_owned()
    } else if message.contains("required keyword attribute 'value' is undefined") {
        "torch.jit.optimize_for_inference put weights into the file in a form that no file holds, and \
         torch.jit.load cannot read it either. Save the network before that call, torch.jit.freeze is fine"
            .to_owned()
    } else if message.contains("constants.pkl") || message.contains("data.pkl") {
        "not a TorchScript model: it looks like a checkpoint of torch.save. Export the network with \
         torch.jit.trace(network, example).save(path)"
            .to_owned()
    } else if message.contains("PytorchStreamReader") || message.contains("zip archive") {
        // The later sentences are about libtorch's internals.
        let first = message.split(". ").next().unwrap_or(message);
        format!(
            "model is not a TorchScript file, or is damaged ({first}). Export the network with \
             torch.jit.trace(network, example).save(path), or copy the file again"
        )
    } else {
        format!("model does not load: {message}")
    };
    Error::file(path, what)
}

/// What a zip archive is that is no TorchScript file, told by the files in it.
fn other_archive(path: &Path) -> Option<&'static str> {
    let names = archive_names(path)?;
    let has = |part: &str| names.windows(part.len()).any(|window| window == part.as_bytes());
    if has("models/model.json") || has("serialized_exported_program.json") {
        return Some(
            "not a TorchScript model, but an archive of torch.export (.pt2). Make a TorchScript file of it: \
             module = torch.export.load(path).module(); torch.jit.trace(module, example).save(\"model.pt\")",
        );
    }
    None
}

/// The end of a file, where a zip archive lists what is in it.
fn archive_names(path: &Path) -> Option<Vec<u8>> {
    /// A list of some thousand files.
    const LIST: u64 = 1 << 20;
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LIST))).ok()?;
    let mut names = Vec::new();
    file.take(LIST).read_to_end(&mut names).ok()?;
    Some(names)
}

/// The error for a network that fails when it runs on an input of this shape.
///
/// `device` is one that the graph names and that is not the one on which it runs.
pub(super) fn at_run(path: &Path, message: &str, input: &[i64], device: Option<&str>) -> Error {
    let path = path.display();
    if let Some(device) = device {
        return Error::model(format!(
            "{path}: the model was traced on {device}, which tracing wrote into it, and cannot run on the \
             CPU. Trace it again with network and example on the CPU, or run it with --device cuda"
        ));
    }
    // The shim's message about a newer operator; libtorch puts a Python traceback in front of it.
    let newer = message.trim_end().rsplit("RuntimeError: ").next();
    let newer = newer.filter(|words| words.contains(" was added after torch "));
    if let Some(words) = newer {
        Error::model(format!("{path}: {words}"))
    } else if message.starts_with("forward returns") {
        Error::model(format!("{path}: {message}"))
    } else {
        Error::model(format!("{path}: {FAILED} {input:?}: {message}"))
    }
}

/// What stands in front of libtorch's own words.
const FAILED: &str = "the model failed on an input of shape";

/// Whether the error of a network that failed when it ran is of the shape of its input, which a model
/// card can change: its size or its number of channels.
#[cfg(feature = "files")]
pub(crate) fn is_of_shape(error: &Error) -> bool {
    let text = error.to_string();
    let said = text.split_once(FAILED).and_then(|(_, rest)| rest.split_once("]: "));
    let words = ["size", "shape", "dimension", "channels"];
    said.is_some_and(|(_, said)| words.iter().any(|word| said.to_lowercase().contains(word)))
}

/// What autograd's message means for the model.
pub(crate) fn backward_error(message: &str) -> Error {
    // What follows the first line is libtorch's C++ stack.
    let first = message.lines().next().unwrap_or("libtorch failed");
    let operator =
        first.strip_prefix("derivative for ").and_then(|rest| rest.split_once(" is not"));
    if let Some((operator, _)) = operator {
        return Error::model(format!(
            "backward: {operator} has no derivative. {}",
            remedy(operator)
        ));
    }
    if !first.contains("modified by an inplace operation") {
        return Error::model(format!("backward: {first}"));
    }
    let value = first.split_once("which is ").and_then(|(_, rest)| rest.split_once(", is at"));
    let value =
        value.map_or_else(String::new, |(value, _)| format!(" (in autograd's words, {value})"));
    Error::model(format!(
        "backward: the model overwrites a value that its own gradient needs{value}. Take a layer \
         behind that step, or export the model without in-place operations there (x = x + y, not \
         x += y; inplace=False)"
    ))
}

/// What to do about an operator that has no derivative.
fn remedy(operator: &str) -> &'static str {
    let is_fast_path = ["_native_multi_head_attention", "_transformer_encoder_layer_fwd"];
    if is_fast_path.iter().any(|name| operator.ends_with(name)) {
        "It is the fast path that PyTorch's attention takes when it is traced under torch.no_grad(). \
         Call torch.backends.mha.set_fastpath_enabled(False) before you trace the model, or trace it with \
         gradients on, or script it"
    } else {
        "Take a layer behind it, or export the model without it"
    }
}

/// Torch's version as users name it, "torch 2.11".
fn torch_version() -> String {
    let mut parts = env!("MEDCAM_LIBTORCH").split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => format!("torch {major}.{minor}"),
        _ => "the libtorch".to_owned(),
    }
}

/// The message for a file that needs what this libtorch lacks: an operator, a type, an argument or
/// a newer format. `None` for any other cause.
fn of_another_torch(message: &str) -> Option<String> {
    let message = message.trim_start();
    let torch = torch_version();
    let writer = format!(
        "another torch wrote the file, most likely a newer one (files do not tell which). Export the \
         network with {torch}"
    );
    let within = |from, to| Some(message.split_once(from)?.1.split_once(to)?.0);

    if message.starts_with("Unknown builtin op: ") {
        let operator = within("Unknown builtin op: ", "\n")?.trim_end_matches('.');
        let (namespace, _) = operator.split_once("::")?;
        return Some(if is_own(namespace) {
            format!(
                "{operator} is no operator of {torch}, which medcam runs on: {writer}; or, if it was \
                 scripted and does not need that operator for your input, trace it: torch.jit.trace leaves \
                 out what does not run"
            )
        } else {
            format!("{operator} is an operator {}", of_extension(namespace))
        });
    }
    if message.starts_with("Unknown type name '") {
        let name = within("Unknown type name '", "'")?;
        let class = name.strip_prefix("__torch__.torch.classes.");
        return Some(match class.and_then(|class| class.split_once('.')) {
            Some((namespace, class)) if !is_own(namespace) => {
                format!("{namespace}.{class} is a class {}", of_extension(namespace))
            }
            _ => format!("{name} is no type of {torch}, which medcam runs on: {writer}"),
        });
    }
    if let Some(version) = within("Attempted to read a PyTorch file with version ", ",") {
        let newest = within("maximum supported version for reading is ", ".");
        return newest.map(|newest| {
            format!(
                "model is in version {version} of TorchScript's file format, of a newer torch than \
                 {torch}, which medcam runs on and which reads versions up to {newest}. Export the network \
                 with {torch}"
            )
        });
    }
    let call = within("The following variants are available:", "The original call is:");
    let (operator, why) = misfit(call.unwrap_or(message))?;
    Some(format!(
        "{operator} is called with arguments that it does not take in {torch}, which medcam runs on ({why}): \
         {writer}"
    ))
}

fn is_own(namespace: &str) -> bool {
    OWN_NAMESPACES.contains(&namespace)
}

fn of_extension(namespace: &str) -> String {
    format!(
        "of the extension `{namespace}`, which libtorch does not have. Export the network without it: \
         write that part with PyTorch's own operators, or, if it comes after the scores (as the \
         suppression of boxes does in a detector), leave it out"
    )
}

/// Reads libtorch's list of an operator's variants: returns the operator, and why the arguments do
/// not fit. Each variant is a schema, `aten::name.overload(...) -> ...:`, followed by a line with
/// the reason.
fn misfit(variants: &str) -> Option<(&str, &str)> {
    let mut lines = variants.trim_start().lines().map(str::trim);
    let operator = lines.next()?.split_once('(')?.0;
    let operator = operator.split('.').next().filter(|name| name.contains("::"))?;
    let why =
        lines.find(|line| line.starts_with("Keyword argument ") || line.contains(" at most "))?;
    Some((operator, why.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_error(message: &str) -> String {
        at_load(Path::new("a.pt"), message).to_string()
    }

    #[test]
    fn operators_of_torch_and_of_extensions() {
        let own = load_error(
            "\nUnknown builtin op: aten::foo.\nHere are some suggestions: \n\taten::fmod\n",
        );
        assert!(own.starts_with("a.pt: aten::foo is no operator of torch "), "{own}");
        assert!(own.contains("newer") && own.contains("torch.jit.trace"), "{own}");
        assert!(!own.contains("fmod"), "{own}");
        let other =
            load_error("\nUnknown builtin op: my.ops::nms.\nCould not find any similar ops");
        assert!(other.contains("my.ops::nms is an operator of the extension `my.ops`"), "{other}");
        assert!(!other.contains("newer"), "{other}");
    }

    #[test]
    fn types_of_torch_and_of_extensions() {
        let other =
            load_error("\nUnknown type name '__torch__.torch.classes.foo.Bar':\n  File \"code\"");
        assert!(other.contains("foo.Bar is a class of the extension `foo`"), "{other}");
        for name in ["__torch__.torch.classes.quantized.Bar", "Tansor"] {
            let own = load_error(&format!("\nUnknown type name '{name}':\n  File \"code\""));
            assert!(own.contains(&format!("{name} is no type of torch ")), "{own}");
        }
    }

    #[test]
    fn arguments_that_an_operator_does_not_take() {
        let one = "\naten::f(Tensor q, *, float? scale=None) -> Tensor:\nKeyword argument new unknown.\n:\n";
        let several = "\nArguments for call are not valid.\nThe following variants are available:\n  \n  \
                       aten::f.x(Tensor q) -> Tensor:\n  Argument k not provided.\n  \n  aten::f(Tensor q) \
                       -> Tensor:\n  Expected at most 1 arguments but found 2 positional arguments.\n\nThe \
                       original call is:\n  File \"code\"";
        assert!(
            load_error(one).contains("aten::f is called with arguments"),
            "{}",
            load_error(one)
        );
        assert!(load_error(one).contains("(Keyword argument new unknown)"), "{}", load_error(one));
        assert!(load_error(several).contains("aten::f is called with"), "{}", load_error(several));
        assert!(
            load_error(several).contains("(Expected at most 1 arguments but"),
            "{}",
            load_error(several)
        );
        assert!(load_error("\nfoo(bar):\nwhat").starts_with("a.pt: model does not load"));
    }

    #[test]
    fn a_format_that_is_too_new() {
        let message = "[enforce fail at inline_container.cc:230] . Attempted to read a PyTorch file with \
                       version 20, but the maximum supported version for reading is 10. The version of your \
                       PyTorch installation may be too old.";
        let message = load_error(message);
        assert!(message.contains("version 20 of TorchScript's file format"), "{message}");
        assert!(message.contains("reads versions up to 10. Export"), "{message}");
    }

    #[cfg(feature = "files")]
    #[test]
    fn a_card_helps_where_the_shape_is_at_fault() {
        let of = |message| is_of_shape(&at_run(Path::new("size.pt"), message, &[1, 1], None));
        assert!(of("mat1 and mat2 shapes cannot be multiplied (1x6 and 5x3)"));
        assert!(of("Sizes of tensors must match except in dimension 1"));
        assert!(!of("expected scalar type Double but found Float"));
        assert!(!is_of_shape(&at_run(Path::new("size.pt"), "size", &[1], Some("cuda:0"))));
    }

    #[test]
    fn an_operator_that_runs_though_it_is_newer() {
        let trace = "The following operation failed in the TorchScript interpreter.\nTraceback\n  File \
                     \"code\"\nRuntimeError: aten::foo was added after torch 2.11, which medcam runs on\n";
        let error = at_run(Path::new("a.pt"), trace, &[1], None).to_string();
        assert_eq!(error, "a.pt: aten::foo was added after torch 2.11, which medcam runs on");
        let error = at_run(Path::new("a.pt"), "RuntimeError: other", &[1], None).to_string();
        assert_eq!(error, "a.pt: the model failed on an input of shape [1]: RuntimeError: other");
    }
}

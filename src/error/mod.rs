//! The one error type of the crate.
//!
//! [`Error`] is opaque. Its `Display` text is for people: it names the operation, layer, file or
//! shape, and what to do. Programs use predicates such as [`Error::is_input`]. The errors of the
//! libraries beneath (libtorch, nifti, image) are never part of the public API; they stay reachable
//! through [`std::error::Error::source`].

use std::fmt;
use std::path::Path;

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error message for people, with its causes.
///
/// # Introspection is limited
///
/// The predicates (`is_*`) distinguish errors that a caller might handle differently. They are not
/// exhaustive, and the wording of a message is not part of the API.
///
/// # Example
///
/// ```
/// let error = medcam::volumes::read("missing.nii.gz").unwrap_err();
/// assert!(error.is_file());
/// assert!(error.to_string().contains("missing.nii.gz"));
/// ```
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usage,
    Input,
    Layer,
    Model,
    File,
    Unavailable,
    Busy,
    #[cfg(feature = "cuda")]
    Device,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Inner {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[cfg_attr(
    not(all(feature = "torch", feature = "files")),
    allow(dead_code, reason = "which errors there are depends on the features")
)]
impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// An invalid option, flag or combination of them.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Unusable data (an array, image or target); `operation` names the function that refuses it.
    pub(crate) fn input(operation: &str, message: impl fmt::Display) -> Self {
        Self::new(Kind::Input, format!("{operation}: {message}"))
    }

    /// A layer that does not exist or cannot carry a map.
    #[cfg(feature = "torch")]
    pub(crate) fn layer(message: impl Into<String>) -> Self {
        Self::new(Kind::Layer, message)
    }

    /// A model that cannot be loaded, injected or run.
    #[cfg(feature = "torch")]
    pub(crate) fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }

    /// A file that cannot be read, written or understood.
    pub(crate) fn file(path: impl AsRef<Path>, message: impl fmt::Display) -> Self {
        Self::new(Kind::File, format!("{}: {message}", path.as_ref().display()))
    }

    /// Hardware or a library that this machine lacks.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// What another process holds at the moment.
    #[cfg(all(feature = "torch", feature = "files"))]
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// A device that fails: out of memory, a kernel that does not compile or run.
    #[cfg(feature = "cuda")]
    pub(crate) fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }

    /// The same error with its cause.
    #[must_use]
    pub(crate) fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Whether there is no room on the disk, or the file system cannot be written: no case's fault.
    #[cfg(feature = "cli")]
    pub(crate) fn is_of_storage(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        self.has_cause(|kind| matches!(kind, StorageFull | QuotaExceeded | ReadOnlyFilesystem))
    }

    /// Whether memory could not be allocated, on the CPU or on a GPU.
    #[cfg(all(feature = "torch", feature = "files"))]
    pub(crate) fn is_of_memory(&self) -> bool {
        let said = self.to_string();
        let words = [
            "DefaultCPUAllocator",
            "bad_alloc",
            "out of memory",
            "not enough memory",
            "no memory for",
            "Cannot allocate memory",
        ];
        words.iter().any(|words| said.contains(words))
            || self.has_cause(|kind| kind == std::io::ErrorKind::OutOfMemory)
    }

    /// Whether one of its causes is an error of this kind.
    #[cfg(all(feature = "torch", feature = "files"))]
    fn has_cause(&self, is_it: impl Fn(std::io::ErrorKind) -> bool) -> bool {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            if error.downcast_ref().map(std::io::Error::kind).is_some_and(&is_it) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The same error, with the place where it happened in front of the message.
    #[must_use]
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// The same error, with a hint after the message.
    #[cfg(all(feature = "torch", feature = "files"))]
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.0.message = format!("{}. Hint: {hint}", self.0.message);
        self
    }

    /// Whether an option, or a combination of options, is invalid.
    pub fn is_usage(&self) -> bool {
        self.0.kind == Kind::Usage
    }

    /// Whether data is at fault: a shape, a class index, a value that is not finite.
    pub fn is_input(&self) -> bool {
        self.0.kind == Kind::Input
    }

    /// Whether a layer is unknown or cannot carry a map.
    pub fn is_layer(&self) -> bool {
        self.0.kind == Kind::Layer
    }

    /// Whether the model is at fault: it does not load, does not run, takes two inputs.
    pub fn is_model(&self) -> bool {
        self.0.kind == Kind::Model
    }

    /// Whether a file could not be read, written or understood.
    pub fn is_file(&self) -> bool {
        self.0.kind == Kind::File
    }

    /// Whether hardware or a library is missing on this machine.
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == Kind::Unavailable
    }

    /// Whether another process holds what is needed, such as the folder of a cohort: later it may be free.
    pub fn is_busy(&self) -> bool {
        self.0.kind == Kind::Busy
    }

    /// Whether a CUDA device failed: it is out of memory, or a kernel did not compile or run.
    pub fn is_device(&self) -> bool {
        #[cfg(feature = "cuda")]
        let device = self.0.kind == Kind::Device;
        #[cfg(not(feature = "cuda"))]
        let device = false;
        device
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

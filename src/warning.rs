//! What a reader of a map should know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Something that a reader of a map should know; each code is explained in `docs/diagnostics.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Warning {
    /// A fixed name for programs, such as `ZERO_MAP`.
    pub code: Cow<'static, str>,
    /// The layer; empty where the warning is of the whole run.
    pub layer: String,
    /// The sample of the batch, from 0; `None` where the warning is of all.
    pub sample: Option<usize>,
    /// What it means, and what to do.
    pub message: String,
}

impl Warning {
    /// Of the whole run.
    pub(crate) fn of_run(code: &'static str, message: impl Into<String>) -> Self {
        let code = Cow::Borrowed(code);
        Self { code, layer: String::new(), sample: None, message: message.into() }
    }

    /// Of one layer, in all samples.
    #[cfg(feature = "torch")]
    pub(crate) fn of_layer(code: &'static str, layer: &str, message: &str) -> Self {
        let message = format!("layer '{layer}': {message}");
        Self { layer: layer.to_owned(), ..Self::of_run(code, message) }
    }
}

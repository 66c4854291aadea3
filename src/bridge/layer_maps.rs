//! The maps of one layer before anything has waited for them.

#[cfg(feature = "cuda")]
use tch::Kind;
use tch::Tensor;

#[cfg(feature = "cuda")]
use super::arrays::upload;
use super::readback::{Fetched, Slot};
use super::sensitivity::alpha_sensitivity;
use super::values::MapValues;
use crate::error::Result;
use crate::ops::Range;
#[cfg(feature = "cuda")]
use crate::ops::fused::cuda::Reader;
#[cfg(feature = "cuda")]
use crate::ops::summary::SampleSummary;
#[cfg(feature = "cuda")]
use crate::torch::in_libtorch;

/// The maps of one layer, one per sample, where they were made: on a GPU they may still be under way,
/// and stay there. What an [`Attention`](crate::Attention) returns.
#[derive(Debug)]
pub struct LayerMaps {
    pub(super) values: MapValues,
    pub(super) told: Facts,
    /// Replaces what the maps say themselves.
    pub(super) weights_cancel: Option<Vec<bool>>,
    /// For Grad-CAM++ on a device: what tells whether its weights hang on rounding, asked for only if
    /// an activation is negative.
    pub(super) negative: Option<Negative>,
}

/// What is known of the maps.
#[derive(Debug)]
pub(super) enum Facts {
    Now {
        ranges: Vec<Range>,
        weights_cancel: Vec<bool>,
        sensitivity: Option<Vec<f32>>,
    },
    /// The summaries of the launches that made them, the layer's own first.
    #[cfg(feature = "cuda")]
    Later(Vec<Summaries>),
}

/// Summaries on a device, `(B, 8)` words, and how they are read.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub(super) struct Summaries {
    pub reader: Reader,
    pub words: Tensor,
    pub slot: Slot,
}

/// The least activation of a layer, and the layer.
#[derive(Debug)]
pub(super) struct Negative {
    pub least: Slot,
    pub activation: Tensor,
    pub gradient: Tensor,
}

/// The maps of one layer, and what is known of them.
#[derive(Debug)]
pub(crate) struct FinishedMaps {
    pub values: MapValues,
    /// The range of each map before normalisation.
    pub ranges: Vec<Range>,
    /// Whether each map is rounding noise, as its weights cancel.
    pub weights_cancel: Vec<bool>,
    /// Whether the gradient behind each map is 0 everywhere; `None` where nobody has looked.
    pub zero_gradient: Option<Vec<bool>>,
    /// How sensitive each map of Grad-CAM++ is to rounding: see
    /// [`sensitivity`](crate::ops::alpha_weights::sensitivity). `None` where it is not.
    pub sensitivity: Option<Vec<f32>>,
}

impl LayerMaps {
    pub(super) fn new(values: MapValues, told: Facts) -> Self {
        Self { values, told, weights_cancel: None, negative: None }
    }

    /// Says of each map whether it is rounding noise because its weights cancel, in place of what the maps
    /// say themselves: for a method of your own that knows. There is then the warning `WEIGHTS_CANCEL`.
    #[must_use]
    pub fn with_weights_cancel(self, weights_cancel: Vec<bool>) -> Self {
        Self { weights_cancel: Some(weights_cancel), ..self }
    }

    /// The range of each map before normalisation; empty where only a device knows it.
    pub(crate) fn known_ranges(&self) -> &[Range] {
        match &self.told {
            Facts::Now { ranges, .. } => ranges,
            #[cfg(feature = "cuda")]
            Facts::Later(_) => &[],
        }
    }

    /// `B`, and `D, H, W`.
    pub(crate) fn form(&self) -> (usize, [usize; 3]) {
        self.values.form()
    }

    /// Maps on a device, with what they say of each sample there: 1 where it is rounding noise, `(B)`.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self) -> Result<Option<(&Tensor, Tensor)>> {
        let (Some(maps), Facts::Later(all)) = (self.values.device(), &self.told) else {
            return Ok(None);
        };
        let Some(Summaries { words, .. }) = all.first() else { return Ok(None) };
        let noise = match &self.weights_cancel {
            Some(known) => {
                upload(&in_libtorch("fuse", || Tensor::f_from_slice(known))?, maps.device())?
            }
            None => in_libtorch("fuse", || words.f_select(1, CANCEL_WORD))?,
        };
        let noise = in_libtorch("fuse", || noise.f_to_kind(Kind::Float))?;
        Ok(Some((maps, noise)))
    }

    /// None is on a device.
    #[cfg(not(feature = "cuda"))]
    pub(crate) fn on_device(&self) -> Result<Option<(&Tensor, Tensor)>> {
        Ok(None)
    }

    /// The maps with all that is known of them, when what they asked for has been fetched.
    ///
    /// # Errors
    ///
    /// If they are not finite. The message names the sample.
    pub(crate) fn finished(self, fetched: &Fetched) -> Result<FinishedMaps> {
        let Self { values, told, weights_cancel: known, negative } = self;
        let mut finished = match told {
            Facts::Now { ranges, weights_cancel, sensitivity } => {
                FinishedMaps { values, ranges, weights_cancel, zero_gradient: None, sensitivity }
            }
            #[cfg(feature = "cuda")]
            Facts::Later(all) => of_device(values, &all, fetched)?,
        };
        if let Some(known) = known {
            finished.weights_cancel = known;
        }
        if let Some(Negative { least, activation, gradient }) = negative
            && fetched.floats(&least).iter().any(|&least| least < 0.0)
        {
            finished.sensitivity = alpha_sensitivity(&activation, &gradient)?;
        }
        Ok(finished)
    }
}

#[cfg(feature = "cuda")]
fn of_device(values: MapValues, all: &[Summaries], fetched: &Fetched) -> Result<FinishedMaps> {
    let mut finished = FinishedMaps {
        values,
        ranges: Vec::new(),
        weights_cancel: Vec::new(),
        zero_gradient: None,
        sensitivity: None,
    };
    for (index, Summaries { reader, slot, .. }) in all.iter().enumerate() {
        let summaries: Vec<_> = fetched
            .integers(slot)
            .chunks(SampleSummary::WORDS)
            .map(SampleSummary::of_words)
            .collect();
        let summary = reader.read(&summaries)?;
        finished.ranges = summary.ranges;
        if index == 0 {
            finished.weights_cancel = summary.weights_cancel;
            finished.zero_gradient =
                Some(summaries.iter().map(|of| of.zero_gradient != 0).collect());
        }
    }
    Ok(finished)
}

/// Where a summary says whether the weights cancel.
#[cfg(feature = "cuda")]
const CANCEL_WORD: i64 = (std::mem::offset_of!(SampleSummary, weights_cancel) / 4) as i64;

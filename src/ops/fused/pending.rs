//! What has been enqueued, and what it tells when it is done.

use super::{PRODUCTS, Recipe, Summary, check_reach, limit, refuse};
use crate::device::{SliceMut, Stream};
use crate::element::{Element, MapElement};
use crate::error::{Error, Result};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::summary::SampleSummary;
use crate::ops::summary::cuda::summary;
use crate::ops::{DeviceView, Range};
use crate::shape::Shape;

/// A chain that has been enqueued. [`finish`](Self::finish) waits for the map, and tells whether it may
/// be used; [`summarize`](Self::summarize) has the device find that out, and waits for nothing.
#[derive(Debug)]
#[must_use = "a map whose values are not finite shows only here"]
pub struct Pending<'a> {
    pub(super) stream: &'a Stream,
    /// Those of the maps on the layer's grid, then, if that is another one, of the finished maps.
    pub(super) extremes: SliceMut<'a, DeviceExtremes>,
    /// The `(B, C)` weights, and with Grad-CAM's the mean magnitude of each channel's gradient.
    pub(super) weights: Option<(SliceMut<'a, f32>, Option<SliceMut<'a, f32>>)>,
    /// Of the type of the gradient that the weights are made of.
    pub(super) epsilon: f32,
    pub(super) reader: Reader,
}

impl Pending<'_> {
    /// Waits for the map; returns its ranges. One wait, and one copy of 32 bytes a sample.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::read`], or if a kernel failed.
    pub fn finish(self) -> Result<Summary> {
        let mut summaries = self.stream.scratch(self.reader.shape.batch)?;
        self.enqueue::<f32>(None, summaries.reborrow())?;
        self.reader.read(&self.stream.download(summaries.as_slice())?)
    }

    /// Enqueues what [`finish`](Self::finish) tells, as summaries `(B)` in memory of the caller's, which
    /// the returned reader reads once they are on the host. It also finds out whether `gradient`, that
    /// of the chain, is 0 everywhere where a map is.
    ///
    /// # Errors
    ///
    /// If `summaries` does not have one for each sample, memory is not on the stream's device, or the
    /// launch fails.
    pub fn summarize<T: Element>(
        self,
        gradient: Option<&DeviceView<T>>,
        summaries: SliceMut<SampleSummary>,
    ) -> Result<Reader> {
        self.enqueue(gradient, summaries)?;
        Ok(self.reader)
    }

    fn enqueue<T: Element>(
        &self,
        gradient: Option<&DeviceView<T>>,
        summaries: SliceMut<SampleSummary>,
    ) -> Result<()> {
        let shape = self.reader.shape;
        let all = self.extremes.as_slice();
        let extremes = (
            all.part(0..shape.batch)?,
            all.part(all.len().saturating_sub(shape.batch)..all.len())?,
        );
        let weights = self.weights.as_ref();
        let weights = weights.map(|(w, m)| (w.as_slice(), m.as_ref().map(SliceMut::as_slice)));
        summary(self.stream, shape, gradient, weights, self.epsilon, extremes, summaries)
    }
}

/// Reads the summaries of a chain that [`Pending::summarize`] enqueued.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reader {
    pub(super) operation: &'static str,
    pub(super) shape: Shape,
    /// The greatest magnitude that the type of the finished map holds.
    pub(super) limit: f32,
}

impl Reader {
    /// Of the maps of layers of `shape`, finished as `O`.
    pub(crate) fn of<O: MapElement>(recipe: &Recipe, shape: Shape) -> Self {
        Self { operation: recipe.method.name(), shape, limit: limit::<O>(recipe) }
    }

    /// What the chain tells of its maps, one summary for each.
    ///
    /// # Errors
    ///
    /// If the gradient, the activation or a sum of their products is not finite, or an f16 map that is
    /// not normalised goes beyond 65504; the message names the sample.
    pub fn read(self, summaries: &[SampleSummary]) -> Result<Summary> {
        let Self { operation, shape, limit } = self;
        if summaries.len() != shape.batch {
            let (given, batch) = (summaries.len(), shape.batch);
            return Err(Error::input(operation, format!("{given} summaries of {batch} samples")));
        }
        let (channels, voxels) = (shape.channels, shape.voxels());
        for (b, of) in summaries.iter().enumerate() {
            refuse(operation, of.weights_not_finite as usize, "channels", channels, b, "gradient")?;
        }
        for (b, of) in summaries.iter().enumerate() {
            refuse(operation, of.layer_not_finite as usize, "voxels", voxels, b, PRODUCTS)?;
            if of.map_not_finite > 0 {
                return Err(Error::input(
                    operation,
                    format!("the finished map of sample {b} is not finite everywhere"),
                ));
            }
        }
        let range = |of: &SampleSummary| Range { minimum: of.minimum, maximum: of.maximum };
        let ranges: Vec<Range> = summaries.iter().map(range).collect();
        check_reach(operation, &ranges, limit)?;
        let weights_cancel = summaries.iter().map(|of| of.weights_cancel != 0).collect();
        Ok(Summary { ranges, weights_cancel })
    }
}

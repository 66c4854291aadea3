//! Images from disk as the input of a model.

use std::panic::catch_unwind;
use std::path::Path;

use tch::{Kind, Tensor};

use crate::bridge::to_tensor;
use crate::error::{Error, Result};
use crate::torch::{Device, Model, Network, is_of_shape};
use crate::volumes::{self, Card, Header, Input, Prepared};

/// How images from disk become the input of a model.
#[derive(Debug, Clone)]
pub(crate) struct ModelInput {
    pub card: Card,
    /// Whether somebody gave the card.
    has_card: bool,
    pub kind: Kind,
    /// Number of the model's spatial axes, 2 or 3, if it is known from the graph.
    spatial_rank: Option<usize>,
    /// Number of channels that the model takes, if it is known from the graph.
    channels: Option<usize>,
}

impl ModelInput {
    pub(crate) fn new(model: &Model, card: Option<Card>) -> Self {
        let facts = model.facts();
        Self {
            has_card: card.is_some(),
            card: card.unwrap_or_default(),
            kind: facts.input_kind.unwrap_or(Kind::Float),
            spatial_rank: facts.input_rank.map(|rank| rank - 2),
            channels: facts.input_channels,
        }
    }

    /// Reads an image and prepares it for the model.
    pub(crate) fn read(&self, path: &Path) -> Result<(Input, Prepared)> {
        // A decoder that panics on a damaged file must not cost the other images.
        let input = catch_unwind(|| volumes::read(path))
            .map_err(|_| Error::file(path, "damaged: its decoder panicked"))??;
        let prepared = self.card.prepare(&input, self.spatial_rank);
        Ok((input, prepared.map_err(|error| error.within(path.display()))?))
    }

    /// The number of an image's values, and the shape of the model's input that it gives, by its header; `None` if
    /// it can be seen already that the image cannot be read or does not fit the model.
    pub(super) fn shape(&self, path: &Path) -> Option<(usize, Vec<usize>)> {
        let header = Header::read(path).ok()?;
        let mut shape = self.card.input_shape(&header, self.spatial_rank).ok()?;
        if matches!(header, Header::Image { .. }) {
            // How many channels a picture has shows when it is decoded.
            shape[1] = self.channels.unwrap_or(shape[1]);
        }
        let rank = self.spatial_rank.unwrap_or(shape.len().saturating_sub(2));
        let fits = (2..=3).contains(&rank)
            && shape.len() == rank + 2
            && !shape.contains(&0)
            && self.channels.is_none_or(|channels| channels == shape[1]);
        fits.then(|| (header.values(), shape))
    }

    pub(crate) fn tensor(&self, prepared: &Prepared, device: Device) -> Result<Tensor> {
        let limit = half::f16::MAX.to_f32();
        if self.kind == Kind::Half && prepared.tensor.iter().any(|value| value.abs() > limit) {
            return Err(Error::input(
                "input",
                format!(
                    "it has values beyond {limit}, which f16 does not hold; take bf16 or f32 (--precision), or \
                     scale them (a card's [[intensity]])"
                ),
            ));
        }
        to_tensor(&prepared.tensor, device, self.kind)
    }

    /// Adds a hint to the error if the model itself fails on `tensor`.
    pub(super) fn with_hint(&self, error: Error, model: &Model, tensor: &Tensor) -> Error {
        let failure = || tch::no_grad(|| model.forward(tensor)).err();
        let is_slice = tensor.dim() == 5 && tensor.size()[2..].contains(&1);
        if self.spatial_rank.is_none() && is_slice && failure().is_some() {
            return error.with_hint(
                "a volume of one slice is fed in 3D unless the model tells that it is 2D: set \
                 `spatial_dims = 2` in the card's [input]",
            );
        }
        if !self.has_card && failure().is_some_and(|error| is_of_shape(&error)) {
            return error.with_hint(
                "no model card was given, which says what size and channels the model takes: see --card",
            );
        }
        error
    }
}

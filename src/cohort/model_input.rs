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
}

impl ModelInput {
    pub(crate) fn new(model: &Model, card: Option<Card>) -> Self {
        let facts = model.facts();
        Self {
            has_card: card.is_some(),
            card: card.unwrap_or_default(),
            kind: facts.input_kind.unwrap_or(Kind::Float),
            spatial_rank: facts.input_rank.map(|rank| rank - 2),
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

    /// The header of an image, and the shape of the model's input that it gives.
    pub(super) fn shapes(&self, path: &Path) -> Result<(Header, Vec<usize>)> {
        let header = Header::read(path)?;
        let shape = self.card.input_shape(&header, self.spatial_rank);
        let shape = shape.map_err(|error| error.within(path.display()))?;
        Ok((header, shape))
    }

    pub(crate) fn tensor(&self, prepared: &Prepared, device: Device) -> Result<Tensor> {
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

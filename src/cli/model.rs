//! Loads the model, its card and its device for `medcam map` and `medcam layers`.

use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use super::args::ModelArguments;
use super::terminal::complain;
use super::threads::use_threads;
use crate::bridge::to_tensor;
use crate::error::{Error, Result};
use crate::torch::{Device, Model, Network, is_of_shape, keep_freed_memory, load};
use crate::volumes::{self, Card, Input, Prepared};

/// Converts images from disk to the input of a model.
#[derive(Debug)]
pub struct ModelInput {
    pub card: Card,
    pub card_path: Option<PathBuf>,
    pub device: Device,
    pub kind: Kind,
    /// Number of the model's spatial axes, 2 or 3, if it is known from the graph.
    pub spatial_rank: Option<usize>,
    pub input_channels: Option<usize>,
}

/// Sets the threads, reads the card and loads the model.
pub fn load_model(arguments: &ModelArguments) -> Result<(ModelInput, Model)> {
    keep_freed_memory();
    use_threads(arguments.threads)?;
    let device = match arguments.device.as_str() {
        "auto" => Device::best(),
        other => other.parse()?,
    };
    let card_path = arguments.card_file();
    let card = card_path.as_ref().map(Card::read).transpose()?.unwrap_or_default();
    let mut model = load(&arguments.model, device)?;
    if let Some(output) = &arguments.explain_output {
        model = model.with_output(&output.parse()?)?;
    }
    let facts = model.facts();
    if arguments.explain_output.is_none() && facts.outputs != Some(1) {
        let count = facts.outputs.map_or_else(|| "several".to_owned(), |n| n.to_string());
        complain(format!(
            "note: the model returns {count} tensors; the first is explained (--explain-output N \
             takes another)"
        ));
    }
    let model_input = ModelInput {
        card,
        card_path,
        device,
        kind: facts.input_kind.unwrap_or(Kind::Float),
        spatial_rank: facts.input_rank.map(|rank| rank - 2),
        input_channels: facts.input_channels,
    };
    Ok((model_input, model))
}

impl ModelInput {
    /// Prepares an image for the model by the card.
    pub fn prepare(&self, path: &Path, input: &Input) -> Result<Prepared> {
        self.card.prepare(input, self.spatial_rank).map_err(|error| error.within(path.display()))
    }

    /// Adds a hint to the error if the model itself fails on `tensor`.
    pub fn with_hint(&self, error: Error, model: &Model, tensor: &Tensor) -> Error {
        let failure = || tch::no_grad(|| model.forward(tensor)).err();
        let is_slice = tensor.dim() == 5 && tensor.size()[2..].contains(&1);
        if self.spatial_rank.is_none() && is_slice && failure().is_some() {
            return error.with_hint(
                "a volume of one slice is fed in 3D unless the model tells that it is 2D: set \
                 `spatial_dims = 2` in the card's [input]",
            );
        }
        if self.card_path.is_none() && failure().is_some_and(|error| is_of_shape(&error)) {
            return error.with_hint(
                "no model card was given, which says what size and channels the model takes: see --card",
            );
        }
        error
    }

    pub fn tensor(&self, prepared: &Prepared) -> Result<Tensor> {
        to_tensor(&prepared.tensor, self.device, self.kind)
    }

    /// Reads an image and prepares it for the model.
    pub fn read(&self, path: &Path) -> Result<(Input, Prepared)> {
        let input = volumes::read(path)?;
        let prepared = self.prepare(path, &input)?;
        Ok((input, prepared))
    }
}

//! Loads the model, its card and its device for `medcam map` and `medcam layers`.

use super::args::ModelArguments;
use super::terminal::complain;
use super::threads::use_threads;
use crate::error::Result;
use crate::torch::{Device, Model, Network, keep_freed_memory, load};
use crate::volumes::Card;

/// Sets the threads, reads the card and loads the model.
pub fn load_model(arguments: &ModelArguments) -> Result<(Option<Card>, Model)> {
    prepare_process(arguments)?;
    let card = arguments.card_file().as_ref().map(Card::read).transpose()?;
    Ok((card, load_on(arguments, &arguments.device)?))
}

/// As [`load_model`], but once for each device of a list: `cuda:0,cuda:1`.
pub fn load_models(arguments: &ModelArguments) -> Result<(Option<Card>, Vec<Model>)> {
    prepare_process(arguments)?;
    let card = arguments.card_file().as_ref().map(Card::read).transpose()?;
    let models = arguments.device.split(',').map(|device| load_on(arguments, device.trim()));
    Ok((card, models.collect::<Result<_>>()?))
}

fn prepare_process(arguments: &ModelArguments) -> Result<()> {
    keep_freed_memory();
    use_threads(arguments.threads)
}

fn load_on(arguments: &ModelArguments, device: &str) -> Result<Model> {
    let device = match device {
        "auto" => Device::best(),
        other => other.parse()?,
    };
    let precision = arguments.precision()?;
    let mut model = load(&arguments.model, device)?;
    if let Some(precision) = precision {
        model = model.in_precision(precision)?;
    }
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
    Ok(model)
}

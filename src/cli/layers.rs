//! `medcam layers`.

use std::process::ExitCode;

use serde::Serialize;
use tch::Tensor;

use super::args::LayersArguments;
use super::model::load_model;
use super::terminal::{complain, print, print_json};
use crate::cohort::ModelInput;
use crate::error::{Error, Result};
use crate::explain::{Explainer, Settings, training_mode};
use crate::task::Task;
use crate::torch::{Device, Layer, Layers, Network};
use crate::volumes::{Card, Sampling};

#[derive(Serialize)]
struct Listing<'a> {
    model: &'a std::path::Path,
    task: Task,
    input_shape: Vec<i64>,
    output_shape: &'a [i64],
    auto: Option<&'a str>,
    layers: Vec<&'a Layer>,
}

pub fn run(arguments: &LayersArguments) -> Result<ExitCode> {
    let (card, model) = load_model(&arguments.model)?;
    let (model_input, device) = (ModelInput::new(&model, card), model.device());
    let input = match (&arguments.input, &arguments.shape) {
        (Some(path), _) => model_input.tensor(&model_input.read(path)?.1, device)?,
        (None, Some(shape)) => zeros(&model_input, device, shape)?,
        (None, None) => zeros(
            &model_input,
            device,
            &shape_of_card(&model_input.card, model.facts().input_channels)?,
        )?,
    };
    if let Some(warning) = training_mode(&model.facts()) {
        complain(format!("warning[{}]: {}", warning.code, warning.message));
    }
    let mut explainer = Explainer::new(model, Settings::default())?;
    let layers = explainer.layers(&input)?;
    if arguments.json {
        print_json(&Listing {
            model: &arguments.model.model,
            task: layers.task(),
            input_shape: input.size(),
            output_shape: layers.output_shape(),
            auto: layers.auto().map(|layer| layer.name.as_str()),
            layers: layers.iter().collect(),
        })?;
    } else {
        print(table(layers))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn zeros(model_input: &ModelInput, device: Device, shape: &[usize]) -> Result<Tensor> {
    let shape: Vec<i64> = shape.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect();
    crate::torch::in_libtorch("--shape", || {
        Tensor::f_zeros(&shape, (model_input.kind, device.to_tch()))
    })
}

fn shape_of_card(card: &Card, channels: Option<usize>) -> Result<Vec<usize>> {
    let needed = || {
        Error::usage(
            "which shape has the input? Give --shape B,C,[D,]H,W or --input FILE, or a card with \
             size = [...]",
        )
    };
    let Some(Sampling::Size(size)) = &card.input.sampling else { return Err(needed()) };
    let channels = channels.ok_or_else(needed)?;
    Ok([&[1, channels], &size[..]].concat())
}

fn table(layers: &Layers) -> String {
    let auto = layers.auto().map(|layer| layer.name.clone());
    let shape = |layer: &Layer| {
        let extents: Vec<_> = layer.shape.iter().map(ToString::to_string).collect();
        extents.join("x") + if layer.channels_last { "  channels last" } else { "" }
    };
    let runs =
        |layer: &Layer| if layer.runs > 1 { format!(" x{}", layer.runs) } else { String::new() };
    let width =
        |of: &dyn Fn(&Layer) -> String| layers.iter().map(|l| of(l).len()).max().unwrap_or(0);
    let name = |layer: &Layer| format!("{}{}", layer.name, runs(layer));
    let (names, kinds) = (width(&name), width(&|layer| layer.kind.clone()));
    let mut lines = Vec::new();
    for layer in layers.iter() {
        let mark = match layer {
            _ if Some(&layer.name) == auto.as_ref() => '*',
            _ if layer.redraws_output => '=',
            _ if layer.weights_cancel => '~',
            _ if layer.can_carry_map && !layer.shows_image => '-',
            _ if layer.can_carry_map => '+',
            _ => ' ',
        };
        let (name, kind, shape) = (name(layer), &layer.kind, shape(layer));
        lines.push(format!("{mark} {name:names$}  {kind:kinds$}  {shape}"));
    }
    lines.push(format!("\n{:?}, output {:?}", layers.task(), layers.output_shape()));
    let legend = [
        "* what --layer auto takes   + can carry a map   = map would only redraw the output",
        "~ map would be rounding noise: an instance norm behind the layer cancels its weights",
        "xN: runs N times; NAME#k picks the k-th run, NAME the last",
    ];
    lines.extend(legend.map(str::to_owned));
    if lines.iter().any(|line| line.starts_with('-')) {
        lines.push(
            "- map would show no more of the image: the layer pads, crops or resizes, or has one voxel \
             behind it"
                .to_owned(),
        );
    }
    if layers.has_operations() {
        lines.push(
            "KIND.N: the N-th operation of its kind, for want of modules; names hold for this file alone"
                .to_owned(),
        );
    }
    lines.join("\n")
}

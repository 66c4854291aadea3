//! The ops as functions of Python. `medcam_rs` checks types, makes the outputs and names the stream.

use medcam::dlpack::Sum;
use medcam::ops::fused::{self, Summary};
use medcam::ops::summary::SampleSummary;
use medcam::ops::{Denominator, Elementwise, Interpolation, Method};
use pyo3::prelude::*;

use crate::errors::{exception, raise};
use crate::memory::run;
use crate::tensor::Borrowed;

/// Of each map the least and greatest value before normalisation, and whether weights cancel.
type Infos = Vec<(f32, f32, bool)>;

fn method(py: Python<'_>, name: &str, denominator_name: &str) -> PyResult<Method> {
    match name {
        "gradcam" => Ok(Method::GradCam),
        "gradcam++" => Ok(Method::GradCamPlusPlus(denominator(py, denominator_name)?)),
        "hirescam" => Ok(Method::HiResCam),
        "layercam" => Ok(Method::LayerCam),
        _ => {
            let known = "\"gradcam\", \"gradcam++\", \"hirescam\" and \"layercam\"";
            Err(exception(py, "InputError", format!("method: \"{name}\"; there are {known}")))
        }
    }
}

fn denominator(py: Python<'_>, name: &str) -> PyResult<Denominator> {
    match name {
        "paper" => Ok(Denominator::Paper),
        "m3dcam" => Ok(Denominator::M3dCam),
        "paper+1e-6" => Ok(Denominator::PaperEpsilon),
        "m3dcam+1e-7" => Ok(Denominator::M3dCamEpsilon),
        _ => {
            let known = "\"paper\", \"paper+1e-6\", \"m3dcam\" and \"m3dcam+1e-7\"";
            Err(exception(py, "InputError", format!("denominator: \"{name}\"; there are {known}")))
        }
    }
}

fn infos(summary: Summary) -> Infos {
    let Summary { ranges, weights_cancel } = summary;
    let infos = ranges.into_iter().zip(weights_cancel);
    infos.map(|(range, cancel)| (range.minimum, range.maximum, cancel)).collect()
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "all that the op takes, and where to")]
pub fn cam(
    py: Python<'_>,
    activation: &Bound<'_, PyAny>,
    gradient: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    method_name: &str,
    denominator_name: &str,
    normalized: bool,
    stream: usize,
    summary: bool,
) -> PyResult<Option<Infos>> {
    let method = method(py, method_name, denominator_name)?;
    let (mut activation, mut gradient) = (Borrowed::new(activation)?, Borrowed::new(gradient)?);
    let mut out = Borrowed::new(out)?;
    let (activation, gradient) = (activation.input("activation")?, gradient.input("gradient")?);
    let mut map = out.output("map")?;
    let place = activation.place();
    run(py, place, stream, |work| {
        work.cam(method, normalized, &activation, &gradient, &mut map, summary)
            .map(|told| told.map(infos))
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "all that the op takes, and where to")]
pub fn guided_cam(
    py: Python<'_>,
    activation: &Bound<'_, PyAny>,
    gradient: &Bound<'_, PyAny>,
    guided: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    method_name: &str,
    denominator_name: &str,
    normalized: bool,
    stream: usize,
    summary: bool,
) -> PyResult<Option<Infos>> {
    let method = method(py, method_name, denominator_name)?;
    let (mut activation, mut gradient) = (Borrowed::new(activation)?, Borrowed::new(gradient)?);
    let (mut guided, mut out) = (Borrowed::new(guided)?, Borrowed::new(out)?);
    let (activation, gradient) = (activation.input("activation")?, gradient.input("gradient")?);
    let (guided, mut map) = (guided.input("guided")?, out.output("map")?);
    let place = activation.place();
    run(py, place, stream, |work| {
        work.guided_cam(method, normalized, &activation, &gradient, &guided, &mut map, summary)
            .map(|told| told.map(infos))
    })
}

/// Reads the summaries of a chain once they are on the host.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct Reader(fused::cuda::Reader);

#[pymethods]
impl Reader {
    /// Of each map its info, and whether the gradient behind a map of zeros is zero everywhere.
    #[expect(clippy::needless_pass_by_value, reason = "what a list becomes")]
    fn read(&self, py: Python<'_>, words: Vec<i32>) -> PyResult<(Infos, Vec<bool>)> {
        let summaries: Vec<_> =
            words.chunks(SampleSummary::WORDS).map(SampleSummary::of_words).collect();
        let told = self.0.read(&summaries).map_err(|error| raise(py, &error))?;
        Ok((infos(told), summaries.iter().map(|of| of.zero_gradient != 0).collect()))
    }
}

/// Normalised maps, and into `summaries`, `(B, 8)` int32, what is known of them: on a device it is written
/// there, and nothing waits.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "all that the op takes, and where to")]
pub fn summarized_cam(
    py: Python<'_>,
    activation: &Bound<'_, PyAny>,
    gradient: &Bound<'_, PyAny>,
    guided: Option<&Bound<'_, PyAny>>,
    out: &Bound<'_, PyAny>,
    summaries: &Bound<'_, PyAny>,
    method_name: &str,
    denominator_name: &str,
    stream: usize,
) -> PyResult<Reader> {
    let method = method(py, method_name, denominator_name)?;
    let (mut activation, mut gradient) = (Borrowed::new(activation)?, Borrowed::new(gradient)?);
    let mut guided = guided.map(Borrowed::new).transpose()?;
    let (mut out, mut summaries) = (Borrowed::new(out)?, Borrowed::new(summaries)?);
    let (activation, gradient) = (activation.input("activation")?, gradient.input("gradient")?);
    let guided = guided.as_mut().map(|guided| guided.input("guided")).transpose()?;
    let (mut map, mut summaries) = (out.output("map")?, summaries.output("summaries")?);
    let (place, guided) = (activation.place(), guided.as_ref());
    let reader = run(py, place, stream, |work| {
        work.summarized_cam(method, true, &activation, &gradient, guided, &mut map, &mut summaries)
    })?;
    Ok(Reader(reader))
}

#[pyfunction]
pub fn channel_weights(
    py: Python<'_>,
    gradient: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    stream: usize,
) -> PyResult<()> {
    let (mut gradient, mut out) = (Borrowed::new(gradient)?, Borrowed::new(out)?);
    let (gradient, mut weights) = (gradient.input("gradient")?, out.output("weights")?);
    run(py, gradient.place(), stream, |work| work.channel_weights(&gradient, &mut weights))
}

#[pyfunction]
pub fn alpha_weights(
    py: Python<'_>,
    activation: &Bound<'_, PyAny>,
    gradient: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    denominator_name: &str,
    stream: usize,
) -> PyResult<()> {
    let denominator = denominator(py, denominator_name)?;
    let (mut activation, mut gradient) = (Borrowed::new(activation)?, Borrowed::new(gradient)?);
    let mut out = Borrowed::new(out)?;
    let (activation, gradient) = (activation.input("activation")?, gradient.input("gradient")?);
    let mut weights = out.output("weights")?;
    let place = activation.place();
    run(py, place, stream, |work| {
        work.alpha_weights(&activation, &gradient, denominator, &mut weights)
    })
}

/// The sum over the channels; without weights the mean.
#[pyfunction]
pub fn sum(
    py: Python<'_>,
    weights: Option<&Bound<'_, PyAny>>,
    activation: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    rectified: bool,
    stream: usize,
) -> PyResult<()> {
    let mut weights = weights.map(Borrowed::new).transpose()?;
    let (mut activation, mut out) = (Borrowed::new(activation)?, Borrowed::new(out)?);
    let weights = weights.as_mut().map(|weights| weights.input("weights")).transpose()?;
    let (activation, mut map) = (activation.input("activation")?, out.output("map")?);
    run(py, activation.place(), stream, |work| {
        let sum = match &weights {
            Some(weights) if rectified => Sum::Rectified(weights),
            Some(weights) => Sum::Signed(weights),
            None => Sum::Mean,
        };
        work.sum(sum, &activation, &mut map)
    })
}

#[pyfunction]
pub fn elementwise(
    py: Python<'_>,
    activation: &Bound<'_, PyAny>,
    gradient: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    method_name: &str,
    stream: usize,
) -> PyResult<()> {
    let method = match method_name {
        "hirescam" => Elementwise::HiResCam,
        "layercam" => Elementwise::LayerCam,
        _ => {
            let known = "\"hirescam\" and \"layercam\"";
            let what = format!("method: \"{method_name}\"; there are {known}");
            return Err(exception(py, "InputError", what));
        }
    };
    let (mut activation, mut gradient) = (Borrowed::new(activation)?, Borrowed::new(gradient)?);
    let mut out = Borrowed::new(out)?;
    let (activation, gradient) = (activation.input("activation")?, gradient.input("gradient")?);
    let mut map = out.output("map")?;
    let place = activation.place();
    run(py, place, stream, |work| work.elementwise(method, &activation, &gradient, &mut map))
}

#[pyfunction]
pub fn resample(
    py: Python<'_>,
    map: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    interpolation: &str,
    normalized: bool,
    stream: usize,
) -> PyResult<()> {
    let interpolation = match interpolation {
        "linear" => Interpolation::Linear,
        "nearest" => Interpolation::Nearest,
        _ => {
            let what =
                format!("interpolation: \"{interpolation}\"; there are \"linear\" and \"nearest\"");
            return Err(exception(py, "InputError", what));
        }
    };
    let (mut map, mut out) = (Borrowed::new(map)?, Borrowed::new(out)?);
    let (map, mut out) = (map.input("map")?, out.output("out")?);
    let place = map.place();
    run(py, place, stream, |work| work.resample(interpolation, normalized, &map, &mut out))
}

/// In place.
#[pyfunction]
pub fn normalize(py: Python<'_>, map: &Bound<'_, PyAny>, stream: usize) -> PyResult<()> {
    let mut map = Borrowed::new(map)?;
    let mut map = map.output("map")?;
    let place = map.tensor().place();
    run(py, place, stream, |work| work.normalize(&mut map))
}

#[pyfunction]
pub fn guided_product(
    py: Python<'_>,
    map: &Bound<'_, PyAny>,
    guided: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    normalized: bool,
    stream: usize,
) -> PyResult<()> {
    let (mut map, mut guided) = (Borrowed::new(map)?, Borrowed::new(guided)?);
    let mut out = Borrowed::new(out)?;
    let (map, guided, mut out) = (map.input("map")?, guided.input("guided")?, out.output("out")?);
    let place = map.place();
    run(py, place, stream, |work| work.guided_product(normalized, &map, &guided, &mut out))
}

#[pyfunction]
pub fn guided_activation(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    gradient: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    stream: usize,
) -> PyResult<()> {
    let (mut input, mut gradient) = (Borrowed::new(input)?, Borrowed::new(gradient)?);
    let mut out = Borrowed::new(out)?;
    let (input, gradient) = (input.input("input")?, gradient.input("gradient")?);
    let mut output = out.output("output")?;
    let place = input.place();
    run(py, place, stream, |work| work.guided_activation(&input, &gradient, &mut output))
}

//! How much memory a cohort takes: that of one forward with its maps is measured, on random input of sizes that
//! fit for certain; what cases take beside it is counted.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::Case;
use super::model_input::ModelInput;
use crate::error::{Error, Result};
use crate::explain::{Explainer, Request};
use crate::methods::Target;
use crate::record::MemoryPrediction;
use crate::torch::{Model, in_libtorch};

/// What is known of the memory of a cohort's cases.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    limit_bytes: u64,
    models: u64,
    /// Numbers of values of the input, and peaks of the process, ascending; the first is the process itself.
    trials: Vec<(usize, u64)>,
    tried_shape: Vec<usize>,
    tried: Duration,
    /// Values of the output for each of the input.
    output_share: f64,
    maps: usize,
}

impl Memory {
    /// Tries the model on inputs of the shape of the greatest case, or of smaller ones where that may not fit.
    pub(super) fn of(
        explainer: &mut Explainer<Model>,
        models: usize,
        (input, shape): (&ModelInput, &[usize]),
        limit_bytes: u64,
    ) -> Result<Self> {
        let mut memory = Self {
            limit_bytes,
            models: models as u64,
            trials: vec![(0, resident("VmRSS:")?)],
            tried_shape: Vec::new(),
            tried: Duration::ZERO,
            output_share: 1.0,
            maps: 1,
        };
        for tried in up_to(shape) {
            if !memory.is_safe(tried.iter().product()) {
                break;
            }
            match memory.attempt(explainer, &tried, input.kind) {
                Ok(()) => {}
                Err(error) if error.is_of_memory() && memory.trials.len() > 1 => break,
                // A model of one size, perhaps: the next trial tells.
                Err(_) if tried != shape => {}
                Err(error) => return Err(error.within("predicting memory")),
            }
        }
        explainer.forget_layers()?;
        Ok(memory)
    }

    /// Whether an input of this many values will not exceed the limit, even where it takes half as much again
    /// beyond the last trial as predicted. The first trial is of a small input, or of the only one that the model
    /// takes.
    fn is_safe(&self, values: usize) -> bool {
        let last = self.trials.last().map_or(0, |&(_, bytes)| bytes);
        let more = self.forward(values).saturating_sub(last);
        self.trials.len() == 1 || last + more + more / 2 <= self.limit_bytes
    }

    fn attempt(
        &mut self,
        explainer: &mut Explainer<Model>,
        shape: &[usize],
        kind: Kind,
    ) -> Result<()> {
        explainer.forget_layers()?;
        let extents: Vec<_> =
            shape.iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect();
        let place = (Kind::Float, explainer.network().device().to_tch());
        reset_peak()?;
        // Twice: libtorch optimises a graph once it has seen it run.
        for _ in 0..2 {
            let random = || Tensor::f_rand(&extents[..], place)?.f_to_kind(kind);
            let input = in_libtorch("rand", random)?;
            let start = Instant::now();
            let asked = explainer.explain(&input, &Request::default());
            // Random input may not have what is asked for, such as a voxel of some class.
            let explanation = match asked {
                Err(error) if !error.is_of_memory() => {
                    let targets = Some(vec![Target::Best]);
                    explainer.explain(&input, &Request { targets, ..Request::default() })?
                }
                asked => asked?,
            };
            self.tried = start.elapsed();
            self.maps = explanation.maps.len().max(1);
            self.output_share = explanation.output.numel() as f64 / input.numel() as f64;
        }
        let values = shape.iter().product();
        let peak = resident("VmHWM:")?;
        let least = self.trials.last().map_or(0, |&(_, bytes)| bytes);
        self.trials.push((values, peak.max(least)));
        self.tried_shape = shape.to_vec();
        Ok(())
    }

    /// The process while one input of this many values runs: as in the least trial with as many values, or, beyond
    /// all trials, on the line through the last two.
    fn forward(&self, values: usize) -> u64 {
        if let Some(&(_, bytes)) = self.trials.iter().find(|(tried, _)| *tried >= values) {
            return bytes;
        }
        let [.., (few, low), (many, high)] = self.trials[..] else {
            return self.trials.last().map_or(0, |&(_, bytes)| bytes);
        };
        let slope = (high - low) as f64 / (many - few) as f64;
        bytes(high as f64 + slope * (values - many) as f64)
    }

    /// What a case takes beside its forward.
    fn case(&self, image: usize, input: usize) -> u64 {
        let output = self.output_share * input as f64;
        let maps = (self.maps + 2) as f64 * image as f64;
        bytes(4.4 * (2.0 * image as f64 + input as f64 + output + maps))
    }

    /// The peak of a run with so many cases of this size in flight.
    fn peak(&self, image: usize, input: usize, in_flight: usize) -> u64 {
        let process = self.trials[0].1;
        let forward = self.forward(input) - process;
        process + self.models * forward + in_flight as u64 * self.case(image, input)
    }

    /// Refuses an image that does not fit even alone.
    pub(super) fn check(&self, input: &ModelInput, path: &Path) -> Result<()> {
        // What cannot be read or run says so itself.
        let Some((image, shape)) = input.shape(path) else { return Ok(()) };
        let peak = self.peak(image, shape.iter().product(), 1);
        if peak <= self.limit_bytes {
            return Ok(());
        }
        Err(Error::input(
            "memory",
            format!(
                "{}: the model's input of shape {shape:?} would take about {} MiB, more than the {} MiB that there \
                 are; let a model card bring images to a smaller size, or allow more",
                path.display(),
                peak >> 20,
                self.limit_bytes >> 20
            ),
        ))
    }

    /// What these cases will take, and how many of them, up to `most`, may be in flight.
    pub(super) fn predict(&self, sizes: &[Size], most: usize) -> Result<MemoryPrediction> {
        let fits = |size: &&Size| self.peak(size.image, size.input(), 1) <= self.limit_bytes;
        let largest =
            sizes.iter().filter(fits).max_by_key(|size| self.peak(size.image, size.input(), 1));
        let Some(largest) = largest else {
            let least = sizes.iter().map(|size| self.peak(size.image, size.input(), 1)).min();
            return Err(Error::input(
                "memory",
                format!(
                    "no case fits: the smallest would take about {} MiB, and there are {} MiB; let a model card \
                     bring images to a smaller size, or allow more",
                    least.unwrap_or(0) >> 20,
                    self.limit_bytes >> 20
                ),
            ));
        };
        let (image, input) = (largest.image, largest.input());
        let in_flight =
            (1..=most).rev().find(|&n| self.peak(image, input, n) <= self.limit_bytes).unwrap_or(1);
        Ok(MemoryPrediction {
            limit_bytes: self.limit_bytes,
            process_bytes: self.trials[0].1,
            forward_bytes: self.forward(input),
            case_bytes: self.case(image, input),
            in_flight,
            peak_bytes: self.peak(image, input, in_flight),
            largest: largest.id.clone(),
            input_shape: largest.shape.clone(),
            tried_shape: self.tried_shape.clone(),
            tried_seconds: self.tried.as_secs_f64(),
            too_large: sizes.len() - sizes.iter().filter(fits).count(),
        })
    }
}

/// How large a case is, by the header of its image.
pub(super) struct Size {
    id: String,
    /// Values of the image.
    image: usize,
    /// Shape of the model's input.
    pub(super) shape: Vec<usize>,
}

impl Size {
    /// `None` if it can be seen that this case will fail; it will say why.
    pub(super) fn of(case: &Case, input: &ModelInput) -> Option<Self> {
        let (image, shape) = input.shape(&case.image)?;
        Some(Self { id: case.id.clone(), image, shape })
    }

    pub(super) fn input(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The extents that trials begin with. What networks that halve them five times can take are multiples of it.
const LEAST: usize = 32;

/// Shapes `(B, C, [D,] H, W)` up to this one, the first of [`LEAST`] voxels along each axis, and each at most twice as
/// large as that before it: of the spatial extents, that grows which has the longest way to go.
fn up_to(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut grown = shape.to_vec();
    for extent in grown.iter_mut().skip(2) {
        *extent = LEAST.min(*extent);
    }
    let mut shapes = vec![grown.clone()];
    while let Some(axis) = (2..shape.len())
        .filter(|&axis| grown[axis] < shape[axis])
        .max_by_key(|&axis| shape[axis] / grown[axis])
    {
        grown[axis] = (2 * grown[axis]).min(shape[axis]);
        shapes.push(grown.clone());
    }
    shapes
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn bytes(number: f64) -> u64 {
    number as u64
}

/// Peak memory of this process in bytes; `None` if the system does not report it.
#[cfg(feature = "cli")]
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

fn resident(field: &str) -> Result<u64> {
    let unknown = || Error::unavailable("this system does not tell how much memory a process has");
    status_bytes(field).ok_or_else(unknown)
}

fn status_bytes(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Lets the peak of this process begin anew (proc(5), clear_refs).
fn reset_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").map_err(|error| {
        let what = format!("the peak memory of this process cannot be measured: {error}");
        Error::unavailable(what).because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_grow_to_the_whole() {
        assert_eq!(
            up_to(&[1, 2, 128, 70, 20]),
            [
                [1, 2, 32, 32, 20],
                [1, 2, 64, 32, 20],
                [1, 2, 64, 64, 20],
                [1, 2, 128, 64, 20],
                [1, 2, 128, 70, 20]
            ]
        );
        assert_eq!(up_to(&[4, 3, 24, 32]), [[4, 3, 24, 32]]);
    }
}

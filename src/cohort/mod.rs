//! Many images through one model, with reading, inference and writing at the same time.
//!
//! ```text
//! cases ──> read, prepare ──> infer, map ──────────> Sink::keep ──> finished
//!           (readers)         (one thread a model)   (writers)      (the caller's thread)
//! ```
//!
//! The slowest stage sets the pace. At most [`Threads::in_flight`] cases are begun and not finished, so memory
//! does not grow with the number of cases:
//!
//! `models + in_flight · (image + input of the model + output + maps) + models · peak of one forward with maps`
//!
//! A case that fails is handed to `finished` with its error, and the others go on. Maps and output of a case are
//! those of [`Explainer::explain`](crate::Explainer::explain) for its image alone, whatever the other cases are
//! and however many threads read and write.
//!
//! # Example
//!
//! ```no_run
//! use medcam::cohort::{Cancel, Case, Cohort, Explained};
//! use medcam::{Device, Explainer, Settings};
//!
//! let model = medcam::load("model.pt", Device::best())?;
//! let mut cohort = Cohort::new(vec![Explainer::new(model, Settings::default())?], None)?;
//! let cases = ["a.nii.gz", "b.nii.gz"].map(|image| Case::new(image, image));
//! // Runs on the threads that write: here the share of each map above one half.
//! let keep = |explained: Explained<'_>| {
//!     let share = |map: &medcam::AttentionMap| {
//!         Ok(map.values()?.mapv(|v| f32::from(v > 0.5)).mean())
//!     };
//!     explained.explanation.maps.iter().map(share).collect::<medcam::Result<Vec<_>>>()
//! };
//! cohort.run(cases, &keep, &Cancel::default(), |finished| {
//!     println!("{}: {:?}", finished.case.id, finished.kept);
//!     Ok(())
//! })?;
//! # Ok::<(), medcam::Error>(())
//! ```
//!
//! A closure is a [`Sink`]; [`Folder`] is the one that writes all files of `medcam map`.

mod folder;
mod journal;
mod memory;
mod model_input;
mod part;
mod records;
mod source;
mod stages;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Axis;
use tch::Tensor;

pub use folder::{Folder, Written};
pub use journal::{Earlier, Journal, Left, journals_in, output_file};
#[cfg(feature = "cli")]
pub(crate) use memory::peak_memory_bytes;
pub(crate) use model_input::ModelInput;
pub use part::Part;
pub use records::Records;
pub use source::cases_of;
pub use stages::{Cancel, StageTime, StageTimes, Threads};

use crate::error::{Error, Result};
use crate::explain::{Explainer, Explanation, MapSize, Request};
use crate::methods::Target;
use crate::record::MemoryPrediction;
use crate::torch::{IdleThreadsSleep, Model};
use crate::volumes::{Card, Input, Prepared};
use memory::{Memory, Size};
use stages::Steps;

/// One image to be explained.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Case {
    /// What its files and its rows in tables are called.
    pub id: String,
    /// The file of the image: see [`volumes::read`](crate::volumes::read).
    pub image: PathBuf,
    /// A mask, which a [`Folder`] scores its maps against.
    pub mask: Option<PathBuf>,
    /// What is explained, in place of [`Settings::targets`](crate::Settings::targets).
    pub targets: Option<Vec<Target>>,
}

impl Case {
    /// A case without a mask or targets of its own.
    pub fn new(id: impl Into<String>, image: impl Into<PathBuf>) -> Self {
        Self { id: id.into(), image: image.into(), mask: None, targets: None }
    }

    /// The mask of the image.
    #[must_use]
    pub fn mask(mut self, mask: impl Into<PathBuf>) -> Self {
        self.mask = Some(mask.into());
        self
    }

    /// What is explained of this case.
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        self.targets = Some(targets.into_iter().collect());
        self
    }
}

/// A case with its maps.
#[derive(Debug)]
#[non_exhaustive]
pub struct Explained<'a> {
    /// Its place among the cases, from 0.
    pub index: usize,
    /// The case.
    pub case: &'a Case,
    /// The image as it was read.
    pub input: Input,
    /// The image as the model got it, with the grid that leads back.
    pub prepared: Prepared,
    /// The model's output, and its maps.
    pub explanation: Explanation,
    /// Time spent reading and preparing the image.
    pub read: Duration,
}

/// What becomes of the maps of each case. A closure is one.
pub trait Sink: Sync {
    /// What is kept of a case.
    type Kept: Send;

    /// Keeps what is wanted of a case; on a thread of its own, while other cases are read and inferred.
    ///
    /// # Errors
    ///
    /// An error fails this case alone.
    fn keep(&self, explained: Explained<'_>) -> Result<Self::Kept>;
}

impl<K: Send, F: Fn(Explained<'_>) -> Result<K> + Sync> Sink for F {
    type Kept = K;

    fn keep(&self, explained: Explained<'_>) -> Result<K> {
        self(explained)
    }
}

/// A case at its end.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished<K> {
    /// Its place among the cases, from 0.
    pub index: usize,
    /// The case.
    pub case: Case,
    /// What the sink kept of it, or why it failed.
    pub kept: Result<K>,
}

/// Models and what their input is made of: see the [module](self).
#[derive(Debug)]
pub struct Cohort {
    explainers: Vec<Explainer<Model>>,
    input: ModelInput,
    size: Option<MapSize>,
    region: Option<Input>,
    threads: Threads,
    in_order: bool,
    memory: Option<Memory>,
}

/// An image that was read.
struct Read {
    input: Input,
    prepared: Prepared,
    time: Duration,
}

impl Cohort {
    /// A cohort for these models, each on a thread of its own: one for each device. `card` says how an image
    /// becomes their input; without one, it is fed as it is stored.
    ///
    /// # Errors
    ///
    /// If there is no model, or the models have different settings.
    pub fn new(explainers: Vec<Explainer<Model>>, card: Option<Card>) -> Result<Self> {
        let Some(first) = explainers.first() else {
            return Err(Error::usage("cohort: no model was given"));
        };
        if explainers.iter().any(|other| other.settings() != first.settings()) {
            return Err(Error::usage(
                "cohort: the models have different settings; give all the same",
            ));
        }
        let input = ModelInput::new(first.network(), card);
        let threads = Threads::for_models(explainers.len());
        let (size, region, memory) = (None, None, None);
        Ok(Self { explainers, input, size, region, threads, in_order: true, memory })
    }

    /// The size of the maps; by default each image's own, with which they lie on its grid.
    #[must_use]
    pub fn size(mut self, size: MapSize) -> Self {
        self.size = Some(size);
        self
    }

    /// Only this region of the output speaks: a mask over the field of view of each image.
    #[must_use]
    pub fn region(mut self, mask: Input) -> Self {
        self.region = Some(mask);
        self
    }

    /// The threads that read and write, and how many cases are in the pipeline.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// The threads of a run.
    pub fn used_threads(&self) -> Threads {
        self.threads
    }

    /// Whether cases are finished in their order (the default), or as they come.
    #[must_use]
    pub fn in_order(mut self, in_order: bool) -> Self {
        self.in_order = in_order;
        self
    }

    /// Keeps the process within so many bytes on the host, for these cases: lets fewer of them be in flight, and
    /// fails those that do not fit even alone, without reading them.
    ///
    /// How much memory a forward with its maps takes is found by trials on random input: from 32 voxels along
    /// each axis up to the greatest case, each at most twice as large as that before it, as long as the next is sure
    /// to fit. An input that is larger than those tried is taken to be on the line through the last two: a model
    /// whose memory grows faster than its input (attention between all voxels) takes more. Headers of all images
    /// are read.
    ///
    /// # Errors
    ///
    /// [`Error::is_input`] if no case fits, in which case all will fail, or no case has an image that the model could
    /// take; if the model fails on all trials, or the system does not tell what a process takes (only Linux
    /// does).
    pub fn max_memory(&mut self, cases: &[Case], limit_bytes: u64) -> Result<MemoryPrediction> {
        let Self { explainers, input, threads, .. } = self;
        let sizes: Vec<_> = cases.iter().filter_map(|case| Size::of(case, input)).collect();
        let (models, largest) = (explainers.len(), sizes.iter().max_by_key(|size| size.input()));
        let (Some(largest), Some(explainer)) = (largest, explainers.first_mut()) else {
            let what = "no case has an image that can be read and that the model could take";
            return Err(Error::input("memory", what));
        };
        let memory = Memory::of(explainer, models, (input, &largest.shape), limit_bytes)?;
        let prediction = memory.predict(&sizes, threads.in_flight.get());
        let in_flight = prediction.as_ref().map_or(1, |prediction| prediction.in_flight);
        threads.in_flight = NonZeroUsize::new(in_flight).unwrap_or(NonZeroUsize::MIN);
        self.memory = Some(memory);
        prediction
    }

    /// The models, which know their layers after a run.
    pub fn explainers(&self) -> &[Explainer<Model>] {
        &self.explainers
    }

    /// Takes each case through the pipeline; `finished` is called on this thread with what became of it.
    /// Returns when the last case is finished, with what the stages did meanwhile.
    ///
    /// Each step is a span of [`tracing`] (level `INFO`): `read`, `infer` and `write`, with the case's id.
    ///
    /// # Errors
    ///
    /// The error of `finished`: it begins no more cases, and those in the pipeline are finished.
    pub fn run<S: Sink>(
        &mut self,
        cases: impl IntoIterator<Item = Case, IntoIter: Send>,
        sink: &S,
        cancel: &Cancel,
        mut finished: impl FnMut(Finished<S::Kept>) -> Result<()>,
    ) -> Result<StageTimes> {
        let Self { explainers, input, size, region, threads, in_order, memory } = self;
        let (input, size, region, memory) = (&*input, *size, region.as_ref(), memory.as_ref());
        let read = |_, case: &Case| {
            let _span = tracing::info_span!("read", case = %case.id).entered();
            let start = Instant::now();
            memory.map_or(Ok(()), |memory| memory.check(input, &case.image))?;
            let (image, prepared) = input.read(&case.image)?;
            Ok(Read { input: image, prepared, time: start.elapsed() })
        };
        let infer = explainers.iter_mut().map(|explainer| {
            move |_, case: &Case, read: Read| {
                let _span = tracing::info_span!("infer", case = %case.id).entered();
                let explanation = explain(explainer, input, case, &read.prepared, size, region)?;
                Ok((read, explanation))
            }
        });
        let write = |index, case: &Case, (read, explanation): (Read, Explanation)| {
            let _span = tracing::info_span!("write", case = %case.id).entered();
            let Read { input, prepared, time } = read;
            sink.keep(Explained { index, case, input, prepared, explanation, read: time })
        };
        let steps = Steps { read, infer: infer.collect(), write };
        let cases = cases.into_iter();
        let _sleep = IdleThreadsSleep::begin();
        stages::run(cases, *threads, steps, cancel, *in_order, |index, case, kept| {
            finished(Finished { index, case, kept })
        })
    }
}

fn explain(
    explainer: &mut Explainer<Model>,
    input: &ModelInput,
    case: &Case,
    prepared: &Prepared,
    size: Option<MapSize>,
    region: Option<&Input>,
) -> Result<Explanation> {
    let tensor = input.tensor(prepared, explainer.network().device())?;
    let size = Some(size.unwrap_or(MapSize::Exact(prepared.grid.map_size())));
    let targets = match region {
        Some(mask) => Some(vec![region_of(mask, prepared, explainer, &tensor)?]),
        None => case.targets.clone(),
    };
    let explanation = explainer.explain(&tensor, &Request { targets, size });
    explanation.map_err(|error| input.with_hint(error, explainer.network(), &tensor))
}

/// The target region: the mask on the image's grid, resampled to the model's output grid.
fn region_of(
    mask: &Input,
    prepared: &Prepared,
    explainer: &mut Explainer<Model>,
    tensor: &Tensor,
) -> Result<Target> {
    let output = explainer.layers(tensor)?.output_shape();
    let mut grid = [1; 3];
    for (extent, &n) in grid.iter_mut().rev().zip(output.iter().skip(2).rev()) {
        *extent = usize::try_from(n).unwrap_or(1);
    }
    let is_flat = output.len() == 4;
    let mask = prepared.grid.prepare_mask(mask, grid)?.into_dyn();
    // (B, 1, D, H, W) to (B, [D,] H, W), as the output has it.
    let mask = mask.index_axis_move(Axis(1), 0);
    let mask = if is_flat { mask.index_axis_move(Axis(1), 0) } else { mask };
    let class = match explainer.settings().targets[..] {
        [Target::Class(class)] => Some(class),
        _ => None,
    };
    Ok(Target::Region { class, mask: Arc::new(mask) })
}

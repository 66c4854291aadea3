//! The chains: from an activation and its gradient to finished maps.

use super::{Kind, Tensor, TensorMut, Work, for_element, for_map_element};
use crate::element::Element;
use crate::error::Result;
use crate::ops::fused::cuda::Reader;
use crate::ops::fused::{self, Summary};
use crate::ops::summary::SampleSummary;
use crate::ops::{Method, Range, Recipe, View};

/// What a call is asked for beside the maps.
#[derive(Debug)]
enum Ask<'a, 't> {
    Nothing,
    /// A summary, which on a device takes a wait.
    Now,
    /// The words of summaries, which a device writes in its own time.
    Later(&'a mut TensorMut<'t>),
}

/// What a call tells beside the maps.
enum Told {
    Nothing,
    Now(Summary),
    Later(Reader),
}

/// The tensors that a chain reads.
struct Inputs<'a, 't> {
    activation: &'a Tensor<'t>,
    gradient: &'a Tensor<'t>,
    /// Of Guided Grad-CAM.
    guided: Option<&'a Tensor<'t>>,
}

impl Work<'_> {
    /// [`cam()`](crate::ops::cam()) into `map`, whose grid the map is resampled to.
    ///
    /// | argument | shape | type |
    /// |---|---|---|
    /// | `activation`, `gradient` | `(B, C, [D,] H, W)` | f32, f16 or bf16, both of one |
    /// | `map` | `(B, [D',] H', W')` or `(B, 1, [D',] H', W')` | f32, f16 or u8; written |
    ///
    /// `summary` asks for what the call knows of the maps. On a device that takes a wait; without it the
    /// chain is enqueued, and values that are not finite are not told.
    ///
    /// # Errors
    ///
    /// As [`cam()`](crate::ops::cam()), and if tensors do not fit each other, are on other devices or
    /// share memory.
    pub fn cam(
        &mut self,
        method: Method,
        normalized: bool,
        activation: &Tensor,
        gradient: &Tensor,
        map: &mut TensorMut,
        summary: bool,
    ) -> Result<Option<Summary>> {
        let inputs = Inputs { activation, gradient, guided: None };
        let ask = if summary { Ask::Now } else { Ask::Nothing };
        Ok(told_now(self.chain(method, normalized, &inputs, map, ask)?))
    }

    /// [`guided_cam()`](crate::ops::guided_cam()) into `map`.
    ///
    /// `guided` and `map` are `(B, [D',] H', W')` of one grid, `guided` f32; everything else as in
    /// [`cam`](Self::cam).
    ///
    /// # Errors
    ///
    /// As [`guided_cam()`](crate::ops::guided_cam()) and [`cam`](Self::cam).
    #[expect(clippy::too_many_arguments, reason = "four tensors and what to do with them")]
    pub fn guided_cam(
        &mut self,
        method: Method,
        normalized: bool,
        activation: &Tensor,
        gradient: &Tensor,
        guided: &Tensor,
        map: &mut TensorMut,
        summary: bool,
    ) -> Result<Option<Summary>> {
        let inputs = Inputs { activation, gradient, guided: Some(guided) };
        let ask = if summary { Ask::Now } else { Ask::Nothing };
        Ok(told_now(self.chain(method, normalized, &inputs, map, ask)?))
    }

    /// [`cam`](Self::cam), or with `guided` [`guided_cam`](Self::guided_cam), whose summary nobody waits
    /// for: a device writes it into `summaries`, `(B, 8)` i32, one [`SampleSummary`] for each map. The
    /// returned [`Reader`] reads them once they are on the host. On the CPU they are there at once.
    ///
    /// # Errors
    ///
    /// As [`cam`](Self::cam) and [`guided_cam`](Self::guided_cam). Of maps on a device, values that are
    /// not finite are an error of [`Reader::read`].
    #[expect(clippy::too_many_arguments, reason = "five tensors and what to do with them")]
    pub fn summarized_cam(
        &mut self,
        method: Method,
        normalized: bool,
        activation: &Tensor,
        gradient: &Tensor,
        guided: Option<&Tensor>,
        map: &mut TensorMut,
        summaries: &mut TensorMut,
    ) -> Result<Reader> {
        let inputs = Inputs { activation, gradient, guided };
        match self.chain(method, normalized, &inputs, map, Ask::Later(summaries))? {
            Told::Later(reader) => Ok(reader),
            Told::Nothing | Told::Now(_) => Err(map.tensor().refuse("no summaries of its maps")),
        }
    }

    fn chain(
        &mut self,
        method: Method,
        normalized: bool,
        inputs: &Inputs,
        map: &mut TensorMut,
        ask: Ask,
    ) -> Result<Told> {
        let &Inputs { activation, gradient, guided } = inputs;
        let read: Vec<&Tensor> = [activation, gradient].into_iter().chain(guided).collect();
        match &ask {
            Ask::Later(summaries) => self.check(&read, &[map, summaries])?,
            Ask::Nothing | Ask::Now => self.check(&read, &[map])?,
        }
        gradient.check_kind(activation.kind())?;
        if let Some(guided) = guided {
            guided.check_kind(Kind::F32)?;
        }
        let to = grid_for(activation, map.tensor())?;
        if let Some(guided) = guided
            && guided.maps()? != map.tensor().maps()?
        {
            return Err(guided.refuse("its grid is not that of the map"));
        }
        if let Ask::Later(summaries) = &ask {
            check_summaries(activation, summaries.tensor())?;
        }
        let recipe = Recipe { method, to: Some(to), normalized };
        for_element!(activation, T => for_map_element!(map.tensor(), O => match &mut self.stream {
            None => {
                activation.check_memory()?;
                let (activation, gradient) = (activation.view::<T>()?, gradient.view::<T>()?);
                let map = map.values::<O>()?;
                let summary = match guided {
                    None => fused::cam_into(&activation, &gradient, &recipe, map),
                    Some(guided) => {
                        let guided = guided.values::<f32>()?;
                        fused::guided_cam_into(&activation, &gradient, guided, &recipe, map)
                    }
                }?;
                Ok(match ask {
                    Ask::Nothing => Told::Nothing,
                    Ask::Now => Told::Now(summary),
                    Ask::Later(summaries) => {
                        write(&summary, &gradient, summaries.values::<i32>()?);
                        Told::Later(Reader::of::<O>(&recipe, activation.shape()))
                    }
                })
            }
            Some(stream) => {
                let activation = activation.device_view::<T>()?;
                let gradient = gradient.device_view::<T>()?;
                let map = map.slice::<O>()?;
                let pending = match guided {
                    None => fused::cuda::cam(stream, &activation, &gradient, &recipe, map),
                    Some(guided) => {
                        let guided = guided.slice::<f32>()?;
                        fused::cuda::guided_cam(stream, &activation, &gradient, guided, &recipe, map)
                    }
                }?;
                Ok(match ask {
                    Ask::Nothing => Told::Nothing,
                    Ask::Now => Told::Now(pending.finish()?),
                    Ask::Later(summaries) => {
                        Told::Later(pending.summarize(Some(&gradient), summaries.summaries()?)?)
                    }
                })
            }
        }))
    }
}

fn told_now(told: Told) -> Option<Summary> {
    match told {
        Told::Now(summary) => Some(summary),
        Told::Nothing | Told::Later(_) => None,
    }
}

/// Writes the words that a device would: what is not finite was an error before.
fn write<T: Element>(summary: &Summary, gradient: &View<T>, words: &mut [i32]) {
    let shape = gradient.shape();
    let is_zero = |b: usize| {
        let of_channel = |c: usize| (0..shape.voxels()).all(|n| gradient.value(b, c, n) == 0.0);
        (0..shape.channels).all(of_channel)
    };
    let of_maps = summary.ranges.iter().zip(&summary.weights_cancel).enumerate();
    for ((b, (&Range { minimum, maximum }, &cancel)), room) in
        of_maps.zip(words.chunks_mut(SampleSummary::WORDS))
    {
        let zero_gradient = (minimum, maximum) == (0.0, 0.0) && is_zero(b);
        let of_map = SampleSummary {
            minimum,
            maximum,
            weights_cancel: u32::from(cancel),
            zero_gradient: u32::from(zero_gradient),
            ..SampleSummary::default()
        };
        room.copy_from_slice(&of_map.words());
    }
}

/// The grid of maps that an activation becomes: of its batch, and in 2D if it is.
pub(super) fn grid_for(activation: &Tensor, map: &Tensor) -> Result<[usize; 3]> {
    let (shape, _) = activation.form()?;
    let (batch, grid) = map.maps()?;
    if batch != shape.batch {
        return Err(map.refuse(&format!("{batch} maps for a batch of {}", shape.batch)));
    }
    if activation.extents().len() == 4 && grid[0] != 1 {
        return Err(map.refuse("a depth, and the activation is 2D, (B, C, H, W)"));
    }
    Ok(grid)
}

/// Refuses room for summaries that is not eight words for each sample.
fn check_summaries(activation: &Tensor, summaries: &Tensor) -> Result<()> {
    let (shape, _) = activation.form()?;
    summaries.check_kind(Kind::I32)?;
    summaries.check_order()?;
    let expected = [shape.batch, SampleSummary::WORDS];
    if summaries.extents() == expected {
        return Ok(());
    }
    Err(summaries.refuse(&format!("summaries are (B, {}), {expected:?}", SampleSummary::WORDS)))
}

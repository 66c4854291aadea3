//! Small results of a device, which come to the host together: one copy, and one wait.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::arrays::download;
use crate::error::{Error, Result};
use crate::torch::in_libtorch;

/// Small tensors on a device whose values somebody will ask for, when all are there.
#[derive(Debug, Default)]
pub(crate) struct Readback {
    /// Of 32-bit integers, flat.
    parts: Vec<Tensor>,
    words: usize,
}

/// Where the values of a tensor will be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slot(Range<usize>);

/// The values of all tensors, on the host.
#[derive(Debug)]
pub(crate) struct Fetched(Vec<i32>);

/// What is known, or will be.
#[derive(Debug)]
pub(crate) enum Told<T> {
    Now(T),
    Later(Slot),
}

impl Readback {
    /// Asks for a tensor of f32, of integers or of booleans. Nothing waits.
    pub(crate) fn ask(&mut self, tensor: &Tensor) -> Result<Slot> {
        let part = in_libtorch("readback", || {
            let flat = tensor.f_detach()?.f_flatten(0, -1)?;
            match flat.kind() {
                Kind::Float => flat.f_view_dtype(Kind::Int),
                _ => flat.f_to_kind(Kind::Int),
            }
        })?;
        let start = self.words;
        self.words += part.numel();
        self.parts.push(part);
        Ok(Slot(start..self.words))
    }

    /// Waits for all that was asked for. Without anything there is no wait.
    pub(crate) fn fetch(&self) -> Result<Fetched> {
        let Some(first) = self.parts.first() else { return Ok(Fetched(Vec::new())) };
        let words = in_libtorch("readback", || {
            let parts: Vec<Tensor> = self
                .parts
                .iter()
                .map(|part| part.f_to_device(first.device()))
                .collect::<Result<_, _>>()?;
            Tensor::f_cat(&parts, 0)
        })?;
        let words = download(&words)?;
        let words = in_libtorch("readback", || Vec::<i32>::try_from(words))?;
        if words.len() == self.words {
            return Ok(Fetched(words));
        }
        Err(Error::model(format!("{} words came back of {}", words.len(), self.words)))
    }
}

impl Fetched {
    /// The integers, or the booleans as 0 and 1.
    pub(crate) fn integers(&self, slot: &Slot) -> &[i32] {
        self.0.get(slot.0.clone()).unwrap_or(&[])
    }

    /// The numbers of a tensor of f32.
    pub(crate) fn floats(&self, slot: &Slot) -> Vec<f32> {
        self.integers(slot).iter().map(|&word| f32::from_bits(word.cast_unsigned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_their_slots() {
        let mut readback = Readback::default();
        assert!(readback.fetch().unwrap().0.is_empty());
        let floats = readback.ask(&Tensor::from_slice(&[1.5_f32, f32::NAN, -0.0])).unwrap();
        let flags = readback.ask(&Tensor::from_slice(&[true, false])).unwrap();
        let classes = readback.ask(&Tensor::from_slice(&[7_i64]).reshape([1, 1])).unwrap();
        let fetched = readback.fetch().unwrap();
        let of = fetched.floats(&floats);
        assert!(of[0] == 1.5 && of[1].is_nan() && of[2].to_bits() == (-0.0_f32).to_bits());
        assert_eq!((fetched.integers(&flags), fetched.integers(&classes)), (&[1, 0][..], &[7][..]));
    }
}

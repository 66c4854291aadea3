//! Maps where they were made, on the host or on a device.

#[cfg(feature = "files")]
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use ndarray::Array5;
use tch::{Kind, Tensor};

use super::arrays::{extents, to_array, to_tensor};
use crate::error::{Error, Result};
use crate::torch::Device;
#[cfg(feature = "files")]
use crate::torch::in_libtorch;

/// Maps `(B, 1, D, H, W)`; 2D has `D = 1`. Those on a device stay there: their values come to the host
/// when somebody asks for them, once.
#[derive(Debug)]
pub(crate) struct MapValues {
    /// Shared by clones, so that one copy to the host serves all.
    host: Arc<OnceLock<Array5<f32>>>,
    /// f32, without gaps; `None` if the maps are on the host.
    device: Option<Tensor>,
}

impl Clone for MapValues {
    fn clone(&self) -> Self {
        let device = self.device.as_ref().map(Tensor::shallow_clone);
        Self { host: Arc::clone(&self.host), device }
    }
}

impl MapValues {
    pub(crate) fn on_host(values: Array5<f32>) -> Self {
        Self { host: Arc::new(OnceLock::from(values)), device: None }
    }

    /// `values` are `(B, 1, D, H, W)` in this order.
    pub(super) fn of_vec(values: Vec<f32>, batch: usize, [d, h, w]: [usize; 3]) -> Result<Self> {
        Array5::from_shape_vec([batch, 1, d, h, w], values)
            .map(Self::on_host)
            .map_err(|error| Error::input("map", &error).because(error))
    }

    /// `maps` is `(B, 1, D, H, W)`, f32 and without gaps.
    #[cfg(feature = "cuda")]
    pub(super) fn on_device(maps: Tensor) -> Self {
        Self { host: Arc::default(), device: Some(maps) }
    }

    /// The maps on their device, if they are on one.
    #[cfg(feature = "cuda")]
    pub(crate) fn device(&self) -> Option<&Tensor> {
        self.device.as_ref()
    }

    /// `B`, and `D, H, W`.
    pub(crate) fn form(&self) -> (usize, [usize; 3]) {
        let of = |extents: &[usize]| match *extents {
            [batch, _, d, h, w] => (batch, [d, h, w]),
            _ => (0, [0; 3]),
        };
        match (&self.device, self.host.get()) {
            (Some(maps), _) => of(&extents(maps)),
            (None, Some(maps)) => of(maps.shape()),
            (None, None) => (0, [0; 3]),
        }
    }

    /// The values on the host; of maps on a device the first call waits for them and copies them.
    pub(crate) fn array(&self) -> Result<&Array5<f32>> {
        if let (None, Some(maps)) = (self.host.get(), &self.device) {
            let values = to_array(maps)?
                .into_dimensionality()
                .map_err(|error| Error::input("map", &error).because(error))?;
            // Another thread may have been faster, with the same values.
            let _ = self.host.set(values);
        }
        self.host.get().ok_or_else(|| Error::model("the values of a map are gone"))
    }

    /// The values as a reader of an 8-bit file gets them, 255ths, where that saves copying: of maps on a
    /// device that are not on the host yet. Others come as they are.
    #[cfg(feature = "files")]
    pub(crate) fn array_in_255ths(&self) -> Result<Cow<'_, Array5<f32>>> {
        let Some(maps) = self.device.as_ref().filter(|_| self.host.get().is_none()) else {
            return self.array().map(Cow::Borrowed);
        };
        let values = narrowed(maps)?;
        let bytes = to_array(&values)?
            .into_dimensionality()
            .map_err(|error| Error::input("map", &error).because(error))?;
        Ok(Cow::Owned(bytes / 255.0))
    }

    /// The maps as a tensor: themselves where they are on a device, else a copy.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match &self.device {
            Some(maps) => Ok(maps.shallow_clone()),
            None => to_tensor(&self.array()?.clone().into_dyn(), Device::Cpu, Kind::Float),
        }
    }
}

/// `round(255·v)`, halves upwards, as the files have it, in 8 bits.
#[cfg(feature = "files")]
fn narrowed(maps: &Tensor) -> Result<Tensor> {
    in_libtorch("map", || {
        let scaled = maps.f_clamp(0, 1)?.f_mul_scalar(255)?;
        let below = scaled.f_floor()?;
        let up = scaled.f_sub(&below)?.f_ge(0.5)?;
        below.f_add(&up)?.f_to_kind(Kind::Uint8)
    })
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::narrowed;

    #[test]
    fn bytes_are_those_of_the_files() {
        let mut values: Vec<f32> = (0..=1020).map(|i| i as f32 / 1020.0).collect();
        values.extend([0.5 / 255.0, 42.5 / 255.0, 0.499_999_97 / 255.0, f32::EPSILON, 1.0]);
        let bytes = narrowed(&tch::Tensor::from_slice(&values)).unwrap();
        let bytes = Vec::<u8>::try_from(bytes).unwrap();
        let of_file = |value: &f32| (value.clamp(0.0, 1.0) * 255.0).round();
        let bytes: Vec<_> = bytes.into_iter().map(f32::from).collect();
        assert_eq!(bytes, values.iter().map(of_file).collect::<Vec<_>>());
    }
}

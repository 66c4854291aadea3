//! Fuses the maps of several layers where they are.

use tch::Tensor;

use super::settings::Fuse;
use crate::bridge::{LayerMaps, MapMaker};
use crate::error::{Error, Result};
use crate::torch::in_libtorch;

/// The maps of several layers as one, normalised; `None` if they are not all on a device.
///
/// As [`AttentionMap::fused`](super::AttentionMap::fused) does it on the host, with the same sums in the same
/// order. Nothing waits: which of the maps are noise only the device knows.
pub(super) fn fused(
    maker: &mut MapMaker,
    layers: &[(&str, &LayerMaps)],
    fuse: Fuse,
) -> Result<Option<LayerMaps>> {
    let Some((first, rest)) = layers.split_first() else { return Ok(None) };
    for other in rest {
        check_sizes((first.0, first.1.form()), (other.0, other.1.form()))?;
    }
    let mut there = Vec::new();
    for (_, maps) in layers {
        let Some(maps) = maps.on_device()? else { return Ok(None) };
        there.push(maps);
    }
    let fused = in_libtorch("fuse", || combined(&there, fuse))?;
    let fused = maker.values(&fused)?;
    let (_, grid) = fused.form();
    maker.resample_normalized(&fused, grid, None).map(Some)
}

/// Refuses maps of two sizes.
pub(super) fn check_sizes<F: PartialEq>(first: (&str, F), other: (&str, F)) -> Result<()> {
    if first.1 == other.1 {
        return Ok(());
    }
    Err(Error::usage(format!(
        "fuse: the maps of '{}' and '{}' have different sizes; ask for one size",
        first.0, other.0
    )))
}

/// The mean or the greatest of the maps `(B, 1, D, H, W)` of each sample, without those that are noise (1 in
/// `(B)`) unless all are.
fn combined(maps: &[(&Tensor, Tensor)], fuse: Fuse) -> Result<Tensor, tch::TchError> {
    let Some((like, noise)) = maps.first() else {
        return Ok(Tensor::new());
    };
    let mut all_noise = noise.shallow_clone();
    for (_, noise) in maps {
        all_noise = all_noise.f_minimum(noise)?;
    }
    let mut fused = like.f_zeros_like()?;
    let mut count = all_noise.f_zeros_like()?;
    for (map, noise) in maps {
        // 1 where the map counts.
        let kept = noise.f_neg()?.f_add_scalar(1)?.f_maximum(&all_noise)?;
        let map = map.f_mul(&kept.f_reshape([-1, 1, 1, 1, 1])?)?;
        fused = match fuse {
            Fuse::Mean => fused.f_add(&map)?,
            Fuse::Max => fused.f_maximum(&map)?,
        };
        count = count.f_add(&kept)?;
    }
    match fuse {
        Fuse::Mean => fused.f_div(&count.f_reshape([-1, 1, 1, 1, 1])?),
        Fuse::Max => Ok(fused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_left_out_unless_all_is() {
        // Two samples of one voxel; of the first sample the second map is noise, of the other all are.
        let map = |values: [f32; 2]| Tensor::from_slice(&values).reshape([2, 1, 1, 1, 1]);
        let (one, two, three) = (map([0.25, 0.5]), map([1.0, 0.75]), map([0.5, 0.25]));
        let noise = |flags: [f32; 2]| Tensor::from_slice(&flags);
        let maps =
            [(&one, noise([0.0, 1.0])), (&two, noise([1.0, 1.0])), (&three, noise([0.0, 1.0]))];
        let of =
            |fuse| Vec::<f32>::try_from(combined(&maps, fuse).unwrap().flatten(0, -1)).unwrap();
        assert_eq!(of(Fuse::Mean), [0.375, 0.5]);
        assert_eq!(of(Fuse::Max), [0.5, 0.75]);
    }
}

//! How much of a map is attention: by hand, and against a direct count.

use medcam::evaluation::Threshold;
use medcam::outputs::{MapView, volumes_above};
use medcam::record::MapVolume;
use medcam::volumes::{Card, Grid, Input, MapType, Volume};
use ndarray::{Array3, ArrayD, array};
use nifti::NiftiHeader;
use proptest::prelude::*;

/// The grid of a volume of this shape whose sform has these rows, in this unit of NIfTI.
fn grid(shape: [usize; 3], rows: [[f32; 4]; 3], unit: u8) -> Grid {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let header = NiftiHeader {
        sform_code: 1,
        srow_x: rows[0],
        srow_y: rows[1],
        srow_z: rows[2],
        xyzt_units: unit,
        ..NiftiHeader::default()
    };
    let options = nifti::writer::WriterOptions::new(&path).reference_header(&header);
    options.write_nifti(&Array3::<f32>::ones(shape)).unwrap();
    let volume = Volume::read(&path).unwrap();
    Card::default().prepare(&Input::Volume(volume), Some(3)).unwrap().grid
}

fn measured(
    values: &ArrayD<f32>,
    classes: &[Option<usize>],
    grid: (&Grid, MapType),
    threshold: Threshold,
) -> medcam::Result<Vec<MapVolume>> {
    let values = values.view();
    let map = MapView { layer: "up2", target: "class2", values, classes, signed: false };
    volumes_above(&map, grid, threshold)
}

/// A sheared grid: the determinant, not the product of the spacings, is the volume of a voxel.
const ROWS: [[f32; 4]; 3] = [[2.0, 0.0, 0.5, -7.0], [0.0, 3.0, 0.0, 5.0], [0.0, 0.0, 0.5, 1.0]];

#[test]
fn a_volume_is_counted_by_hand() {
    // 24 voxels of 2·3·0.5 = 3 mm³; the map is the same in each of four.
    let values = array![0.0_f32, 0.1, 0.2, 0.8, 0.9, 1.0];
    let grid_mm = grid([2, 3, 4], ROWS, 2);
    let [d, h, w] = grid_mm.map_size();
    let place = |at: &ndarray::IxDyn| (at[2] * h + at[3]) * w + at[4];
    let values = ArrayD::from_shape_fn(vec![1, 1, d, h, w], |at| values[place(&at) % 6]);
    for dtype in [MapType::F32, MapType::U8] {
        let expected = |threshold, share, volume_ml| MapVolume {
            layer: "up2".to_owned(),
            target: "class2".to_owned(),
            sample: 0,
            class: Some(2),
            threshold,
            share,
            volume_ml: Some(volume_ml),
        };
        let of = |threshold| measured(&values, &[Some(2)], (&grid_mm, dtype), threshold).unwrap();
        assert_eq!(of(Threshold::Value(0.85)), [expected(0.85, 8.0 / 24.0, 0.024)]);
        // Otsu's threshold lies between 0.2 and 0.8; of the equal ones, the lowest counts.
        let otsu = of(Threshold::Otsu);
        assert_eq!(otsu, [expected(otsu[0].threshold, 0.5, 0.036)]);
        // The centre of the bin of 0.2.
        assert_eq!(otsu[0].threshold, 103.0 / 512.0);
        assert_eq!(of(Threshold::Value(0.0))[0].volume_ml, Some(0.072));
    }
    // Metres and micrometres.
    let ml = |unit| {
        let grid = grid([2, 3, 4], ROWS, unit);
        let all = Threshold::Value(0.0);
        measured(&values, &[None], (&grid, MapType::F32), all).unwrap()[0].volume_ml.unwrap()
    };
    assert!((ml(1) / 72e6 - 1.0).abs() < 1e-12 && (ml(3) / 72e-12 - 1.0).abs() < 1e-12);
    assert_eq!(ml(0), 0.072);

    // A map of half the size has voxels of eight times the volume, and the same field of view.
    let small = ArrayD::from_shape_fn(vec![1, 1, 2, 1, 1], |at| at[2] as f32);
    let grid = grid([2, 2, 4], ROWS, 2);
    let half = measured(&small, &[None], (&grid, MapType::F32), Threshold::Value(0.5)).unwrap();
    assert_eq!((half[0].share, half[0].volume_ml), (0.5, Some(0.024)));
}

#[test]
fn a_constant_map_has_no_attention() {
    let grid = grid([2, 3, 4], ROWS, 2);
    for value in [0.0, 0.5, 1.0] {
        let values = ArrayD::from_elem(vec![1, 1, 4, 3, 2], value);
        for threshold in [Threshold::Otsu, Threshold::Value(0.2)] {
            let volume = &measured(&values, &[None], (&grid, MapType::F32), threshold).unwrap()[0];
            let found = (volume.threshold, volume.share, volume.volume_ml);
            assert_eq!(found, (1.0, 0.0, Some(0.0)));
        }
    }
}

#[test]
fn samples_are_measured_one_by_one() {
    let grid = Grid::of_array_shape(&[2, 3, 1, 4]).unwrap();
    let values = array![[[[0.0, 0.2, 0.9, 1.0]]], [[[0.0, 0.2, 0.4, 1.0]]]].into_dyn();
    let half = Threshold::Value(0.5);
    for dtype in [MapType::F32, MapType::U8] {
        let volumes = measured(&values, &[Some(1), None], (&grid, dtype), half).unwrap();
        let found: Vec<_> = volumes.iter().map(|v| (v.sample, v.class, v.share)).collect();
        assert_eq!(found, [(0, Some(1), 0.5), (1, None, 0.25)]);
        assert!(volumes.iter().all(|volume| volume.volume_ml.is_none()));
    }
    let error = measured(&values, &[None], (&grid, MapType::F32), half).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("2 samples"), "{error}");
    let error = measured(&values, &[None; 2], (&grid, MapType::F32), Threshold::Value(1.5));
    assert!(error.unwrap_err().is_input());
    let nan = values.mapv(|value| if value == 0.9 { f32::NAN } else { value });
    let error = measured(&nan, &[None; 2], (&grid, MapType::F32), half).unwrap_err();
    assert!(error.to_string().contains("layer 'up2'"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_share_is_a_direct_count(
        shape in (1_usize..8, 1_usize..10, 1_usize..12),
        seed in 1_u32..1000,
        given in proptest::option::of(0.01_f32..1.0),
    ) {
        let grid = grid(shape.into(), ROWS, 2);
        let [d, h, w] = grid.map_size();
        // The least value is 0 and the greatest 1, so normalisation changes nothing.
        let count = d * h * w;
        let mut state = seed;
        let mut values: Vec<f32> = (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32
            })
            .collect();
        values[0] = 0.0;
        values[count - 1] = 1.0;
        prop_assume!(count > 1);
        let map = ArrayD::from_shape_vec(vec![1, 1, d, h, w], values.clone()).unwrap();
        let threshold = given.map_or(Threshold::Otsu, Threshold::Value);
        let volume = &measured(&map, &[None], (&grid, MapType::F32), threshold).unwrap()[0];
        if let Some(given) = given {
            prop_assert_eq!(volume.threshold.to_string(), given.to_string());
        }
        #[expect(clippy::cast_possible_truncation, reason = "the number that was given")]
        let threshold = volume.threshold as f32;
        let direct = values.iter().filter(|value| **value >= threshold).count() as f64;
        prop_assert!((volume.share * count as f64 - direct).abs() < 1e-9);
        prop_assert!((volume.volume_ml.unwrap() - direct * 0.003).abs() < 1e-12);
    }
}

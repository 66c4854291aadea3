//! From an image to the model's axes, and back.

use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
use medcam::outputs::{MapView, Names, save_maps, score};
use medcam::volumes::{Card, Grid, Image, Input, MapType, Volume, read, read_npy, stem_of};
use ndarray::{Array3, Array4, Array5, ArrayD, Axis, s};
use proptest::prelude::*;

use super::fixtures::{oblique_header, ramp, write_nifti, write_nifti_4d};

fn oblique_volume(shape: [usize; 3]) -> Volume {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    write_nifti(&path, &oblique_header(), &ramp(shape));
    Volume::read(&path).unwrap()
}

/// All 48 orientation codes, from their definition.
fn all_codes() -> Vec<String> {
    let pairs = [['L', 'R'], ['P', 'A'], ['I', 'S']];
    let mut codes = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for signs in 0..8_usize {
            codes.push((0..3).map(|axis| pairs[order[axis]][signs >> axis & 1]).collect());
        }
    }
    codes
}

fn model_map(tensor: &ArrayD<f32>) -> Array3<f32> {
    let map = tensor.index_axis(Axis(0), 0).index_axis_move(Axis(0), 0).to_owned();
    map.into_dimensionality().unwrap()
}

proptest! {
    #[test]
    fn reorientation_is_undone(
        code in prop::sample::select(all_codes()),
        axes in prop::sample::select(vec!["xyz", "zyx"]),
        shape in prop::array::uniform3(1_usize..7),
    ) {
        let volume = oblique_volume(shape);
        let card: Card =
            format!("[input]\norientation = \"{code}\"\naxes = \"{axes}\"").parse().unwrap();
        let input = Input::Volume(volume.clone());
        let prepared = card.prepare(&input, Some(3)).unwrap();
        let map = model_map(&prepared.tensor);
        prop_assert_eq!(map.shape(), prepared.grid.map_size());
        prop_assert_eq!(prepared.grid.restore(map.view()), volume.data.index_axis(Axis(0), 0));
        // A mask is reoriented like the image.
        let mask = prepared.grid.prepare_mask(&input, prepared.grid.map_size()).unwrap();
        prop_assert_eq!(mask.into_dyn(), prepared.tensor);
    }
}

#[test]
fn ras_axes_run_right_anterior_superior() {
    // The file's x axis runs left: RAS flips it and keeps the others.
    let volume = oblique_volume([3, 4, 5]);
    assert_eq!(volume.axis_codes(), ['L', 'A', 'S']);
    let card: Card = "[input]\norientation = \"RAS\"".parse().unwrap();
    let tensor = card.prepare(&Input::Volume(volume.clone()), None).unwrap().tensor;
    assert_eq!(model_map(&tensor), volume.data.slice(s![0, ..;-1, .., ..]));
    let card: Card = "[input]\norientation = \"RAS\"\naxes = \"zyx\"".parse().unwrap();
    let tensor = card.prepare(&Input::Volume(volume.clone()), None).unwrap().tensor;
    assert_eq!(model_map(&tensor), volume.data.slice(s![0, ..;-1, .., ..]).reversed_axes());
}

#[test]
fn other_shapes_are_no_grid_and_no_map() {
    for shape in [&[][..], &[3], &[1, 2, 3], &[1; 6]] {
        let error = Grid::of_array_shape(shape).unwrap_err();
        assert!(error.is_input() && error.to_string().contains(&format!("{shape:?}")), "{error}");
    }
    let (folder, grid) =
        (tempfile::tempdir().unwrap(), Grid::of_array_shape(&[1, 3, 4, 5]).unwrap());
    for shape in
        [&[][..], &[4, 5], &[1, 0, 4, 5], &[1, 2, 4, 5], &[0, 1, 4, 5], &[1, 1, 1, 1, 4, 5]]
    {
        let values = ArrayD::zeros(shape);
        let map = MapView {
            layer: "up2",
            target: "best",
            values: values.view(),
            classes: &[None],
            signed: false,
        };
        let names = Names { folder: folder.path(), stem: "scan", one_target: true };
        let saved = save_maps(&[map], &names, &grid, MapType::F32, &mut |_| {});
        let error = saved.unwrap_err();
        assert!(error.is_input() && error.to_string().contains("layer 'up2': shape"), "{error}");
    }
    let values = ArrayD::ones(&[1, 1, 4, 5][..]);
    let map = MapView {
        layer: "up2",
        target: "best",
        values: values.view(),
        classes: &[None, None],
        signed: false,
    };
    let mut evaluator = Evaluator::new(Scoring::new(vec![Metric::Ioa], Threshold::Otsu));
    let (place, mask) = ((&grid, MapType::F32), (&Input::Array(values.clone()), "mask"));
    let error = score(&mut evaluator, &map, place, mask, "scan", &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("1 samples and the classes of 2"), "{error}");
}

#[test]
fn a_map_is_scored_as_it_will_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Input::Volume(oblique_volume([6, 9, 5]));
    let picture = Input::Image(Image::new(Array3::zeros((1, 7, 8))));
    let card: Card = "[input]\norientation = \"SPL\"".parse().unwrap();
    let inputs = [
        (card.prepare(&volume, Some(3)).unwrap().grid, 1),
        (Card::default().prepare(&picture, Some(2)).unwrap().grid, 1),
        (Grid::of_array_shape(&[2, 3, 4, 5]).unwrap(), 2),
        (Grid::of_array_shape(&[2, 3, 4, 5, 6]).unwrap(), 2),
    ];
    for (number, (grid, batch)) in inputs.iter().enumerate() {
        let own = grid.map_size();
        for size in [own, own.map(|n| if n == 1 { 1 } else { n - 1 })] {
            let map =
                Array5::from_shape_fn((*batch, 1, size[0], size[1], size[2]), |(b, _, d, h, w)| {
                    ((b + 3 * d + 5 * h + 7 * w) % 11) as f32 / 10.3
                });
            for dtype in [MapType::F32, MapType::U8] {
                let stem = format!("map{number}");
                let files = grid.save_map(folder.path(), &stem, map.view(), dtype).unwrap();
                let read = medcam::volumes::read(files.last().unwrap()).unwrap();
                match (grid.as_written(map.view(), dtype).unwrap(), read) {
                    (Input::Volume(ours), Input::Volume(read)) => {
                        assert_eq!(ours.data, read.data);
                        assert_eq!((ours.affine, ours.spacing_mm), (read.affine, read.spacing_mm));
                    }
                    (Input::Array(ours), Input::Array(read)) => assert_eq!(ours, read),
                    (ours, read) => panic!("{ours:?} {read:?}"),
                }
            }
        }
    }
}

#[test]
fn a_map_is_written_onto_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let volume = oblique_volume([6, 9, 5]);
    let card: Card = "[input]\norientation = \"SPL\"\nsize = [7, 4, 8]".parse().unwrap();
    let prepared = card.prepare(&Input::Volume(volume.clone()), Some(3)).unwrap();
    assert_eq!(prepared.tensor.shape(), [1, 1, 7, 4, 8]);
    assert_eq!(prepared.grid.map_size(), [5, 9, 6]);

    // A map on the image's own grid.
    let map = Array5::from_shape_fn((1, 1, 5, 9, 6), |(_, _, d, h, w)| (d + h + w) as f32 / 20.0);
    let files = prepared.grid.save_map(folder.path(), "map", map.view(), MapType::F32).unwrap();
    assert_eq!(files, [folder.path().join("map.nii.gz")]);
    let back = Volume::read(&files[0]).unwrap();
    assert_eq!(back.affine, volume.affine);
    assert_eq!(back.spacing_mm, volume.spacing_mm);
    let restored = prepared.grid.restore(map.slice(s![0, 0, .., .., ..]));
    assert_eq!(back.data.index_axis(Axis(0), 0), restored);

    // 8-bit maps are within half a step.
    let files = prepared.grid.save_map(folder.path(), "small", map.view(), MapType::U8).unwrap();
    let back = Volume::read(&files[0]).unwrap();
    let error = (&back.data.index_axis(Axis(0), 0) - &restored).mapv(f32::abs);
    assert!(error.iter().all(|&e| e <= 0.5 / 255.0 + 1e-6));
    // A reader that scales in f64 gets no value above 1.
    let file = folder.path().join("ones.nii");
    volume.write_map(&file, &restored.mapv(|_| 1.0), MapType::U8).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let slope = f64::from(f32::from_le_bytes(bytes[112..116].try_into().unwrap()));
    let greatest = f64::from(bytes[352]) * slope;
    assert!((1.0 - 1e-7..=1.0).contains(&greatest), "{greatest}");

    // A map on the layer's grid covers the same field of view, from corner to corner.
    let map = Array5::zeros((1, 1, 2, 3, 4));
    let files = prepared.grid.save_map(folder.path(), "layer", map.view(), MapType::F32).unwrap();
    let back = Volume::read(&files[0]).unwrap();
    assert_eq!(back.data.dim(), (1, 4, 3, 2));
    let corner = |v: &Volume, far: bool| {
        let (_, i, j, k) = v.data.dim();
        let at = [i, j, k].map(|n| if far { n as f64 - 0.5 } else { -0.5 });
        [0, 1, 2].map(|r| v.affine[r][3] + (0..3).map(|c| v.affine[r][c] * at[c]).sum::<f64>())
    };
    for far in [false, true] {
        for (a, b) in corner(&back, far).into_iter().zip(corner(&volume, far)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn spacing_sets_the_size() {
    let volume = oblique_volume([6, 9, 5]);
    // 6·0.8, 9·1.1, 5·3.5 mm at 1, 1, 2 mm: 4.8, 9.9, 8.75 voxels.
    let card: Card = "[input]\nspacing_mm = [1, 1, 2]".parse().unwrap();
    let tensor = card.prepare(&Input::Volume(volume), Some(3)).unwrap().tensor;
    assert_eq!(tensor.shape(), [1, 1, 5, 10, 9]);
}

#[test]
fn channels_stay_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("four.nii.gz");
    let data =
        Array4::from_shape_fn((2, 3, 4, 5), |(i, j, k, c)| (i + 2 * j + 6 * k + 24 * c) as f32);
    write_nifti_4d(&path, &oblique_header(), &data);
    let volume = Volume::read(&path).unwrap();
    assert_eq!(volume.data, data.permuted_axes([3, 0, 1, 2]));
    let tensor = Card::default().prepare(&Input::Volume(volume), Some(3)).unwrap().tensor;
    assert_eq!(tensor.shape(), [1, 5, 2, 3, 4]);
    assert_eq!(tensor[[0, 4, 1, 2, 3]], 119.0);
}

#[test]
fn a_single_slice_feeds_a_2d_model() {
    let folder = tempfile::tempdir().unwrap();
    let volume = oblique_volume([6, 1, 5]);
    let input = Input::Volume(volume.clone());
    let card: Card = "[input]\nsize = [10, 12]".parse().unwrap();
    let prepared = card.prepare(&input, Some(2)).unwrap();
    assert_eq!(prepared.tensor.shape(), [1, 1, 10, 12]);
    assert_eq!(prepared.grid.map_size(), [1, 6, 5]);
    let map = Array5::from_shape_fn((1, 1, 1, 6, 5), |(_, _, _, h, w)| (h * 5 + w) as f32);
    let file =
        prepared.grid.save_map(folder.path(), "m", map.view(), MapType::F32).unwrap().remove(0);
    let back = Volume::read(file).unwrap();
    assert_eq!(back.data.dim(), (1, 6, 1, 5));
    assert_eq!(back.data[[0, 3, 0, 2]], 17.0);
    // Without a rank the axis stays; a 2D model refuses no or two axes of extent 1.
    assert_eq!(Card::default().prepare(&input, None).unwrap().tensor.ndim(), 5);
    for shape in [[6, 2, 5], [6, 1, 1]] {
        let input = Input::Volume(oblique_volume(shape));
        let error = Card::default().prepare(&input, Some(2)).unwrap_err().to_string();
        assert!(error.contains(&format!("{shape:?}")), "{error}");
    }
}

#[test]
fn pictures_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.PNG");
    let pixels = vec![0, 51, 102, 255, 255, 255, 255, 0, 0, 128, 0, 0];
    // Three RGBA pixels in one row.
    image::RgbaImage::from_raw(3, 1, pixels)
        .unwrap()
        .save_with_format(&path, image::ImageFormat::Png)
        .unwrap();
    let input = read(&path).unwrap();
    let Input::Image(Image { data, .. }) = &input else { panic!("{input:?}") };
    assert_eq!(data.dim(), (3, 1, 3));
    assert!((data[[1, 0, 0]] - 0.2).abs() < 1e-6);
    let card: Card = "[input]\ncolor = \"gray\"".parse().unwrap();
    let prepared = card.prepare(&input, Some(2)).unwrap();
    assert_eq!(prepared.tensor.shape(), [1, 1, 1, 3]);
    let expected = 0.587 * 0.2 + 0.114 * 0.4;
    assert!((prepared.tensor[[0, 0, 0, 0]] - expected).abs() < 1e-6);
    assert!(card.prepare(&input, Some(3)).unwrap_err().is_input());

    let map = Array5::from_shape_vec((1, 1, 1, 1, 3), vec![0.0, 0.5, 1.0]).unwrap();
    let stem = stem_of(&path);
    let files = prepared.grid.save_map(folder.path(), &stem, map.view(), MapType::F32).unwrap();
    assert_eq!(files, ["photo.png", "photo.npy"].map(|name| folder.path().join(name)));
    assert_eq!(read_npy(&files[1]).unwrap().shape(), [1, 3]);
    let gray = image::open(&files[0]).unwrap().into_luma8();
    assert_eq!(gray.into_raw(), [0, 128, 255]);
}

#[test]
fn arrays_keep_their_batch() {
    let folder = tempfile::tempdir().unwrap();
    for (shape, map_shape, saved) in [
        (vec![2, 3, 4, 5], (2, 1, 1, 4, 5), vec![2, 1, 4, 5]),
        (vec![2, 3, 6, 4, 5], (2, 1, 3, 2, 2), vec![2, 1, 3, 2, 2]),
    ] {
        let input = Input::Array(ArrayD::zeros(shape));
        let grid = Card::default().prepare(&input, None).unwrap().grid;
        let map = Array5::from_elem(map_shape, 0.5);
        let files = grid.save_map(folder.path(), "maps", map.view(), MapType::U8).unwrap();
        let back = read_npy(&files[0]).unwrap();
        assert_eq!(back.shape(), saved);
        assert_eq!(back[vec![0; saved.len()].as_slice()], 128.0);
        let one = Array5::zeros((1, 1, 1, 1, 1));
        assert!(
            grid.save_map(folder.path(), "one", one.view(), MapType::U8).unwrap_err().is_input()
        );
    }
}

#[test]
fn masks_must_lie_on_the_image() {
    let image = Input::Volume(oblique_volume([4, 5, 6]));
    let grid = Card::default().prepare(&image, None).unwrap().grid;
    let smaller = Input::Volume(oblique_volume([4, 5, 5]));
    let error = grid.prepare_mask(&smaller, [4, 5, 6]).unwrap_err().to_string();
    assert!(error.contains("[4, 5, 5]") && error.contains("[4, 5, 6]"), "{error}");
    let mut turned = oblique_volume([4, 5, 6]);
    turned.affine[0][0] *= -1.0;
    turned.affine[1][0] *= -1.0;
    let error = grid.prepare_mask(&Input::Volume(turned), [4, 5, 6]).unwrap_err().to_string();
    assert!(error.contains("LAS") && error.contains("RAS"), "{error}");
    let array = Input::Array(ArrayD::ones(vec![4, 5, 6]));
    assert_eq!(grid.prepare_mask(&array, [2, 2, 2]).unwrap(), Array5::<f32>::ones((1, 1, 2, 2, 2)));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let grid =
        Card::default().prepare(&Input::Volume(oblique_volume([2, 2, 2])), None).unwrap().grid;
    let error = grid
        .save_map("no/such/folder", "map", Array5::zeros((1, 1, 2, 2, 2)).view(), MapType::F32)
        .unwrap_err();
    assert!(error.is_file());
    assert!(error.to_string().contains("no/such/folder/map.nii.gz"), "{error}");
}

#[test]
fn nothing_but_the_map_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let grid =
        Card::default().prepare(&Input::Volume(oblique_volume([2, 2, 2])), None).unwrap().grid;
    let map = Array5::zeros((1, 1, 2, 2, 2));
    grid.save_map(folder.path(), "map", map.view(), MapType::F32).unwrap();
    // A folder has the file's name, so the rename fails.
    std::fs::create_dir(folder.path().join("other.nii.gz")).unwrap();
    assert!(grid.save_map(folder.path(), "other", map.view(), MapType::F32).unwrap_err().is_file());
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["map.nii.gz", "other.nii.gz"]);
}

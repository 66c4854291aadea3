use medcam::ops::View;
use medcam::{Layout, Shape};
use ndarray::{Array, Array3, Array4, Array5, Axis, s};

/// An array whose values tell their place.
fn array4(extents: (usize, usize, usize, usize)) -> Array4<f32> {
    Array::from_shape_fn(extents, |(b, c, h, w)| (((b * 10 + c) * 10 + h) * 10 + w) as f32)
}

#[test]
fn arrays_in_both_layouts_are_viewed_without_a_copy() {
    let rows = array4((2, 3, 4, 5));
    let view = View::from_array(rows.view()).unwrap();
    assert_eq!(view.shape(), Shape::new(2, 3, [1, 4, 5]).unwrap());
    assert_eq!(view.layout(), Layout::Contiguous);
    assert_eq!(view.data().as_ptr(), rows.as_ptr());
    assert_eq!(view.value(1, 2, 3 * 5 + 4), 1234.0);

    let columns = array4((2, 4, 5, 3)).permuted_axes([0, 3, 1, 2]);
    let view = View::from_array(columns.view()).unwrap();
    assert_eq!(view.shape(), Shape::new(2, 3, [1, 4, 5]).unwrap());
    assert_eq!(view.layout(), Layout::ChannelsLast);
    assert_eq!(view.data().as_ptr(), columns.as_ptr());
    assert_eq!(view.value(1, 2, 3 * 5 + 4), 1342.0);

    let volume = Array5::<f32>::zeros((1, 4, 5, 6, 3)).permuted_axes([0, 4, 1, 2, 3]);
    let view = View::from_array(volume.view()).unwrap();
    assert_eq!(view.shape(), Shape::new(1, 3, [4, 5, 6]).unwrap());
    assert_eq!(view.layout(), Layout::ChannelsLast);
}

/// One axis of any stride can be of length 1, and a dynamic number of axes is as good.
#[test]
fn an_axis_of_1_may_have_any_stride() {
    let array = array4((2, 3, 4, 5));
    let one_sample = array.slice(s![1..;2, .., .., ..]);
    let view = View::from_array(one_sample.into_dyn()).unwrap();
    assert_eq!((view.layout(), view.value(0, 2, 19)), (Layout::Contiguous, 1234.0));
}

fn message<D: ndarray::Dimension>(array: ndarray::ArrayView<'_, f32, D>) -> String {
    let error = View::from_array(array).unwrap_err();
    assert!(error.is_input());
    error.to_string()
}

#[test]
fn arrays_that_no_layout_fits_are_refused() {
    let array = array4((2, 3, 4, 5));
    assert_eq!(
        message(array.slice(s![.., .., ..;-1, ..])),
        "view: array: axis 2 runs backwards (a stride of -5): shape (2, 3, 4, 5), strides \
         (60, 20, -5, 1); copy it into order with `.as_standard_layout()`"
    );
    assert_eq!(
        message(array.slice(s![.., .., .., ..4])),
        "view: array: it lies in memory neither as (B, C, [D,] H, W) nor as (B, [D,] H, W, C) \
         without gaps: shape (2, 3, 4, 4), strides (60, 20, 5, 1); copy it into order with \
         `.as_standard_layout()`"
    );
    assert_eq!(
        message(array.t()),
        "view: array: it lies in memory neither as (B, C, [D,] H, W) nor as (B, [D,] H, W, C) \
         without gaps: shape (5, 4, 3, 2), strides (1, 5, 20, 60); copy it into order with \
         `.as_standard_layout()`"
    );
    let one = Array4::<f32>::zeros((1, 1, 4, 5));
    assert!(message(one.broadcast((2, 1, 4, 5)).unwrap()).contains("strides (0, 20, 5, 1)"));
    // The remedy in the message works.
    let reversed = array.slice(s![.., .., ..;-1, ..]);
    let standard = reversed.as_standard_layout();
    assert_eq!(View::from_array(standard.view()).unwrap().value(0, 0, 0), 30.0);
}

#[test]
fn arrays_of_another_shape_are_refused() {
    let volume = Array3::<f32>::zeros((4, 5, 6));
    assert_eq!(
        message(volume.view()),
        "view: array: 3 axes (4, 5, 6), it takes (B, C, H, W) or (B, C, D, H, W); \
         `.insert_axis(Axis(0))` gives a batch or channel axis of 1"
    );
    View::from_array(volume.view().insert_axis(Axis(0)).insert_axis(Axis(0))).unwrap();
    assert_eq!(
        message(Array4::<f32>::zeros((1, 0, 4, 5)).view()),
        "view: array: shape: (1, 0, 1, 4, 5) has an extent of 0; each takes at least 1"
    );
}

/// The indices of kernels and of other libraries hold no longer axis.
#[test]
fn an_extent_past_32_bits_is_refused_by_its_axis() {
    let longest = Shape::LONGEST_AXIS;
    assert_eq!(longest, 2_147_483_647);
    for (axis, name) in ["B", "C", "D", "H", "W"].into_iter().enumerate() {
        let mut extents = [1; 5];
        extents[axis] = longest;
        let [b, c, d, h, w] = extents;
        assert_eq!(Shape::new(b, c, [d, h, w]).unwrap().elements(), longest);
        extents[axis] += 1;
        let [b, c, d, h, w] = extents;
        let error = Shape::new(b, c, [d, h, w]).unwrap_err();
        assert!(error.is_input());
        assert_eq!(
            error.to_string(),
            format!(
                "shape: {name} is 2147483648 in ({b}, {c}, {d}, {h}, {w}), the limit is \
                 2147483647; part the tensor along it"
            )
        );
    }
    // Each axis is short enough, their product is not.
    let error = Shape::new(longest, longest, [longest, 1, 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "shape: (2147483647, 2147483647, 2147483647, 1, 1) has too many elements to count; part \
         the tensor"
    );
}

#[test]
fn what_lies_outside_of_a_shape_is_not_read() {
    let shape = Shape::new(1, 2, [1, 1, 1]).unwrap();
    let view = View::new(&[1.0_f32, 2.0], shape, Layout::Contiguous).unwrap();
    for (b, c, n) in [(1, 0, 0), (0, 2, 0), (0, 0, 1), (usize::MAX, usize::MAX, usize::MAX)] {
        assert!(std::panic::catch_unwind(|| view.value(b, c, n)).is_err(), "{b} {c} {n}");
    }
}

#[test]
fn a_shape_that_nobody_checked_is_counted_as_far_as_counting_goes() {
    let shape = Shape { batch: usize::MAX, channels: 3, spatial: [1 << 40, 1 << 40, 1] };
    assert_eq!((shape.voxels(), shape.elements()), (usize::MAX, usize::MAX));
    assert_eq!(Shape { batch: 0, ..shape }.elements(), 0);
}

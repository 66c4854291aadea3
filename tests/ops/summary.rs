//! The written truth by hand.

use medcam::ops::summary::{SampleSummary, reference};
use medcam::ops::{Range, View};
use medcam::{Layout, Shape};

#[test]
fn what_is_said_of_two_samples() {
    let shape = Shape::new(2, 2, [1, 1, 2]).unwrap();
    let gradient = [1.0_f32, -1.0, 2.0, -2.0, /* sample 1 */ 0.0, -0.0, 0.0, 0.0];
    let view = View::new(&gradient, shape, Layout::Contiguous).unwrap();
    let range = |minimum, maximum| Range { minimum, maximum };
    let finished = [(range(0.0, 2.0), 1), (range(0.0, 0.0), 0)];
    let layer = [(range(0.0, 3.0), 4), (range(0.0, 0.0), 0)];
    // The greater weight is 2e-4, of a channel whose gradient is 1.9 on average: it is above 1e-4 times that.
    let weights = [1e-9_f32, -2e-4, f32::NAN, 0.0];
    let magnitudes = [1.0_f32, 1.9, 0.0, 0.0];
    let known = Some((&weights[..], Some(&magnitudes[..])));
    let of = |known| reference(&view, known, &layer, &finished);
    let first = SampleSummary {
        maximum: 2.0,
        layer_not_finite: 4,
        map_not_finite: 1,
        ..SampleSummary::default()
    };
    let second = SampleSummary { zero_gradient: 1, ..SampleSummary::default() };
    assert_eq!(of(None), [first, second]);
    assert_eq!(of(known), [first, SampleSummary { weights_not_finite: 1, ..second }]);
    let magnitudes = [1.0_f32, 2.1, 0.0, 0.0];
    let known = Some((&weights[..], Some(&magnitudes[..])));
    assert_eq!(of(known)[0], SampleSummary { weights_cancel: 1, ..first });
}

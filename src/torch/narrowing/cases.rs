//! A convolution of a concatenation, in many forms.

use proptest::prelude::*;
use tch::Tensor;

use super::{Tap, check, scores, waves};

const BETWEEN: [&str; 12] = [
    "relu",
    "relu_",
    "leaky_relu",
    "leaky_relu_",
    "batch norm",
    "instance norm",
    "elu",
    "elu_",
    "silu",
    "gelu",
    "hardtanh",
    "dropout",
];

fn apply(step: &str, x: &Tensor) -> Tensor {
    let channels = x.size()[1];
    let number = |phase| Some(waves(&[channels], phase));
    let variance = || Some(waves(&[channels], 3.).abs() + 0.1);
    let mut x = x.shallow_clone();
    match step {
        "relu" => x.relu(),
        "relu_" => x.relu_(),
        "leaky_relu" => x.leaky_relu(),
        "leaky_relu_" => x.leaky_relu_(),
        "batch norm" => {
            x.batch_norm(number(1.), number(2.), number(4.), variance(), false, 0.1, 1e-5, false)
        }
        "instance norm" => x.instance_norm(
            number(1.),
            number(2.),
            None::<Tensor>,
            None::<Tensor>,
            true,
            0.1,
            1e-5,
            false,
        ),
        "elu" => x.elu(),
        "elu_" => x.elu_(),
        "silu" => x.silu(),
        "gelu" => x.gelu("none"),
        "hardtanh" => x.hardtanh(),
        "dropout" => x.dropout(0.5, false),
        _ => unreachable!("{step}"),
    }
}

/// A convolution of a concatenation.
#[derive(Debug, Clone)]
struct Case {
    axes: usize,
    batch: i64,
    /// The channels of each part, and whether it needs a gradient.
    parts: Vec<(i64, bool)>,
    between: Vec<&'static str>,
    groups: i64,
    transposed: bool,
    kernel: i64,
    stride: i64,
    dilation: i64,
    channels_last: bool,
}

impl Case {
    /// Of a usual convolution.
    fn new(parts: &[(i64, bool)], between: &[&'static str]) -> Self {
        Self {
            axes: 3,
            batch: 1,
            parts: parts.to_vec(),
            between: between.to_vec(),
            groups: 1,
            transposed: false,
            kernel: 3,
            stride: 1,
            dilation: 1,
            channels_last: false,
        }
    }

    fn start(&self) -> Tensor {
        waves(&[&[self.batch, 2][..], &[7, 6, 5][..self.axes]].concat(), 0.1)
    }

    fn steps(&self, start: &Tensor, tap: Tap<'_>) -> Tensor {
        let mut parts = Vec::new();
        for (&(channels, needed), phase) in self.parts.iter().zip(1_u8..) {
            let size = [&[self.batch, channels][..], &start.size()[2..]].concat();
            let mut skip = waves(&size, f64::from(phase));
            if self.channels_last {
                skip = skip.movedim_int(1, -1).contiguous().movedim_int(-1, 1);
            }
            parts.push(if needed { skip * start.narrow(1, 0, 1) } else { skip });
        }
        let mut x = tap("cat", &Tensor::cat(&parts, 1));
        for step in &self.between {
            x = apply(step, &x);
        }
        scores(&tap("convolution", &self.convolve(&x)).relu())
    }

    fn convolve(&self, x: &Tensor) -> Tensor {
        let channels = x.size()[1];
        let (outputs, kernel) = (3 * self.groups, vec![self.kernel; self.axes]);
        let inputs =
            if self.transposed { [channels, 3] } else { [outputs, channels / self.groups] };
        let weight = waves(&[&inputs[..], &kernel].concat(), 9.);
        let each = |value| vec![value; self.axes];
        let bias = Some(waves(&[outputs], 8.));
        let (stride, padding, dilation) = (each(self.stride), each(1), each(self.dilation));
        let (transposed, groups) = (self.transposed, self.groups);
        x.convolution(&weight, bias, stride, padding, dilation, transposed, each(0), groups)
    }

    fn check(&self, layer: &str) -> usize {
        check(&|start, tap| self.steps(start, tap), &self.start(), layer)
    }
}

const FIRST: [(i64, bool); 2] = [(3, true), (4, false)];
const LAST: [(i64, bool); 2] = [(4, false), (3, true)];
const MIDDLE: [(i64, bool); 3] = [(2, false), (3, true), (1, false)];
const SEVERAL: [(i64, bool); 5] = [(2, false), (3, true), (1, false), (2, true), (1, true)];

#[test]
fn needed_parts_in_every_position() {
    for parts in [&FIRST[..], &LAST, &MIDDLE, &SEVERAL] {
        assert_eq!(Case::new(parts, &[]).check("start"), 1, "{parts:?}");
        for axes in [2, 3] {
            for (kernel, stride, dilation) in [(1, 1, 1), (3, 2, 1), (3, 1, 2), (2, 2, 1)] {
                for (transposed, channels_last) in [(false, false), (false, true), (true, false)] {
                    let usual = Case::new(parts, &[]);
                    let shape = Case { axes, kernel, stride, dilation, batch: 2, ..usual };
                    let case = Case { transposed, channels_last, ..shape };
                    // oneDNN is often slower on fewer channels of a transposed one.
                    assert_eq!(case.check("start"), usize::from(!transposed), "{case:?}");
                }
            }
        }
    }
}

#[test]
fn where_nothing_can_be_spared_nothing_is() {
    assert_eq!(Case::new(&[(3, true), (4, true)], &[]).check("start"), 0);
    assert_eq!(Case::new(&[(3, true)], &[]).check("start"), 0);
    // Behind other steps, from the first channel needed to the last.
    let ends = [(1, true), (4, false), (2, true)];
    assert_eq!(Case::new(&ends, &["relu"]).check("start"), 0);
    assert_eq!(Case::new(&ends, &[]).check("start"), 1);
}

#[test]
fn steps_on_each_channel_alone_stand_between() {
    for step in BETWEEN {
        for parts in [&FIRST[..], &LAST, &MIDDLE, &SEVERAL] {
            assert_eq!(Case::new(parts, &[step]).check("start"), 1, "{step} {parts:?}");
            let case = Case { axes: 2, batch: 2, ..Case::new(parts, &["silu", step]) };
            // An instance norm of a batch is a view of another shape.
            let expected = usize::from(step != "instance norm");
            assert_eq!(case.check("start"), expected, "{step} {parts:?}");
        }
    }
    for steps in [["instance norm", "leaky_relu"], ["batch norm", "relu_"]] {
        let case = Case::new(&LAST, &steps);
        assert_eq!(case.check("start"), 1, "{steps:?}");
        assert_eq!(Case { channels_last: true, ..case }.check("start"), 1, "{steps:?}");
    }
}

#[test]
fn groups_are_narrowed_as_wholes() {
    /// Parts, groups, and how many convolutions are narrowed.
    type Grouped = (&'static [(i64, bool)], i64, usize);
    let cases: [Grouped; 6] = [
        (&[(4, false), (4, true)], 4, 1),
        (&[(4, true), (4, false)], 2, 1),
        // The cut is within a group.
        (&[(3, false), (5, true)], 4, 1),
        (&[(3, false), (5, true)], 2, 0),
        // Each channel is its own group.
        (&[(3, false), (4, true), (1, false)], 8, 1),
        (&[(2, true), (4, false), (2, true)], 4, 0),
    ];
    for (parts, groups, expected) in cases {
        for transposed in [false, true] {
            for between in [&[][..], &["relu"]] {
                let case = Case { groups, transposed, ..Case::new(parts, between) };
                let expected = if transposed { 0 } else { expected };
                assert_eq!(case.check("start"), expected, "{case:?}");
            }
        }
    }
}

#[test]
fn a_concatenation_that_is_asked_for_is_whole() {
    for steps in [&[][..], &["relu"], &["instance norm"]] {
        assert_eq!(Case::new(&MIDDLE, steps).check("cat"), 0, "{steps:?}");
        assert_eq!(Case::new(&MIDDLE, steps).check("convolution"), 1, "{steps:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn gradients_are_autograds(
        axes in 2_usize..=3,
        batch in 1_i64..=2,
        parts in prop::collection::vec((1_i64..=5, any::<bool>()), 1..=4),
        between in prop::collection::vec(prop::sample::select(&BETWEEN[..]), 0..=3),
        groups in 1_i64..=4,
        (transposed, channels_last) in (any::<bool>(), any::<bool>()),
        (kernel, stride, dilation) in (1_i64..=3, 1_i64..=3, 1_i64..=2),
    ) {
        prop_assume!(parts.iter().any(|part| part.1));
        let channels: i64 = parts.iter().map(|part| part.0).sum();
        let groups = if channels % groups == 0 { groups } else { 1 };
        // What saved its output must not be written over.
        let mut between = between;
        for index in 1..between.len() {
            if !between[index - 1].ends_with("norm") {
                between[index] = between[index].trim_end_matches('_');
            }
        }
        let case = Case {
            axes, batch, parts, between, groups, transposed, kernel, stride, dilation, channels_last,
        };
        case.check("start");
    }
}

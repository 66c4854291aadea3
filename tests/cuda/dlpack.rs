//! The ops over DLPack tensors in device memory: the bits of the chains' launchers, the values of the
//! single ops' CPU twins, and memory from the caller's allocator alone.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};
use medcam::device::{Allocator, Buffer, DriverAllocator, Plain, Stream};
use medcam::dlpack::ffi::{DLDevice, DLDeviceType};
use medcam::dlpack::{Place, Sum, Tensor, TensorMut, Work, Workspace};
use medcam::element::Element;
use medcam::ops::fused::{self, Summary};
use medcam::ops::summary::SampleSummary;
use medcam::ops::{
    self, Denominator, DeviceView, Elementwise, Interpolation, Method, Recipe, Resize, View,
};
use medcam::{Layout, Shape};

use crate::common::gpu;
use crate::on_the_cpu::{LAYOUTS, absolute, assert_close, values, wide};
use crate::tensors::{Described, Typed};

const DEVICE: DLDevice = DLDevice { device_type: DLDeviceType::CUDA, device_id: 0 };

/// Values on the device, and their description.
struct OnDevice<T: Plain> {
    buffer: Buffer<T>,
    described: Described,
}

impl<T: Plain + Typed> OnDevice<T> {
    fn new(stream: &Stream, values: &[T], describe: impl FnOnce(*mut c_void) -> Described) -> Self {
        let buffer = stream.upload(values).unwrap();
        let address = usize::try_from(buffer.slice().pointer()).unwrap();
        Self { buffer, described: describe(std::ptr::without_provenance_mut(address)) }
    }

    fn layer(stream: &Stream, values: &[T], shape: Shape, layout: Layout) -> Self {
        Self::new(stream, values, |data| Described::layer::<T>(data, DEVICE, shape, layout))
    }

    fn maps(stream: &Stream, values: &[T], batch: usize, grid: [usize; 3]) -> Self {
        Self::new(stream, values, |data| Described::maps::<T>(data, DEVICE, batch, grid))
    }

    fn input(&mut self) -> Tensor<'_> {
        // SAFETY: described as these values, which stay until the stream is waited for.
        unsafe { Tensor::of("input", self.described.pointer()) }.unwrap()
    }

    fn output(&mut self) -> TensorMut<'_> {
        // SAFETY: described as these values, which are borrowed for writing.
        unsafe { TensorMut::of("output", self.described.pointer()) }.unwrap()
    }
}

/// A stream, and calls on it.
struct Device {
    stream: Stream,
    workspace: Workspace,
}

impl Device {
    fn new() -> Option<Self> {
        Some(Self { stream: gpu()?, workspace: Workspace::new(Place::Cuda(0)).unwrap() })
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut Work<'_>) -> medcam::Result<R>) -> R {
        // SAFETY: a stream that stays as long as the workspace.
        call(&mut unsafe { self.workspace.on(self.stream.handle()) }.unwrap()).unwrap()
    }

    fn values<T: Plain + Default>(&self, tensor: &OnDevice<T>) -> Vec<T> {
        self.stream.download(tensor.buffer.slice()).unwrap()
    }
}

fn check_chain<T: Element + Typed>(device: &mut Device, shape: Shape, to: [usize; 3]) {
    let a = absolute(&values::<T>(shape.elements(), 1.0, 3));
    let g = values::<T>(shape.elements(), 1.0, 4);
    let voxels = shape.batch * to.iter().product::<usize>();
    let guided = values::<f32>(voxels, 1.0, 5);
    for layout in LAYOUTS {
        let mut of_a = OnDevice::layer(&device.stream, &a, shape, layout);
        let mut of_g = OnDevice::layer(&device.stream, &g, shape, layout);
        let mut of_guided = OnDevice::maps(&device.stream, &guided, shape.batch, to);
        let zeros = vec![0.0_f32; voxels];
        let mut map = OnDevice::maps(&device.stream, &zeros, shape.batch, to);
        for method in [Method::GradCam, Method::GradCamPlusPlus(Denominator::Paper)] {
            let recipe = Recipe { to: Some(to), ..Recipe::new(method) };
            let (in_a, in_g) = (of_a.input(), of_g.input());
            let told =
                device.call(|work| work.cam(method, true, &in_a, &in_g, &mut map.output(), true));
            let found = device.values(&map);
            let (expected, summary) =
                launched(&mut device.stream, (&a, &g), (shape, layout), None, &recipe);
            assert_eq!((found, told), (expected, Some(summary)));
            let guide = of_guided.input();
            device.call(|work| {
                work.guided_cam(method, true, &in_a, &in_g, &guide, &mut map.output(), false)
            });
            let found = device.values(&map);
            let guide = Some(&guided[..]);
            let (expected, _) =
                launched(&mut device.stream, (&a, &g), (shape, layout), guide, &recipe);
            assert_eq!(found, expected);

            let mut words = OnDevice::new(&device.stream, &vec![0_i32; shape.batch * 8], |data| {
                Described::in_order::<i32>(data, DEVICE, &[shape.batch, 8])
            });
            for of_guide in [None, Some(&guided[..])] {
                let guide = of_guide.map(|_| of_guided.input());
                let reader = device.call(|work| {
                    let (map, words) = (&mut map.output(), &mut words.output());
                    work.summarized_cam(method, true, &in_a, &in_g, guide.as_ref(), map, words)
                });
                let told: Vec<_> =
                    device.values(&words).chunks(8).map(SampleSummary::of_words).collect();
                let found = (device.values(&map), reader.read(&told).unwrap());
                let layer = (shape, layout);
                let expected = launched(&mut device.stream, (&a, &g), layer, of_guide, &recipe);
                assert_eq!(found, expected);
            }
        }
    }
}

/// What the launchers of a chain give.
fn launched<T: Element>(
    stream: &mut Stream,
    (a, g): (&[T], &[T]),
    (shape, layout): (Shape, Layout),
    guided: Option<&[f32]>,
    recipe: &Recipe,
) -> (Vec<f32>, Summary) {
    let (a, g) = (stream.upload(a).unwrap(), stream.upload(g).unwrap());
    let a = DeviceView::new(a.slice(), shape, layout).unwrap();
    let g = DeviceView::new(g.slice(), shape, layout).unwrap();
    let voxels = shape.batch * recipe.to.unwrap().iter().product::<usize>();
    let mut map = stream.allocate::<f32>(voxels).unwrap();
    let guided = guided.map(|guided| stream.upload(guided).unwrap());
    let pending = match &guided {
        Some(guided) => {
            let (guided, map) = (guided.slice(), map.slice_mut());
            fused::cuda::guided_cam(stream, &a, &g, guided, recipe, map)
        }
        None => fused::cuda::cam(stream, &a, &g, recipe, map.slice_mut()),
    };
    let summary = pending.unwrap().finish().unwrap();
    (stream.download(map.slice()).unwrap(), summary)
}

#[test]
fn chains_give_the_bits_of_their_launchers() {
    let Some(mut device) = Device::new() else { return };
    check_chain::<f32>(&mut device, Shape::new(2, 5, [1, 7, 9]).unwrap(), [1, 20, 11]);
    check_chain::<f16>(&mut device, Shape::new(1, 33, [3, 4, 5]).unwrap(), [5, 9, 4]);
    check_chain::<bf16>(&mut device, Shape::new(3, 4, [2, 3, 8]).unwrap(), [2, 3, 8]);
}

/// Both round in their own order; 1e-4 of the greatest value is far above that and far below any
/// mistake.
fn assert_like(found: &[f32], expected: &[f32]) {
    let greatest = expected.iter().fold(0.0_f32, |all, value| all.max(value.abs()));
    assert_close(found, &wide(expected), |_| 1e-4 * f64::from(greatest));
}

#[test]
fn single_calls_give_the_values_of_their_twins() {
    let Some(mut device) = Device::new() else { return };
    let shape = Shape::new(2, 19, [3, 6, 7]).unwrap();
    let (Shape { batch, channels, spatial }, to) = (shape, [5, 4, 13]);
    let a = absolute(&values::<f16>(shape.elements(), 1.0, 3));
    let g = values::<f16>(shape.elements(), 1.0, 4);
    let weights = values::<f32>(batch * channels, 1.0, 5);
    for layout in LAYOUTS {
        let view = |values| View::new(values, shape, layout).unwrap();
        let mut of_a = OnDevice::layer(&device.stream, &a, shape, layout);
        let mut of_g = OnDevice::layer(&device.stream, &g, shape, layout);
        let mut of_weights = OnDevice::new(&device.stream, &weights, |data| {
            Described::in_order::<f32>(data, DEVICE, &[batch, channels])
        });
        let zeros = vec![0.0_f32; batch * shape.voxels()];
        let mut map = OnDevice::maps(&device.stream, &zeros, batch, spatial);
        for rectified in [true, false] {
            let weighing = of_weights.input();
            let sum = if rectified { Sum::Rectified(&weighing) } else { Sum::Signed(&weighing) };
            device.call(|work| work.sum(sum, &of_a.input(), &mut map.output()));
            let op = if rectified { ops::project } else { ops::weighted_sum };
            assert_like(&device.values(&map), &op(&weights, &view(&a)).unwrap());
        }
        device.call(|work| work.sum(Sum::Mean, &of_g.input(), &mut map.output()));
        assert_like(&device.values(&map), &ops::channel_mean(&view(&g)).unwrap());
        for method in [Elementwise::HiResCam, Elementwise::LayerCam] {
            let (in_a, in_g) = (of_a.input(), of_g.input());
            device.call(|work| work.elementwise(method, &in_a, &in_g, &mut map.output()));
            let expected = ops::elementwise(&view(&a), &view(&g), method).unwrap();
            assert_like(&device.values(&map), &expected);
        }
        device.call(|work| work.channel_weights(&of_g.input(), &mut of_weights.output()));
        let expected = ops::channel_weights(&view(&g)).unwrap();
        assert_like(&device.values(&of_weights), &expected);
        let (in_a, in_g) = (of_a.input(), of_g.input());
        device.call(|work| {
            work.alpha_weights(&in_a, &in_g, Denominator::Paper, &mut of_weights.output())
        });
        let expected = ops::alpha_weights(&view(&a), &view(&g), Denominator::Paper).unwrap();
        assert_like(&device.values(&of_weights), &expected);

        let mut passed = OnDevice::layer(&device.stream, &a, shape, layout);
        device.call(|work| work.guided_activation(&in_a, &in_g, &mut passed.output()));
        let mut expected = a.clone();
        ops::guided_activation(&a, &g, &mut expected).unwrap();
        assert_eq!(device.values(&passed), expected);
    }
    let small = values::<f32>(batch * shape.voxels(), 1.0, 6);
    let guided = values::<f32>(batch * to.iter().product::<usize>(), 1.0, 7);
    let mut of_small = OnDevice::maps(&device.stream, &small, batch, spatial);
    let mut of_guided = OnDevice::maps(&device.stream, &guided, batch, to);
    let mut large = OnDevice::maps(&device.stream, &vec![0.0_f32; guided.len()], batch, to);
    let resize = Resize { batch, from: spatial, to };
    for interpolation in [Interpolation::Linear, Interpolation::Nearest] {
        for normalized in [false, true] {
            let map = of_small.input();
            let out = &mut large.output();
            device.call(|work| work.resample(interpolation, normalized, &map, out));
            let mut expected = ops::resample(&small, resize, interpolation).unwrap();
            if normalized {
                ops::normalize(&mut expected, batch).unwrap();
            }
            assert_like(&device.values(&large), &expected);
        }
    }
    let map = of_small.input();
    device.call(|work| work.guided_product(true, &map, &of_guided.input(), &mut large.output()));
    let (product, _) = ops::guided_product::<f32>(&small, &guided, resize).unwrap();
    assert_like(&device.values(&large), &product);

    let mask: Vec<u8> = guided.iter().map(|&value| u8::from(value > 0.0)).collect();
    let mut of_mask = OnDevice::maps(&device.stream, &mask, batch, to);
    let product = device.values(&large);
    let sums =
        device.call(|work| work.evaluation_sums(&large.input(), &of_mask.input(), Some(0.3)));
    assert_eq!(sums, ops::evaluation_sums(&product, Some(&mask), batch, Some(0.3)).unwrap());

    device.call(|work| work.normalize(&mut of_small.output()));
    let mut expected = small.clone();
    ops::normalize(&mut expected, batch).unwrap();
    assert_like(&device.values(&of_small), &expected);
}

/// The driver's memory, counted.
#[derive(Default)]
struct Counting {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

// SAFETY: the driver's memory, and nothing else.
unsafe impl Allocator for Counting {
    fn allocate(
        &self,
        bytes: usize,
        stream: *mut c_void,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        DriverAllocator.allocate(bytes, stream)
    }

    unsafe fn free(&self, pointer: u64, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { DriverAllocator.free(pointer, bytes) };
    }
}

#[test]
fn scratch_memory_is_the_callers_and_is_kept() {
    let Some(mut device) = Device::new() else { return };
    let counting = Arc::new(Counting::default());
    device.workspace.set_allocator(Arc::clone(&counting) as Arc<dyn Allocator>);
    let shape = Shape::new(1, 8, [2, 6, 7]).unwrap();
    let a = values::<f32>(shape.elements(), 1.0, 3);
    let mut of_a = OnDevice::layer(&device.stream, &a, shape, Layout::Contiguous);
    let mut of_g = OnDevice::layer(&device.stream, &a, shape, Layout::Contiguous);
    let mut map = OnDevice::maps(&device.stream, &vec![0.0_f32; 20 * 30 * 40], 1, [20, 30, 40]);
    let (in_a, in_g) = (of_a.input(), of_g.input());
    let mut run = || {
        let out = &mut map.output();
        device.call(|work| work.cam(Method::GradCam, true, &in_a, &in_g, out, false));
        counting.calls.load(Ordering::Relaxed)
    };
    let first = run();
    assert!(first > 0);
    assert_eq!((run(), run()), (first, first));
    drop(device);
    assert_eq!(counting.bytes.load(Ordering::Relaxed), 0);
}

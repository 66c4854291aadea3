//! What a chain asks of the driver from its second call on, counted by the driver on the host: it waits
//! for nothing on the way, once at the end, and allocates nothing.

use medcam::device::Stream;
use medcam::ops::fused::cuda;
use medcam::ops::summary::SampleSummary;
use medcam::ops::{Denominator, DeviceView, Method, Recipe, Resize};
use medcam::{Layout, Shape};

use crate::common::gpu;
use crate::on_the_cpu::values;

/// Calls of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
struct Counts {
    synchronisations: u64,
    allocations: u64,
    frees: u64,
    copies: u64,
    fills: u64,
    launches: u64,
}

/// Those so far; `None` with a driver that does not count, one of a device.
fn counts() -> Option<Counts> {
    // SAFETY: the driver is loaded already; the function writes six counts, and no other library has one
    // of its name.
    unsafe {
        let driver = libloading::Library::new("libcuda.so.1").ok()?;
        let count = driver.get::<unsafe extern "C" fn(*mut Counts)>(c"on_host_counts").ok()?;
        let mut counts = Counts::default();
        count(&mut counts);
        Some(counts)
    }
}

/// What `run` asks of the driver.
fn counted<R>(run: impl FnOnce() -> R) -> Option<(Counts, R)> {
    let before = counts()?;
    let result = run();
    let after = counts()?;
    let counts = Counts {
        synchronisations: after.synchronisations - before.synchronisations,
        allocations: after.allocations - before.allocations,
        frees: after.frees - before.frees,
        copies: after.copies - before.copies,
        fills: after.fills - before.fills,
        launches: after.launches - before.launches,
    };
    Some((counts, result))
}

fn launches(launches: u64) -> Counts {
    Counts { launches, ..Counts::default() }
}

/// One wait, and one copy to the host.
fn one_wait(of: Counts) -> Counts {
    Counts { synchronisations: 1, copies: 1, ..of }
}

/// Counts are of the whole process, so no other test may run beside this one: `on_host::waits` runs it alone.
#[test]
fn alone_a_chain_waits_once_and_allocates_nothing() {
    let Some(mut stream) = gpu() else { return };
    if counts().is_none() {
        eprintln!("skipped: the driver of a device does not count calls");
        return;
    }
    for (batch, spatial, to) in [(1, [1, 7, 7], [1, 20, 21]), (3, [4, 5, 6], [4, 5, 6])] {
        let shape = Shape::new(batch, 6, spatial).unwrap();
        let own_grid = u64::from(spatial == to);
        for (method, of_weights) in [
            (Method::GradCam, 1),
            (Method::GradCamPlusPlus(Denominator::Paper), 2),
            (Method::HiResCam, 0),
            (Method::LayerCam, 0),
        ] {
            let recipe = Recipe { to: Some(to), ..Recipe::new(method) };
            check(&mut stream, shape, &recipe, of_weights + 3 - own_grid);
        }
    }
}

fn check(stream: &mut Stream, shape: Shape, recipe: &Recipe, of_chain: u64) {
    let a = stream.upload(&values::<f32>(shape.elements(), 1.0, 1)).unwrap();
    let g = stream.upload(&values::<f32>(shape.elements(), 1.0, 2)).unwrap();
    let a = DeviceView::new(a.slice(), shape, Layout::Contiguous).unwrap();
    let g = DeviceView::new(g.slice(), shape, Layout::Contiguous).unwrap();
    let to = recipe.to.unwrap();
    let voxels = shape.batch * to.iter().product::<usize>();
    let guided = stream.upload(&values::<f32>(voxels, 1.0, 3)).unwrap();
    let mut map = stream.allocate::<f32>(voxels).unwrap();
    let mut summaries = stream.allocate::<SampleSummary>(shape.batch).unwrap();
    let resize = Resize { batch: shape.batch, from: to, to };
    for is_warm in [false, true] {
        let (enqueued, pending) =
            counted(|| cuda::cam(stream, &a, &g, recipe, map.slice_mut()).unwrap()).unwrap();
        let (finished, _) = counted(|| pending.finish().unwrap()).unwrap();
        let pending = cuda::cam(stream, &a, &g, recipe, map.slice_mut()).unwrap();
        let summarize = || pending.summarize(Some(&g), summaries.slice_mut()).unwrap();
        let (summarized, _) = counted(summarize).unwrap();
        let product = || {
            let (guided, map) = (guided.slice(), map.slice_mut());
            let pending = cuda::guided_cam(stream, &a, &g, guided, recipe, map).unwrap();
            pending.finish().unwrap()
        };
        let (product, _) = counted(product).unwrap();
        let normalized = || {
            let map = map.slice_mut();
            let pending = cuda::resample_normalized(stream, guided.slice(), resize, map).unwrap();
            pending.finish().unwrap()
        };
        let (normalized, _) = counted(normalized).unwrap();
        if is_warm {
            assert_eq!(enqueued, launches(of_chain), "{recipe:?}");
            assert_eq!(finished, one_wait(launches(1)), "{recipe:?}");
            assert_eq!(summarized, launches(1), "{recipe:?}");
            let own_grid = u64::from(to == shape.spatial);
            assert_eq!(product, one_wait(launches(of_chain + own_grid + 1)), "{recipe:?}");
            assert_eq!(normalized, one_wait(launches(3)), "{recipe:?}");
        }
    }
}

//! The bandwidth of a GPU's memory, measured in the same run as the ops.

use cudarc::driver::{result, sys};
use medcam::device::{KernelBudget, Launch, Program, Scalar, compile};
use medcam::tch::{Kind, Tensor};
use serde_json::{Value, json};

use super::ceiling;
use super::clock::{Clock, LIBTORCH, synchronize};
use super::cuda;

/// Of what is read, and of each side of a copy: many times the second-level cache.
const BYTES: usize = 1 << 30;
const TRIAL_BYTES: usize = 1 << 20;
/// Passes between two events, and how often.
const PASSES: usize = 4;
const ROUNDS: usize = 11;

const BLOCK_THREADS: u32 = 256;
/// Blocks for each multiprocessor. Which number reads fastest depends on the GPU.
const BLOCKS: [u32; 3] = [4, 8, 16];

static READ: Program = Program {
    stem: "read",
    source: include_str!("read.cu"),
    scalars: &[Scalar::F32],
    defines: &[("BLOCK_THREADS", BLOCK_THREADS)],
    kernels: &[KernelBudget { entry: "read_all", registers: 64, shared_bytes: 0 }],
};

/// In bytes per second. Of a copy the bytes that are read and those that are written count.
pub struct Bandwidth {
    /// By a kernel of ours.
    read: f64,
    /// By libtorch's sum.
    sum: f64,
    copy: f64,
}

impl Bandwidth {
    pub fn measure(clock: &Clock, trial: bool) -> Self {
        let (bytes, rounds) = if trial { (TRIAL_BYTES, 1) } else { (BYTES, ROUNDS) };
        let elements = i64::try_from(bytes / size_of::<f32>()).unwrap();
        let from = Tensor::rand([elements], (Kind::Float, cuda::device()));
        let mut to = from.zeros_like();
        synchronize();
        let passes = |stream, pass: &mut dyn FnMut()| {
            let round = |_| clock.seconds(stream, PASSES, || (0..PASSES).for_each(|_| pass()));
            // The first warms up.
            let mut seconds: Vec<f64> = (0..=rounds).map(round).skip(1).collect();
            seconds.sort_by(f64::total_cmp);
            bytes as f64 / seconds[seconds.len() / 2]
        };
        let copy = 2.0 * passes(LIBTORCH, &mut || to.copy_(&from));
        let sum = passes(LIBTORCH, &mut || drop(from.sum(Kind::Float)));
        let read = read(&from, &mut to, &passes);
        Self { read, sum, copy }
    }

    /// The greater of both: what memory can do, whoever asks for it.
    fn reading(&self) -> f64 {
        self.read.max(self.sum)
    }

    pub fn floor(&self, read: usize, written: usize) -> f64 {
        ceiling::floor(read, written, self.reading(), self.copy)
    }

    pub fn json(&self) -> Value {
        json!({
            "read_bandwidth": self.reading(),
            "read_by_our_kernel": self.read,
            "read_by_libtorch_sum": self.sum,
            "copy_bandwidth": self.copy,
        })
    }
}

/// The greatest bandwidth of our kernel. With the driver on the host, which has the project's kernels
/// alone, it is only compiled.
fn read(
    from: &Tensor,
    to: &mut Tensor,
    passes: &dyn Fn(sys::CUstream, &mut dyn FnMut()) -> f64,
) -> f64 {
    if cuda::on_host() {
        compile(&READ, Scalar::F32, "sm_90", &[]).unwrap();
        return 0.0;
    }
    let stream = cuda::new_stream();
    let kernel = stream.gpu().kernel(&READ, Scalar::F32, "read_all").unwrap();
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    // SAFETY: the first device, which is there.
    let multiprocessors = unsafe {
        result::device::get_attribute(result::device::get(0).unwrap(), attribute).unwrap()
    };
    let count = i64::try_from(from.numel() / 4).unwrap();
    BLOCKS
        .into_iter()
        .map(|blocks| {
            let grid = [blocks * u32::try_from(multiprocessors).unwrap(), 1, 1];
            let launch = Launch { grid, block_threads: BLOCK_THREADS, shared_bytes: 0 };
            passes(cuda::stream(), &mut || {
                let (from, to) = (cuda::slice::<f32>(from), cuda::slice_mut::<f32>(to));
                // SAFETY: `read_all(const float4*, float*, long long)`; `from` holds `count` times
                // four values, aligned as libtorch aligns, and `to` holds one at least.
                unsafe { stream.launch(&kernel, launch, &[&from, &to, &count]) }.unwrap();
            })
        })
        .fold(0.0, f64::max)
}

//! The bandwidth of the machine's memory, measured in the same run as the ops.

use std::hint::black_box;
use std::time::Instant;

use medcam::tch::{Kind, Tensor};
use rayon::prelude::*;

use super::case::Place;
use super::cuda;

/// Half of what a pass reads; a copy goes from one half to the other.
const HALF_BYTES: usize = 512 << 20;

/// A bandwidth in bytes per second.
#[derive(Default)]
struct Passes(Vec<f64>);

impl Passes {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// What memory gives in one place: for reading alone, and for copying, read and written bytes both
/// counted.
pub struct Ceiling {
    place: Place,
    halves: Halves,
    read: Passes,
    copy: Passes,
}

enum Halves {
    Host(Vec<u64>, Vec<u64>),
    Cuda(Tensor, Tensor),
}

impl Ceiling {
    pub fn new(place: Place) -> Self {
        let halves = match place {
            Place::Cpu | Place::CpuOneThread => {
                // Written to, or all pages would be the one page of zeros.
                let half = || (0..HALF_BYTES as u64 / 8).collect();
                Halves::Host(half(), half())
            }
            Place::Cuda => {
                let size = [i64::try_from(HALF_BYTES).unwrap()];
                let half = || Tensor::ones(size, (Kind::Uint8, place.device()));
                Halves::Cuda(half(), half())
            }
        };
        Self { place, halves, read: Passes::default(), copy: Passes::default() }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// One pass of each kind, on the threads of the current pool.
    pub fn measure(&mut self) {
        let both = (2 * HALF_BYTES) as f64;
        match &mut self.halves {
            Halves::Host(from, to) => {
                let start = Instant::now();
                black_box(sum(from).wrapping_add(sum(to)));
                self.read.0.push(both / start.elapsed().as_secs_f64());
                // One stretch per thread, so that the copy bypasses the caches.
                let stretch = from.len().div_ceil(rayon::current_num_threads());
                let start = Instant::now();
                to.par_chunks_mut(stretch)
                    .zip(from.par_chunks(stretch))
                    .for_each(|(to, from)| to.copy_from_slice(from));
                self.copy.0.push(both / start.elapsed().as_secs_f64());
            }
            Halves::Cuda(from, to) => {
                const COPIES: u32 = 8;
                cuda::synchronize();
                let start = Instant::now();
                for _ in 0..COPIES {
                    to.copy_(from);
                }
                cuda::synchronize();
                self.copy.0.push(both * f64::from(COPIES) / start.elapsed().as_secs_f64());
            }
        }
    }

    /// The least time in seconds in which memory moves so many bytes. What is read beyond as much as
    /// is written goes at the bandwidth of reading, all else at that of copying.
    pub fn floor(&self, read: usize, written: usize) -> f64 {
        let (read, written) = (read as f64, written as f64);
        let read_alone = (read - written).max(0.0);
        read_alone / self.read_bandwidth() + (read + written - read_alone) / self.copy_bandwidth()
    }

    /// Of a GPU, whose copies reach its memory's limit, that of copying.
    pub fn read_bandwidth(&self) -> f64 {
        match self.halves {
            Halves::Host(..) => self.read.median(),
            Halves::Cuda(..) => self.copy.median(),
        }
    }

    pub fn copy_bandwidth(&self) -> f64 {
        self.copy.median()
    }
}

fn sum(values: &[u64]) -> u64 {
    let stretches = values.par_chunks(1 << 17);
    stretches.map(|values| values.iter().copied().fold(0, u64::wrapping_add)).sum()
}

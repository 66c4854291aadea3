//! The bandwidth of the machine's memory, measured in the same run as the ops. That of a GPU is in
//! `bandwidth.rs`.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use super::case::Place;

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
    from: Vec<u64>,
    to: Vec<u64>,
    read: Passes,
    copy: Passes,
}

impl Ceiling {
    pub fn new(place: Place) -> Self {
        // Written to, or all pages would be the one page of zeros.
        let half = || (0..HALF_BYTES as u64 / 8).collect();
        Self { place, from: half(), to: half(), read: Passes::default(), copy: Passes::default() }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// One pass of each kind, on the threads of the current pool.
    pub fn measure(&mut self) {
        let both = (2 * HALF_BYTES) as f64;
        let start = Instant::now();
        black_box(sum(&self.from).wrapping_add(sum(&self.to)));
        self.read.0.push(both / start.elapsed().as_secs_f64());
        // One stretch per thread, so that the copy bypasses the caches.
        let stretch = self.from.len().div_ceil(rayon::current_num_threads());
        let start = Instant::now();
        self.to
            .par_chunks_mut(stretch)
            .zip(self.from.par_chunks(stretch))
            .for_each(|(to, from)| to.copy_from_slice(from));
        self.copy.0.push(both / start.elapsed().as_secs_f64());
    }

    /// See [`floor()`].
    pub fn floor(&self, read: usize, written: usize) -> f64 {
        floor(read, written, self.read_bandwidth(), self.copy_bandwidth())
    }

    pub fn read_bandwidth(&self) -> f64 {
        self.read.median()
    }

    pub fn copy_bandwidth(&self) -> f64 {
        self.copy.median()
    }
}

/// The least time in seconds in which memory moves so many bytes. What is read beyond as much as is
/// written goes at the bandwidth of reading, all else at that of copying.
pub fn floor(read: usize, written: usize, read_bandwidth: f64, copy_bandwidth: f64) -> f64 {
    let (read, written) = (read as f64, written as f64);
    let read_alone = (read - written).max(0.0);
    read_alone / read_bandwidth + (read + written - read_alone) / copy_bandwidth
}

fn sum(values: &[u64]) -> u64 {
    let stretches = values.par_chunks(1 << 17);
    stretches.map(|values| values.iter().copied().fold(0, u64::wrapping_add)).sum()
}

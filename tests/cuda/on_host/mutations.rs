//! Bugs put into copies of the project's own kernels: its ordinary tests must see each of them.

use super::Run;
use super::build::{Flavour, Kernels};
use crate::common;

struct Mutation {
    /// The program that is built of the copy.
    stem: &'static str,
    /// Under `kernels/`.
    file: &'static str,
    from: &'static str,
    to: &'static str,
    flavour: Flavour,
    /// The tests that must fail...
    tests: &'static str,
    /// ...and what is said then.
    says: &'static str,
}

static MUTATIONS: &[Mutation] = &[
    // The counter is not back at 0 for the next launch.
    Mutation {
        stem: "device",
        file: "lib/last_block.cuh",
        from: "atomicInc(counter, blocks - 1)",
        to: "atomicInc(counter, blocks)",
        flavour: Flavour::Plain,
        tests: "device::small_counters_are_zero_between_kernels",
        says: "left == right",
    },
    // One pack of 16 bytes too many.
    Mutation {
        stem: "guided_activation",
        file: "guided_activation.cu",
        from: "if (pack < packs) {\n      store_pack",
        to: "if (pack <= packs) {\n      store_pack",
        flavour: Flavour::Plain,
        tests: "guided_activation::any_length_and_alignment",
        says: "panicked at tests/cuda/guided_activation.rs:",
    },
    // Without the barrier a block adds its counts to the sample's before all of its threads have counted.
    Mutation {
        stem: "evaluation_sums",
        file: "evaluation_sums.cu",
        from: "threshold, low, high);\n  }\n  __syncthreads();",
        to: "threshold, low, high);\n  }",
        flavour: Flavour::Thread,
        tests: "evaluation_sums::small_equals_the_cpu",
        says: "ThreadSanitizer: data race kernels/evaluation_sums.cu:",
    },
    // Without the barrier a block adds up sums that some threads have not written yet.
    Mutation {
        stem: "project",
        file: "lib/voxel_sums.cuh",
        from: "of_thread[j][threadIdx.x] = sums[j];\n  __syncthreads();",
        to: "of_thread[j][threadIdx.x] = sums[j];",
        flavour: Flavour::Plain,
        tests: "project::small_sums_of_any_shape",
        says: "panicked at tests/cuda/project.rs:",
    },
    // One voxel too many.
    Mutation {
        stem: "project",
        file: "lib/voxel_sums.cuh",
        from: "const bool within = n < voxels;",
        to: "const bool within = n <= voxels;",
        flavour: Flavour::Address,
        tests: "project::small_sums_of_any_shape",
        says: "heap-buffer-overflow",
    },
    // Without the fence the last block may not see what other blocks wrote.
    Mutation {
        stem: "project",
        file: "lib/last_block.cuh",
        from: "    __threadfence();\n    last =",
        to: "    last =",
        flavour: Flavour::Thread,
        tests: "project::small_sums_of_any_shape",
        says: "ThreadSanitizer: data race",
    },
    // A fence in front of the barrier is for what thread 0 itself wrote.
    Mutation {
        stem: "project",
        file: "lib/last_block.cuh",
        from: "  __syncthreads();\n  if (threadIdx.x == 0) {\n    __threadfence();",
        to: "  if (threadIdx.x == 0) __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) {",
        flavour: Flavour::Thread,
        tests: "project::small_sums_of_any_shape",
        says: "ThreadSanitizer: data race",
    },
    // Without the second barrier the other threads read before thread 0 has fenced.
    Mutation {
        stem: "project",
        file: "lib/last_block.cuh",
        from: "  }\n  __syncthreads();\n  return last;",
        to: "  }\n  return last;",
        flavour: Flavour::Thread,
        tests: "project::small_sums_of_any_shape",
        says: "ThreadSanitizer: data race",
    },
    // A row that is not whole packs takes the first value of the next one too.
    Mutation {
        stem: "channel_weights",
        file: "lib/channel_sums.cuh",
        from: "left - i * kStep, BLOCK_THREADS)",
        to: "left - i * kStep + 1, BLOCK_THREADS)",
        flavour: Flavour::Plain,
        tests: "channel_weights::small_means_of_any_shape",
        says: "panicked at tests/",
    },
    // A whole pack too many.
    Mutation {
        stem: "channel_weights",
        file: "lib/channel_sums.cuh",
        from: "reads[i][t] = i * kStep < left\n",
        to: "reads[i][t] = i * kStep <= left\n",
        flavour: Flavour::Plain,
        tests: "channel_weights::small_means_of_any_shape",
        says: "panicked at tests/",
    },
    // Gradients that ReLU drops count as 1.
    Mutation {
        stem: "alpha_weights",
        file: "alpha_weights.cu",
        from: "dropped ? 0.0f : term",
        to: "term",
        flavour: Flavour::Plain,
        tests: "alpha_weights::small_weights_of_any_shape",
        says: "panicked at tests/",
    },
    // Without the barrier warps add up values that other warps have not written yet.
    Mutation {
        stem: "project",
        file: "lib/reduce.cuh",
        from: "of_warp[threadIdx.x / 32] = value;\n  __syncthreads();",
        to: "of_warp[threadIdx.x / 32] = value;",
        flavour: Flavour::Thread,
        tests: "project::small_sums_of_any_shape",
        says: "ThreadSanitizer: data race",
    },
    // Without the barrier a voxel is interpolated from values that other threads have not written yet.
    Mutation {
        stem: "resample",
        file: "lib/resampling.cuh",
        from: "tile.rows[row + of], x);\n      }\n      __syncthreads();",
        to: "tile.rows[row + of], x);\n      }",
        flavour: Flavour::Thread,
        tests: "resample::small_up_down_and_in_place",
        says: "in void resample_tile<Store<float> >",
    },
    // The range is that of the wrong voxels.
    Mutation {
        stem: "resample",
        file: "lib/resampling.cuh",
        from: "first_from(axis, index / 2 + last) - last",
        to: "first_from(axis, index / 2 + last)",
        flavour: Flavour::Plain,
        tests: "resample::any_ratio_of_any_axis",
        says: "panicked at tests/cuda/resample.rs:",
    },
];

#[test]
fn bugs_in_real_kernels_are_seen() {
    let mut wrong = String::new();
    for mutation in MUTATIONS {
        let Mutation { stem, file, from, to, flavour, tests, says } = *mutation;
        let mut programs = common::programs();
        programs.retain(|program| program.stem == stem);
        let kernels = Kernels::mutated(&programs, file, from, to);
        let tests = [tests];
        let outcome = Run { flavour, order: "forward", tests: &tests, variables: &[] }.of(&kernels);
        let text = outcome.text;
        if outcome.passed || !text.contains(says) {
            wrong += &format!("{file}, {to:?} for {from:?}: not {says:?}, but\n{text}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

//! Loops compiled for several instruction sets, of which the best is taken at run time.

/// Compiles a function for the vectors that every processor has (SSE2, NEON) and for AVX2.
///
/// AVX-512 was measured too, on loops in the first-level cache (Zen 4): up to 1.5 times slower, at best
/// a fifth faster, and where the compiler made gathers of it many times slower.
///
/// All of them give the same bits, as long as the order of the additions is written down lane by
/// lane: the compiler changes no order, and it fuses no product with a sum, not even where `fma`
/// is at hand, unless `mul_add` says so.
///
/// Don't create closures in such a function: they would be compiled for AVX2, and the standard
/// library's functions, compiled for the baseline, could not inline them.
macro_rules! for_each_instruction_set {
    ($function:item) => {
        #[multiversion::multiversion(targets("x86_64+avx2+f16c"))]
        $function
    };
}

pub(crate) use for_each_instruction_set;

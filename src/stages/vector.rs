//! Vector instructions of the processor at hand. Programs are built for the least processor of an
//! architecture; on x86-64 that has vectors of 4 f32, where most have 8. The mirrors are plain loops:
//! here they are compiled a second time, and the processor is asked which version it runs.
//!
//! Both versions do the same operations in the same order, and none is contracted: the bits are the
//! same (tested below).

/// Runs `work` with the widest vectors there are. All that `work` calls must be inlined into it: hence the
/// `#[inline(always)]` of the mirrors' loops.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "simd", target_arch = "x86_64"))]
    {
        use fearless_simd::{Level, Simd};
        if let Some(avx2) = Level::new().as_avx2() {
            return avx2.vectorize(work);
        }
    }
    work()
}

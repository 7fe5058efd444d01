//! Vector instructions of the processor at hand. Programs are built for the least processor of an
//! architecture; on x86-64 that has vectors of 4 f32, where today's have 8 or 16. The kernels are plain
//! loops: here they are compiled again for those, and the processor is asked which version it runs.
//!
//! All versions do the same operations in the same order, and none is contracted: the bits are the same
//! (tested below).

/// Runs `work` with the widest vectors there are. All that `work` calls must be inlined into it: hence the
/// `#[inline(always)]` of the kernels' loops.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "simd", target_arch = "x86_64"))]
    {
        use fearless_simd::{Level, Simd};
        let level = Level::new();
        #[cfg(test)]
        let level = tests::restricted(level);
        if let Some(avx512) = level.as_avx512() {
            return avx512.vectorize(work);
        }
        if let Some(avx2) = level.as_avx2() {
            return avx2.vectorize(work);
        }
    }
    work()
}

#[cfg(all(test, feature = "simd", target_arch = "x86_64"))]
mod tests {
    use crate::cpu::{Buffers, Executor};
    use crate::role::{Role, RoleKind};
    use crate::{Activation, BackwardOptions, DType, ForwardOptions, Fusion, Layout, Mode};
    use crate::{NormDesc, Plan, TensorDesc};
    use fearless_simd::{Level, Simd};
    use std::cell::Cell;
    use std::collections::BTreeSet;

    thread_local! {
        /// 0 for the processor's own instructions, 1 for AVX2, 2 for those of every processor.
        static LEVEL: Cell<u32> = const { Cell::new(0) };
    }

    pub fn restricted(level: Level) -> Level {
        match LEVEL.get() {
            0 => level,
            1 => level.as_avx2().map_or(level, |avx2| avx2.level()),
            _ => Level::baseline(),
        }
    }

    /// Everything that forward and backward leave, as bits.
    fn run(tensor: &TensorDesc, fusion: Fusion, level: u32) -> Vec<(Role, Vec<u32>)> {
        LEVEL.set(level);
        let (executor, mode) = (Executor::with_threads(1), Mode::Train);
        let (tuning, norm) = (executor.tuning(), NormDesc::bc_norm(18, 3));
        let forward = ForwardOptions {
            fusion,
            ..Default::default()
        };
        let backward = BackwardOptions {
            fusion,
            ..Default::default()
        };
        let plans = [
            Plan::forward(&norm, tensor, mode, forward, &tuning).unwrap(),
            Plan::backward(&norm, tensor, mode, backward, &tuning).unwrap(),
        ];
        let mut buffers = Buffers::new();
        for (seed, need) in plans.iter().flat_map(Plan::needs).enumerate() {
            if need.role.kind() != RoleKind::Caller || buffers.get_u32(need.role).is_some() {
                continue;
            }
            let mut state = seed as u32 + 1;
            let words = (0..need.bytes / 4).map(|_| {
                // Numbers from 0.5 to 2 of either sign, in 32 bits or twice in 16.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match tensor.dtype() {
                    DType::F16 if need.role.is_tensor() => state & 0x87ff_87ff | 0x3800_3800,
                    _ => state & 0x80ff_80ff | 0x3f00_3f00,
                }
            });
            buffers.set_u32(need.role, words.collect());
        }
        for plan in &plans {
            executor.run(plan, &mut buffers).unwrap();
        }
        LEVEL.set(0);
        let roles: BTreeSet<Role> = plans.iter().flat_map(Plan::needs).map(|n| n.role).collect();
        let words = |role| buffers.get_u32(role).map(<[u32]>::to_vec);
        roles
            .into_iter()
            .filter_map(|role| Some((role, words(role)?)))
            .collect()
    }

    #[test]
    fn all_instructions_make_the_same_bits() {
        for row in [7, 63, 401] {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    for activation in [Activation::None, Activation::Silu] {
                        let tensor = TensorDesc::new(&[2, 18, row]).unwrap();
                        let tensor = tensor.with_dtype(dtype).with_layout(layout);
                        let fusion = Fusion {
                            activation,
                            residual: activation != Activation::None,
                        };
                        let [widest, avx2, least] =
                            [0, 1, 2].map(|level| run(&tensor, fusion, level));
                        let what = format!("{row} {dtype:?} {layout:?} {activation:?}");
                        assert!(widest == least, "{what}");
                        assert!(avx2 == least, "{what}");
                    }
                }
            }
        }
    }
}

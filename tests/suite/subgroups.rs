//! Reductions by subgroup shuffles: the bits of those through workgroup memory, in every table and output, with
//! any size that the adapter allows, and an error beyond. It also shows that the adapter's subgroups are in the
//! order that the kernels take for granted.
#![allow(missing_docs)]

use crate::common;
use crate::common::rig;

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::kernels::KernelId;
use bcnorm::plan::Limits;
use bcnorm::{BackwardOptions, DType, Error, NormDesc, Plan, Tuning};
use common::problem::Problem;
use common::{adapters, run};
use rig::results;
use std::collections::BTreeSet;

/// Adapters with subgroups, and their smallest.
fn gpus() -> Vec<(String, Gpu, u32)> {
    let gpus = adapters::gpus(DeviceLimits::Default).into_iter();
    let sized = gpus.map(|(name, gpu)| {
        let size = Limits::of(&gpu.device).subgroup_size;
        (name, gpu, size)
    });
    sized.filter(|(.., size)| *size > 1).collect()
}

/// Lanes in all reductions: within a subgroup, and beyond it.
fn tunings(subgroup_size: u32) -> [Tuning; 3] {
    [(256, 256, 64, 1), (64, 4, 2, 4), (128, 32, 16, 8)].map(
        |(workgroup_size, reduce_lanes, fold_lanes, words_per_lane)| {
            Tuning::GPU.with(|t| {
                t.reduction.workgroup_size = workgroup_size;
                t.map.workgroup_size = workgroup_size;
                t.reduction.lanes = reduce_lanes;
                t.map.lanes = reduce_lanes;
                t.fold.lanes = fold_lanes;
                t.reduction.words_per_lane = words_per_lane;
                t.reduction.min_words_per_lane = words_per_lane;
                t.map.words_per_lane = words_per_lane;
                t.parts.max_words_per_lane = 16;
                t.fold.entries_per_lane = 2;
                t.fold.samples_per_segment = 5;
                t.limits.subgroup_size = subgroup_size;
            })
        },
    )
}

/// Long rows in parts, rows that begin within words, short rows, groups on chip; 16 bits.
fn problems() -> Vec<Problem> {
    vec![
        Problem::random(&[2, 2, 120, 121], 1, 1),
        Problem::random(&[23, 6, 19, 14], 2, 2).with_dtype(DType::BF16),
        Problem::random(&[130, 8, 2], 2, 3),
        Problem::random(&[7, 64, 40], 2, 6),
        Problem::random_of(NormDesc::group_norm(2, 6), &[5, 6, 3], 4),
        Problem::random_of(
            NormDesc::instance_norm(6).with_track_running_stats(true),
            &[7, 6, 33],
            5,
        ),
    ]
}

fn plans(problem: &Problem, tuning: &Tuning) -> [Plan; 2] {
    run::plans(problem, BackwardOptions::default(), tuning).unwrap()
}

#[test]
fn the_bits_of_workgroup_memory() {
    let mut kernels = BTreeSet::new();
    for (name, gpu, smallest) in gpus() {
        // Plans of every tuning find their kernels here.
        let pipelines = Pipelines::new(&gpu.device);
        for problem in problems() {
            for (index, through_memory) in tunings(1).iter().enumerate() {
                let expected =
                    results(&gpu, &pipelines, &problem, &plans(&problem, through_memory));
                for size in [2, smallest] {
                    let tuning = tunings(size)[index];
                    let what = format!("{name}: {:?}, tuning {index}, {size}", problem.dims);
                    let found = results(&gpu, &pipelines, &problem, &plans(&problem, &tuning));
                    assert!(found.keys().eq(expected.keys()), "{what}");
                    for (role, words) in found {
                        assert_eq!(words, expected[&role], "{what}: {role}");
                    }
                    let plans = plans(&problem, &tuning);
                    let steps = plans.iter().flat_map(Plan::steps);
                    let shuffling = steps.filter(|step| step.spec.subgroup_size > 1);
                    kernels.extend(shuffling.map(|step| {
                        let beyond = step.spec.lanes > step.spec.subgroup_size;
                        (step.spec.kernel, beyond)
                    }));
                }
            }
        }
    }
    if gpus().is_empty() {
        println!("skipped: no adapter with subgroups");
        return;
    }
    let reducing = KernelId::ALL.iter().copied();
    let reducing = reducing.filter(|id| id.kernel().family.reduces_side_by_side());
    for kernel in reducing {
        for beyond in [false, true] {
            assert!(
                kernels.contains(&(kernel, beyond)),
                "{}, beyond a subgroup: {beyond}",
                kernel.name()
            );
        }
    }
}

#[test]
fn more_than_the_device_has_is_an_error() {
    let problem = Problem::random(&[3, 4, 40, 41], 2, 1);
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let smallest = Limits::of(&gpu.device).subgroup_size;
        let tuning = tunings(2 * smallest)[0];
        let [forward, _] = plans(&problem, &tuning);
        let pipelines = Pipelines::with_tuning(&gpu.device, tuning);
        let error = pipelines.prepare(forward).unwrap_err();
        let Error::Limit {
            what, value, limit, ..
        } = &error
        else {
            panic!("{name}: {error}");
        };
        assert!(
            what.contains("subgroup size of row_moments"),
            "{name}: {error}"
        );
        assert_eq!(
            (*value, *limit),
            (u64::from(2 * smallest), u64::from(smallest)),
            "{name}"
        );
    }
    for size in [0, 3, 256] {
        let tuning = Tuning::GPU.with(|t| t.limits.subgroup_size = size);
        let error = run::plans(&problem, BackwardOptions::default(), &tuning).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!(
                "limits.subgroup_size is {size}: it must be a power of two"
            )),
            "{text}"
        );
    }
}

#[test]
fn gpus_get_them_and_software_does_not() {
    let mut limits = Limits::default();
    limits.subgroup_size = 32;
    let tuned = |name| {
        Tuning::for_name(name, false)
            .within(&limits)
            .limits
            .subgroup_size
    };
    assert_eq!(tuned("apple"), 32);
    assert_eq!(tuned("SwiftShader Device"), 1);
    assert_eq!(
        Tuning::GPU.within(&Limits::default()).limits.subgroup_size,
        1
    );
}

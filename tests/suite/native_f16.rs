//! Devices' own conversions of f16: the probe finds every way to differ from the library's, and where it finds none, kernels
//! that use them have the bits of those that do not.
#![allow(missing_docs)]

use crate::common;
use crate::common::rig;

use bcnorm::gpu::headless::DeviceLimits;
use bcnorm::gpu::{Pipelines, probe};
use bcnorm::kernels::{Spec, f16_probe_wgsl};
use bcnorm::{Activation, BackwardOptions, DType, Fusion, Layout, NormDesc, Plan, Tuning};
use common::problem::Problem;
use common::{adapters, run};
use rig::{Contents, results};

const ALL: u32 = 1 << 16;

/// Conversions that devices may have by WGSL's leave, or by a fault: what is asked of all patterns and boundaries must
/// tell each from the library's.
const OTHERS: [(&str, &str, [bool; 2]); 7] = [
    (
        "flushes what it reads",
        "fn other_unpack(p: u32) -> vec2<f32> { let v = unpack_pair(p); return select(v, vec2<f32>(0.0), abs(v) < vec2<f32>(0x1p-14)); }
         fn other_pack(v: vec2<f32>) -> u32 { return pack_pair(v); }",
        [false, true],
    ),
    (
        "reads one pattern of the upper half wrongly",
        "fn other_unpack(p: u32) -> vec2<f32> { return unpack_pair(p ^ select(0u, 0x10000u, (p >> 16u) == 0x03ffu)); }
         fn other_pack(v: vec2<f32>) -> u32 { return pack_pair(v); }",
        [false, true],
    ),
    (
        "rounds towards zero",
        "fn other_unpack(p: u32) -> vec2<f32> { return unpack_pair(p); }
         fn other_pack(v: vec2<f32>) -> u32 { return pack_pair(bitcast<vec2<f32>>(bitcast<vec2<u32>>(v) & vec2<u32>(0xffffe000u))); }",
        [true, false],
    ),
    (
        "rounds ties away from zero",
        "fn other_unpack(p: u32) -> vec2<f32> { return unpack_pair(p); }
         fn other_pack(v: vec2<f32>) -> u32 {
             let b = bitcast<vec2<u32>>(v);
             return pack_pair(bitcast<vec2<f32>>(b + select(vec2<u32>(0u), vec2<u32>(1u), (b & vec2<u32>(0x1fffu)) == vec2<u32>(0x1000u))));
         }",
        [true, false],
    ),
    (
        "ends at the largest number",
        "fn other_unpack(p: u32) -> vec2<f32> { return unpack_pair(p); }
         fn other_pack(v: vec2<f32>) -> u32 {
             let m = bitcast<vec2<u32>>(v) & vec2<u32>(0x7fffffffu);
             return pack_pair(select(v, sign(v) * 65504.0, (m >= vec2<u32>(0x477ff000u)) & (m < vec2<u32>(0x7f800000u))));
         }",
        [true, false],
    ),
    (
        "flushes what it writes",
        "fn other_unpack(p: u32) -> vec2<f32> { return unpack_pair(p); }
         fn other_pack(v: vec2<f32>) -> u32 { return pack_pair(select(v, v * 0.0, abs(v) < vec2<f32>(0x1p-14))); }",
        [true, false],
    ),
    (
        "makes numbers of NaNs",
        "fn other_unpack(p: u32) -> vec2<f32> { return unpack_pair(p); }
         fn other_pack(v: vec2<f32>) -> u32 {
             let m = bitcast<vec2<u32>>(v) & vec2<u32>(0x7fffffffu);
             return pack_pair(bitcast<vec2<f32>>(min(m, vec2<u32>(0x7f800000u)) | (bitcast<vec2<u32>>(v) & vec2<u32>(0x80000000u))));
         }",
        [true, false],
    ),
];

/// The probe, asking about functions of these names.
fn probe_text(unpack: &str, pack: &str, functions: &str) -> String {
    let text = f16_probe_wgsl()
        .replace("unpack2x16float(", unpack)
        .replace("pack2x16float(", pack);
    text + functions
}

#[test]
fn the_probe_tells_others_apart() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let asked =
            |text: &str| pollster::block_on(probe::f16(&gpu.device, &gpu.queue, text)).unwrap();
        let own = probe_text("unpack_pair(", "pack_pair(", "");
        assert_eq!(
            asked(&own),
            [ALL, ALL],
            "{name}: the library's own conversions"
        );
        for (what, functions, same) in OTHERS {
            let counts = asked(&probe_text("other_unpack(", "other_pack(", functions));
            assert_eq!(
                counts.map(|count| count == ALL),
                same,
                "{name}: {what}: {counts:?}"
            );
        }
        // A text that the device refuses is no error: it has no such functions.
        assert_eq!(asked("fn probe_f16() { missing(); }"), [0, 0]);
        // What the device itself does is for the device to say, the same each time.
        let twice =
            [0; 2].map(|_| pollster::block_on(probe::limits(&gpu.device, &gpu.queue)).unwrap());
        assert_eq!(twice[0], twice[1]);
        println!(
            "{name}: unpack2x16float {}, pack2x16float {}",
            twice[0].native_unpack, twice[0].native_pack
        );
    }
}

/// Long rows, ragged ones, short ones, channels last with whole words, pairs and odd channels; fused.
fn problems() -> Vec<Problem> {
    let fused = Fusion::NONE
        .with_activation(Activation::Silu)
        .with_residual(true);
    let shapes: [(&[usize], usize); 5] = [
        (&[2, 4, 24, 24], 2),
        (&[3, 6, 19, 15], 2),
        (&[20, 8, 2], 2),
        (&[3, 6, 5, 7], 3),
        (&[2, 5, 9, 11], 1),
    ];
    let mut problems = Vec::new();
    for (seed, (shape, groups)) in (1..).zip(shapes) {
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let problem = Problem::random(shape, groups, seed)
                .with_dtype(DType::F16)
                .with_layout(layout);
            problems.push(problem);
        }
    }
    let norm = NormDesc::group_norm(2, 6);
    problems.push(
        Problem::random_of(norm, &[3, 6, 8, 9], 9)
            .with_dtype(DType::F16)
            .with_fusion(fused),
    );
    problems
}

fn plans(problem: &Problem, tuning: &Tuning) -> [Plan; 2] {
    run::plans(problem, BackwardOptions::default(), tuning).unwrap()
}

/// The same bits in all buffers.
fn assert_same(expected: &Contents, found: &Contents, what: &str) {
    for (role, words) in expected {
        let pairs = words.iter().zip(&found[role]).enumerate();
        let differ: Vec<_> = pairs.filter(|(_, (a, b))| a != b).collect();
        let first = differ
            .first()
            .map(|(i, (a, b))| format!("the first at {i}: {a:08x}, {b:08x}"));
        assert!(
            differ.is_empty(),
            "{role}: {} of {} u32s differ, {}; {what}",
            differ.len(),
            words.len(),
            first.unwrap_or_default()
        );
    }
}

#[test]
fn kernels_have_the_same_bits() {
    for (name, gpu) in adapters::gpus(DeviceLimits::Default) {
        let limits = pollster::block_on(probe::limits(&gpu.device, &gpu.queue)).unwrap();
        let pipelines = Pipelines::new(&gpu.device);
        for problem in problems() {
            for class in [Tuning::GPU, Tuning::SOFTWARE] {
                let native = class.within(&limits);
                let mut by_integers = limits;
                by_integers.native_unpack = false;
                by_integers.native_pack = false;
                let of = |plans: &[Plan]| results(&gpu, &pipelines, &problem, plans);
                let expected = of(&plans(&problem, &class.within(&by_integers)));
                let native = plans(&problem, &native);
                let found = of(&native);
                let specs = native.iter().flat_map(Plan::steps).map(|step| step.spec);
                let tensors = |flag: fn(&Spec) -> bool| specs.clone().any(|spec| flag(&spec));
                assert_eq!(tensors(|spec| spec.native_unpack), limits.native_unpack);
                assert_eq!(tensors(|spec| spec.native_pack), limits.native_pack);
                assert_same(&expected, &found, &format!("{name}: {problem:?}"));
            }
        }
    }
}

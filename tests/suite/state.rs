//! State dicts of every norm: PyTorch's names and shapes, strict loading, modules of a model, files.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::layer::state::fit;
use bcnorm::layer::{StateDict, StateValue, put_module, take_module};
use bcnorm::{ChannelStats, Error, Norm, NormDesc};
use common::adapters;
use common::random::Random;
use pollster::block_on;

fn f32s(dims: &[usize], values: &[f32]) -> StateValue {
    StateValue::F32 {
        dims: dims.to_vec(),
        values: values.to_vec(),
    }
}

/// Name, shape and initial value; for integers no shape.
type Entry = (&'static str, &'static [usize], f32);

/// Every norm, with what `state_dict()` of PyTorch's module of that name lists.
fn norms() -> Vec<(NormDesc, Vec<Entry>)> {
    const C: &[usize] = &[6];
    let affine = [("weight", C, 1.0), ("bias", C, 0.0)];
    let running = [
        ("running_mean", C, 0.0),
        ("running_var", C, 1.0),
        ("num_batches_tracked", &[], 0.0),
    ];
    let speed = ("estbn_moving_speed", &[1][..], 0.0);
    let bc_affine = [("weight", &[1, 3, 1][..], 1.0), ("bias", &[1, 3, 1], 0.0)];
    let bn = [
        ("bn.weight", C, 1.0),
        ("bn.bias", C, 0.0),
        ("bn.running_mean", C, 0.0),
        ("bn.running_var", C, 1.0),
        ("bn.num_batches_tracked", &[], 0.0),
    ];
    let bn_speed = ("bn.estbn_moving_speed", &[1][..], 0.0);
    let batch = NormDesc::batch_norm(6);
    let instance = NormDesc::instance_norm(6);
    let bc = NormDesc::bc_norm(6, 3);
    vec![
        (batch, [&affine[..], &running].concat()),
        (batch.with_weight(false).with_bias(false), running.to_vec()),
        (batch.with_track_running_stats(false), affine.to_vec()),
        (
            NormDesc::est_bn(6),
            [&affine[..], &running, &[speed]].concat(),
        ),
        (NormDesc::group_norm(3, 6), affine.to_vec()),
        (
            NormDesc::group_norm(3, 6)
                .with_weight(true)
                .with_bias(false),
            affine[..1].to_vec(),
        ),
        (
            NormDesc::group_norm(3, 6)
                .with_weight(false)
                .with_bias(false),
            vec![],
        ),
        (instance, vec![]),
        (instance.with_weight(true).with_bias(true), affine.to_vec()),
        (instance.with_track_running_stats(true), running.to_vec()),
        (NormDesc::layer_norm(6), affine.to_vec()),
        (
            NormDesc::layer_norm(6).with_weight(true).with_bias(false),
            affine[..1].to_vec(),
        ),
        (bc, [&bc_affine[..], &bn].concat()),
        (
            bc.with_moving_speed(0.0),
            [&bc_affine[..], &bn, &[bn_speed]].concat(),
        ),
        (
            bc.with_per_channel_affine(true),
            [
                &[
                    ("weight", &[1, 6, 1][..], 1.0),
                    ("bias", &[1, 6, 1][..], 0.0),
                ],
                &bn[..],
            ]
            .concat(),
        ),
        (
            bc.with_weight(false)
                .with_bias(true)
                .with_bn_weight(true)
                .with_bn_bias(false),
            [&bc_affine[1..], &bn[..1], &bn[2..]].concat(),
        ),
        (
            bc.with_track_running_stats(false),
            [&bc_affine[..], &bn[..2]].concat(),
        ),
        (NormDesc::weight_standardization(), vec![]),
    ]
}

fn fresh(entries: &[Entry]) -> StateDict {
    let value = |dims: &[usize], initial: f32| match dims {
        [] => StateValue::I64(0),
        _ => f32s(dims, &vec![initial; dims.iter().product()]),
    };
    entries
        .iter()
        .map(|&(name, dims, initial)| (name.to_owned(), value(dims, initial)))
        .collect()
}

/// As `fresh`, every value another; the running variances positive.
fn random(entries: &[Entry], seed: u64) -> StateDict {
    let mut random = Random::new(seed);
    let mut state = fresh(entries);
    for value in state.values_mut() {
        match value {
            StateValue::F32 { values, .. } => {
                values.iter_mut().for_each(|v| *v = random.uniform());
            }
            StateValue::I64(count) => *count = 1 + random.below(1000) as i64,
            other => panic!("no test for {other:?}"),
        }
    }
    state
}

/// Variances that no training gives are loaded as PyTorch loads them, and named.
#[test]
fn values_that_make_no_sense() {
    let norm = NormDesc::batch_norm(4);
    let mut state = StateDict::from([
        ("weight".to_owned(), f32s(&[4], &[-1.0; 4])),
        ("bias".to_owned(), f32s(&[4], &[-1.0; 4])),
        ("running_mean".to_owned(), f32s(&[4], &[-1.0; 4])),
        (
            "running_var".to_owned(),
            f32s(&[4], &[0.0, 1.0, f32::INFINITY, 1e-30]),
        ),
        ("num_batches_tracked".to_owned(), StateValue::I64(1)),
    ]);
    assert_eq!(fit(&norm, &state).unwrap().warnings, [""; 0]);
    for (values, says) in [
        ([1.0, -0.5, 2.0, -3.0], ["2 of 4", "the first: -0.5"]),
        ([1.0, 1.0, 1.0, f32::NAN], ["1 of 4", "the first: NaN"]),
    ] {
        state.insert("running_var".to_owned(), f32s(&[4], &values));
        let fit = fit(&norm, &state).unwrap();
        let [warning] = &fit.warnings[..] else {
            panic!("{:?}", fit.warnings);
        };
        for part in says.iter().chain(&["running_var", "below 0 or NaN"]) {
            assert!(warning.contains(part), "{warning}");
        }
    }
}

struct Rig {
    gpu: Gpu,
    pipelines: Pipelines,
}

impl Rig {
    fn new() -> Self {
        let gpu = adapters::first();
        let pipelines = Pipelines::new(&gpu.device);
        Self { gpu, pipelines }
    }

    fn layer(&self, norm: NormDesc) -> Norm {
        Norm::new(&self.pipelines, norm).unwrap()
    }

    fn state(&self, layer: &Norm) -> StateDict {
        block_on(layer.state_dict(&self.gpu.queue)).unwrap()
    }

    fn load(&self, layer: &mut Norm, state: &StateDict) -> Result<(), Error> {
        layer.load_state_dict(&self.gpu.queue, state)
    }

    /// The problems that a dict has for a norm, none of which leaves anything behind.
    fn problems(&self, norm: NormDesc, state: &StateDict) -> Vec<String> {
        let mut layer = self.layer(norm);
        let before = self.state(&layer);
        let problems = match self.load(&mut layer, state) {
            Err(Error::StateDict { problems }) => problems,
            other => panic!("{other:?}"),
        };
        assert_eq!(*layer.desc(), norm);
        assert_eq!(self.state(&layer), before);
        problems
    }
}

#[test]
fn a_new_layer_is_pytorchs() {
    let rig = Rig::new();
    for (norm, entries) in norms() {
        assert_eq!(rig.state(&rig.layer(norm)), fresh(&entries), "{norm:?}");
    }
}

#[test]
fn what_is_loaded_is_there() {
    let rig = Rig::new();
    for (seed, (norm, entries)) in (1..).zip(norms()) {
        let mut layer = rig.layer(norm);
        let state = random(&entries, seed);
        rig.load(&mut layer, &state).unwrap();
        assert_eq!(rig.state(&layer), state, "{norm:?}");
        // The speed of the dict is the layer's now.
        if let Some(StateValue::F32 { values, .. }) = state
            .get("estbn_moving_speed")
            .or(state.get("bn.estbn_moving_speed"))
        {
            let moving_speed = values[0];
            assert_eq!(layer.desc().stats, ChannelStats::Estimate { moving_speed });
        }
    }
}

/// No norm takes the dict of one with other entries.
#[test]
fn dicts_fit_their_own_norm_only() {
    let rig = Rig::new();
    let norms = norms();
    for (norm, entries) in &norms {
        for (other, others) in &norms {
            let mut layer = rig.layer(*norm);
            let names = |entries: &[Entry]| {
                let mut names: Vec<_> = entries.iter().map(|e| (e.0, e.1)).collect();
                names.sort_unstable();
                names
            };
            let fits = names(entries) == names(others);
            let result = rig.load(&mut layer, &fresh(others));
            assert_eq!(result.is_ok(), fits, "{norm:?} given that of {other:?}");
        }
    }
}

#[test]
fn every_problem_is_listed_at_once() {
    let rig = Rig::new();
    let norm = NormDesc::est_bn(6);
    let mut state = rig.state(&rig.layer(norm));
    state.remove("bias");
    state.remove("num_batches_tracked");
    state.insert("weight".into(), f32s(&[5], &[1.0; 5]));
    state.insert("running_mean".into(), f32s(&[6], &[1.0; 5]));
    state.insert("running_var".into(), StateValue::I64(1));
    state.insert("estbn_moving_speed".into(), f32s(&[1], &[-1.0]));
    state.insert("bn.weight".into(), f32s(&[6], &[1.0; 6]));
    let mut problems = rig.problems(norm, &state);
    problems.sort();
    assert_eq!(
        problems,
        [
            "estbn_moving_speed = -1 is out of range: it must be from 0 to 1",
            "missing key \"bias\"",
            "missing key \"num_batches_tracked\" (PyTorch before 0.4.1 saved none: add one, an i64 \
             of value 0)",
            "running_var is i64, expected f32",
            "size mismatch for running_mean: shape [6] and 5 values, expected [6]",
            "size mismatch for weight: shape [5] and 5 values, expected [6]",
            "unexpected key \"bn.weight\"",
        ]
    );
    assert_eq!(
        rig.problems(norm.with_moving_speed(0.5), &StateDict::new())
            .len(),
        6
    );
    // Counts that are none.
    for (value, says) in [
        (StateValue::I64(-3), "is -3, expected an i64 from 0"),
        (f32s(&[], &[3.0]), "is f32 of shape [], expected an i64"),
    ] {
        let norm = NormDesc::batch_norm(6);
        let mut state = rig.state(&rig.layer(norm));
        state.insert("num_batches_tracked".into(), value);
        let problems = rig.problems(norm, &state);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(says), "{problems:?}");
    }
}

/// BCNorm's affine as (1, G, 1) or (G), per channel as (1, C, 1) or (C).
#[test]
fn shapes_of_bc_norms_affine() {
    let rig = Rig::new();
    for (per_channel, len) in [(false, 3), (true, 6)] {
        let norm = NormDesc::bc_norm(6, 3).with_per_channel_affine(per_channel);
        let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
        for dims in [vec![1, len, 1], vec![len]] {
            let mut layer = rig.layer(norm);
            let mut state = rig.state(&layer);
            state.insert("weight".into(), f32s(&dims, &values));
            rig.load(&mut layer, &state).unwrap();
            assert_eq!(rig.state(&layer)["weight"], f32s(&[1, len, 1], &values));
        }
        let mut state = rig.state(&rig.layer(norm));
        state.insert("weight".into(), f32s(&[9 - len], &vec![1.0; 9 - len]));
        assert_eq!(rig.problems(norm, &state).len(), 1);
    }
}

/// The authors' ImageNet checkpoints call BCNorm's inner norm `pbn`.
#[test]
fn names_of_the_authors_checkpoints() {
    let rig = Rig::new();
    for norm in [
        NormDesc::bc_norm(6, 3),
        NormDesc::bc_norm(6, 3).with_moving_speed(0.25),
    ] {
        let mut theirs = StateDict::new();
        let ours = rig.state(&rig.layer(norm));
        let changed = |value: &StateValue| match value {
            StateValue::F32 { dims, values } => {
                f32s(dims, &values.iter().map(|v| v + 0.5).collect::<Vec<_>>())
            }
            _ => StateValue::I64(77),
        };
        for (name, value) in &ours {
            let name = match name.strip_prefix("bn.") {
                Some(inner) => format!("pbn.{inner}"),
                None => name.clone(),
            };
            theirs.insert(name, changed(value));
        }
        let mut layer = rig.layer(norm);
        rig.load(&mut layer, &theirs).unwrap();
        // Saved under our own names.
        let expected: StateDict = ours.iter().map(|(n, v)| (n.clone(), changed(v))).collect();
        assert_eq!(rig.state(&layer), expected);

        // Both names: which one is meant?
        let mut both = theirs.clone();
        both.insert("bn.weight".into(), ours["bn.weight"].clone());
        let problems = rig.problems(norm, &both);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("bn.* and pbn.* are two names"));
        // A problem under the other name is told under that name.
        let mut bad = theirs.clone();
        bad.insert("pbn.weight".into(), f32s(&[2], &[1.0; 2]));
        bad.insert("pbn.wieght".into(), f32s(&[6], &[1.0; 6]));
        let problems = rig.problems(norm, &bad);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("size mismatch for pbn.weight"));
        assert_eq!(problems[1], "unexpected key \"pbn.wieght\"");
    }
    // Elsewhere it means nothing.
    let norm = NormDesc::batch_norm(6);
    let mut state = rig.state(&rig.layer(norm));
    let weight = state.remove("weight").unwrap();
    state.insert("pbn.weight".into(), weight);
    let problems = rig.problems(norm, &state);
    assert_eq!(
        problems,
        ["missing key \"weight\"", "unexpected key \"pbn.weight\""]
    );
}

#[test]
fn modules_of_a_model() {
    let rig = Rig::new();
    let mut model = StateDict::new();
    let all: Vec<_> = norms().into_iter().zip(0..).collect();
    for ((_, entries), i) in &all {
        put_module(&mut model, &format!("layer.{i}.bn"), random(entries, *i));
    }
    model.insert("layer.1.bn".into(), StateValue::I64(5));
    model.insert("layer.1.bnx.weight".into(), StateValue::I64(6));
    let whole = model.clone();
    for ((norm, entries), i) in &all {
        // With a dot at the end, too.
        let dot = ["", "."][*i as usize % 2];
        let part = take_module(&mut model, &format!("layer.{i}.bn{dot}"));
        assert_eq!(part, random(entries, *i));
        rig.load(&mut rig.layer(*norm), &part).unwrap();
    }
    let left: Vec<&str> = model.keys().map(String::as_str).collect();
    assert_eq!(left, ["layer.1.bn", "layer.1.bnx.weight"]);
    assert_eq!(take_module(&mut model, "layer.7.bn"), StateDict::new());
    assert_eq!(take_module(&mut model, "ayer"), StateDict::new());
    // Put back where it was, and the empty path is all.
    for ((_, entries), i) in &all {
        put_module(&mut model, &format!("layer.{i}.bn."), random(entries, *i));
    }
    assert_eq!(model, whole);
    let mut all = model.clone();
    assert_eq!(take_module(&mut all, ""), model);
    assert!(all.is_empty());
    put_module(&mut all, "", whole);
    assert_eq!(all, model);
    // Replaced, not kept.
    put_module(
        &mut all,
        "layer.1",
        StateDict::from([("bn".into(), StateValue::I64(1))]),
    );
    assert_eq!(all["layer.1.bn"], StateValue::I64(1));
}

#[cfg(feature = "safetensors")]
mod files {
    use super::*;
    use bcnorm::layer::checkpoint;
    use safetensors::tensor::{Dtype, TensorView};
    use std::path::{Path, PathBuf};

    /// A folder of its own for each test, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("bcnorm-state-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A shape must be filled, whatever its product is modulo 2^64; names of a file give a terminal no
    /// commands.
    #[test]
    fn shapes_that_nothing_fills() {
        for (dims, len) in [
            (vec![1 << 62, 4], 0),
            (vec![usize::MAX, 2], 1),
            (vec![0], 1),
            (vec![], 0),
            (vec![2, 3], 5),
        ] {
            let state = StateDict::from([("a\u{1b}[2J".to_owned(), f32s(&dims, &vec![1.0; len]))]);
            let error = checkpoint::to_bytes(&state).unwrap_err();
            assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
            let says = format!("a\\u{{1b}}[2J: {len} values do not fill the shape {dims:?}");
            assert!(error.to_string().contains(&says), "{error}");
            let error = fit(&NormDesc::layer_norm(2), &state)
                .unwrap_err()
                .to_string();
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }

    fn problems<T: std::fmt::Debug>(result: Result<T, Error>, names: &Path) -> Vec<String> {
        match result {
            Err(Error::Checkpoint { file, problems, .. }) => {
                assert_eq!(file, names.display().to_string());
                problems
            }
            other => panic!("{other:?}"),
        }
    }

    fn in_memory() -> &'static Path {
        Path::new("the safetensors data")
    }

    fn whole_model() -> StateDict {
        let mut model = StateDict::new();
        for ((_, entries), i) in norms().into_iter().zip(0..) {
            put_module(&mut model, &format!("layer.{i}.bn"), random(&entries, i));
        }
        model.insert("empty".into(), f32s(&[0, 3], &[]));
        model.insert("scalar".into(), f32s(&[], &[0.5]));
        let odd = [f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE / 2.0];
        model.insert("odd".into(), f32s(&[4], &odd));
        model
    }

    /// Equal to the bit: a NaN is not equal to itself.
    fn assert_same(a: &StateDict, b: &StateDict) {
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn bytes_and_files_hold_the_dict() {
        let model = whole_model();
        let bytes = checkpoint::to_bytes(&model).unwrap();
        assert_same(&checkpoint::from_bytes(&bytes).unwrap(), &model);
        // As everyone reads it.
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let count = file.tensor("layer.0.bn.num_batches_tracked").unwrap();
        assert_eq!((count.dtype(), count.shape()), (Dtype::I64, &[][..]));
        let weight = file.tensor("layer.0.bn.weight").unwrap();
        assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[6][..]));

        let folder = Folder::new("whole");
        let path = folder.0.join("model.safetensors");
        checkpoint::save(&model, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_same(&checkpoint::load(&path).unwrap(), &model);
        // Over an old one; nothing else is left in the folder.
        let (_, entries) = &norms()[0];
        let other = random(entries, 99);
        checkpoint::save(&other, &path).unwrap();
        assert_same(&checkpoint::load(&path).unwrap(), &other);
        assert_eq!(folder.names(), ["model.safetensors"]);
    }

    /// What the file system says of a failure is there as it was.
    #[test]
    fn failures_of_files_have_a_source() {
        use std::error::Error as _;
        let folder = Folder::new("none");
        let path = folder.0.join("none").join("model.safetensors");
        let load = checkpoint::load(&path).unwrap_err();
        let save = checkpoint::save(&StateDict::new(), &path).unwrap_err();
        for (error, says) in [(load, "cannot be read"), (save, "cannot be written")] {
            let source = error.source().unwrap().downcast_ref::<std::io::Error>();
            assert_eq!(source.unwrap().kind(), std::io::ErrorKind::NotFound);
            assert!(error.to_string().ends_with(says), "{error}");
        }
    }

    /// Many at once: each reader sees a whole file.
    #[test]
    fn files_are_whole_at_any_moment() {
        let folder = Folder::new("moment");
        let path = folder.0.join("model.safetensors");
        let dict = |v: f32| StateDict::from([("weight".into(), f32s(&[100_000], &[v; 100_000]))]);
        checkpoint::save(&dict(0.0), &path).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (path, dict) = (&path, &dict);
                scope.spawn(move || {
                    for i in 0..5 {
                        checkpoint::save(&dict((writer * 5 + i) as f32), path).unwrap();
                    }
                });
            }
            for _ in 0..30 {
                let state = checkpoint::load(&path).unwrap();
                let StateValue::F32 { values, .. } = &state["weight"] else {
                    panic!("no floats");
                };
                assert!(values.iter().all(|v| *v == values[0]));
            }
        });
        assert_eq!(folder.names(), ["model.safetensors"]);
    }

    #[test]
    fn floats_of_any_width() {
        let half: Vec<u8> = [0x3c00u16, 0xc000, 0x0001, 0x7bff, 0x7c00]
            .iter()
            .flat_map(|bits| bits.to_le_bytes())
            .collect();
        let half_values = [1.0, -2.0, 2.0f32.powi(-24), 65504.0, f32::INFINITY];
        let brain: Vec<u8> = [0x3f80u16, 0xc000, 0x0001]
            .iter()
            .flat_map(|bits| bits.to_le_bytes())
            .collect();
        let brain_values = [1.0, -2.0, f32::from_bits(1 << 16)];
        let double: Vec<u8> = [0.1f64, -1e-3]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let count = 7i64.to_le_bytes();
        let view =
            |dtype, dims: &[usize], data| TensorView::new(dtype, dims.to_vec(), data).unwrap();
        let bytes = safetensors::serialize(
            [
                ("half", view(Dtype::F16, &[5], &half[..])),
                ("brain", view(Dtype::BF16, &[1, 3], &brain)),
                ("double", view(Dtype::F64, &[2, 1], &double)),
                ("count", view(Dtype::I64, &[], &count)),
                ("one", view(Dtype::I64, &[1], &count)),
            ],
            None,
        );
        let state = checkpoint::from_bytes(&bytes.unwrap()).unwrap();
        assert_eq!(
            state,
            StateDict::from([
                ("half".into(), f32s(&[5], &half_values)),
                ("brain".into(), f32s(&[1, 3], &brain_values)),
                ("double".into(), f32s(&[2, 1], &[0.1, -1e-3])),
                ("count".into(), StateValue::I64(7)),
                ("one".into(), StateValue::I64(7)),
            ])
        );
    }

    #[test]
    fn every_bad_entry_is_named() {
        let folder = Folder::new("bad");
        let path = folder.0.join("model.safetensors");
        let zeros = [0u8; 16];
        let view = |dtype, dims: &[usize], len: usize| {
            TensorView::new(dtype, dims.to_vec(), &zeros[..len]).unwrap()
        };
        let bytes = safetensors::serialize(
            [
                ("bn1.weight", view(Dtype::F32, &[4], 16)),
                ("bn1.mask", view(Dtype::BOOL, &[3], 3)),
                ("ids", view(Dtype::I64, &[2], 16)),
                ("steps", view(Dtype::I32, &[], 4)),
            ],
            None,
        );
        std::fs::write(&path, bytes.unwrap()).unwrap();
        assert_eq!(
            problems(checkpoint::load(&path), &path),
            [
                "bn1.mask is BOOL, expected F16, BF16, F32, F64 or one I64",
                "ids is i64 of shape [2], expected a single value",
                "steps is I32, expected F16, BF16, F32, F64 or one I64",
            ]
        );
        // Of one module only its own are.
        assert_eq!(
            problems(checkpoint::load_module(&path, "bn1"), &path).len(),
            1
        );
        // A module that is not there, though names begin so.
        for name in ["bn", "bn1.weight", "no\x1bne"] {
            assert_eq!(
                problems(checkpoint::load_module(&path, name), &path),
                [format!("there is no module {name:?}; there are: bn1")]
            );
        }
        let error = checkpoint::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("model.safetensors: bn1.mask is BOOL"),
            "{error}"
        );
    }

    /// Finite values stay finite: what f32 cannot hold is refused, and rounded is what it can.
    #[test]
    fn values_beyond_f32() {
        let limit = f64::from(f32::MAX);
        // Half a unit above the largest f32 is where infinity begins.
        let rounded = limit + 2f64.powi(102);
        let fine = [limit, -limit, rounded, f64::INFINITY, f64::NAN, 1e-300];
        let read = |values: &[f64]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F64, vec![2, 3], &bytes).unwrap();
            assert_eq!(
                checkpoint::from_view(&view).is_ok(),
                checkpoint::from_bytes(&safetensors::serialize([("w", &view)], None).unwrap())
                    .is_ok()
            );
            let bytes = safetensors::serialize([("w\n", view)], None).unwrap();
            checkpoint::from_bytes(&bytes)
        };
        let expected = fine.map(|value| value as f32);
        let expected = StateDict::from([("w\n".into(), f32s(&[2, 3], &expected))]);
        assert_same(&read(&fine).unwrap(), &expected);
        for (wide, place) in [(1e300, 4), (-3.5e38, 0), (limit + 2f64.powi(103), 5)] {
            let mut values = fine;
            values[place] = wide;
            values[5] = wide;
            let found = problems(read(&values), in_memory());
            assert_eq!(found.len(), 1, "{found:?}");
            let says = format!(
                "w\\n has {wide:e} at [{}, {}], beyond the largest f32, 3.4028235e38",
                place / 3,
                place % 3
            );
            assert!(found[0].starts_with(&says), "{found:?}");
        }
    }

    #[test]
    fn one_module_of_a_file() {
        let folder = Folder::new("module");
        let path = folder.0.join("model.safetensors");
        let mut model = whole_model();
        checkpoint::save(&model, &path).unwrap();
        for module in ["layer.0.bn", "layer.12.bn.", "layer"] {
            let part = checkpoint::load_module(&path, module).unwrap();
            assert!(!part.is_empty());
            assert_eq!(part, take_module(&mut model.clone(), module));
        }
        let part = checkpoint::load_module(&path, "layer.0.bn").unwrap();
        let rig = Rig::new();
        let mut layer = rig.layer(norms()[0].0);
        rig.load(&mut layer, &part).unwrap();
        // Saved into the model again.
        put_module(&mut model, "layer.0.bn", rig.state(&layer));
        checkpoint::save(&model, &path).unwrap();
        assert_same(&checkpoint::load(&path).unwrap(), &model);
    }

    #[test]
    fn what_cannot_be_read_or_written() {
        let folder = Folder::new("wrong");
        let path = folder.0.join("model.safetensors");
        let (_, entries) = &norms()[0];
        let good = random(entries, 1);

        // No file, no folder, a folder.
        assert_eq!(problems(checkpoint::load(&path), &path).len(), 1);
        let nowhere = folder.0.join("nowhere").join("model.safetensors");
        assert_eq!(
            problems(checkpoint::save(&good, &nowhere), &nowhere).len(),
            1
        );
        assert_eq!(problems(checkpoint::load(&folder.0), &folder.0).len(), 1);
        let inside = folder.0.join("taken");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("file"), "").unwrap();
        assert_eq!(problems(checkpoint::save(&good, &inside), &inside).len(), 1);
        assert_eq!(folder.names(), ["taken"]);

        // Values that do not fill their shapes: all are named, and the old file stays.
        checkpoint::save(&good, &path).unwrap();
        let mut bad = good.clone();
        bad.insert("weight".into(), f32s(&[6], &[1.0; 5]));
        bad.insert("bias".into(), f32s(&[2, 2], &[1.0; 6]));
        for found in [
            problems(checkpoint::save(&bad, &path), &path),
            problems(checkpoint::to_bytes(&bad), in_memory()),
        ] {
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(found[0].starts_with("bias: "), "{found:?}");
            assert!(found[1].starts_with("weight: "), "{found:?}");
        }
        assert_eq!(checkpoint::load(&path).unwrap(), good);
        assert_eq!(folder.names(), ["model.safetensors", "taken"]);

        // Shapes whose sizes have no product, or no number of bits.
        for dims in [
            vec![1 << 62, 4],
            vec![usize::MAX, 2, 0],
            vec![1 << (usize::BITS - 5)],
        ] {
            let wide = StateDict::from([("weight".into(), f32s(&dims, &[]))]);
            let found = problems(checkpoint::to_bytes(&wide), in_memory());
            let says = found[0].starts_with("weight: ") && found[0].contains("shape [");
            assert!(says, "{found:?}");
        }

        // Cut short anywhere, or not such a file at all.
        let bytes = checkpoint::to_bytes(&good).unwrap();
        for len in 0..bytes.len() {
            let found = problems(checkpoint::from_bytes(&bytes[..len]), in_memory());
            assert!(found[0].starts_with("not a safetensors file"), "{found:?}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        problems(checkpoint::from_bytes(&longer), in_memory());
        for bytes in [
            &b"PK\x03\x04 a file of PyTorch's own"[..],
            &[0xff; 64],
            b"{}",
        ] {
            problems(checkpoint::from_bytes(bytes), in_memory());
        }
    }

    /// The bytes of a header: %XX is one, #N a list in N lists.
    fn header_of(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '#']) {
            bytes.extend(rest[..at].bytes());
            let (marked, from) = (rest.as_bytes()[at], &rest[at + 1..]);
            let digits = match marked {
                b'%' => 2,
                _ => from.bytes().take_while(u8::is_ascii_digit).count(),
            };
            let (number, after) = from.split_at(digits);
            match marked {
                b'%' => bytes.push(u8::from_str_radix(number, 16).unwrap()),
                _ => {
                    let depth = number.parse().unwrap();
                    bytes.extend(["[".repeat(depth), "]".repeat(depth)].concat().bytes());
                }
            }
            rest = after;
        }
        bytes.extend(rest.bytes());
        bytes
    }

    /// The list that the browser package's own reader is held to, too.
    #[test]
    fn what_the_format_s_library_accepts_and_refuses() {
        let mut wrong = Vec::new();
        let list = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/safetensors.txt"
        ))
        .lines();
        let cases = list.filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in cases.clone() {
            let columns: Vec<&str> = line.splitn(5, " | ").collect();
            let [verdict, what, length, data, header] = columns[..] else {
                panic!("{line}")
            };
            let header = header_of(header);
            let length = length.parse().unwrap_or(header.len() as u64);
            let mut file = length.to_le_bytes().to_vec();
            file.extend(header);
            file.resize(file.len() + data.parse::<usize>().unwrap(), 0);
            let found = match safetensors::SafeTensors::deserialize(&file) {
                Ok(read) => {
                    let mut names = read.names();
                    names.sort_unstable();
                    names.join(" ")
                }
                Err(_) => {
                    // So it is for the library's own reader.
                    problems(checkpoint::from_bytes(&file), in_memory());
                    "refused".to_owned()
                }
            };
            let found = if found.is_empty() { "-" } else { &found };
            if found != verdict {
                wrong.push(format!("{what}: {found}, expected {verdict}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(cases.count() > 80);
    }
}

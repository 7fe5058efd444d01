//! Checkpoints: runs that go on, and files that do not fit.

use crate::common::{NORMS, device, run, settings};
use bcnorm_burn::MovingSpeed;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use train_digits::checkpoint::Checkpoint;
use train_digits::network::{Network, NormKind};
use train_digits::run::Start;
use train_digits::training::Settings;

fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), view.data().to_vec()));
    tensors.collect()
}

/// 30 steps, and 15 and 15: the same bits of weights and running statistics.
#[test]
fn a_run_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part, rest] = ["whole", "part", "rest"].map(|name| folder.path().join(name));
    let burns = [(NormKind::BurnBn, false), (NormKind::BurnGn, true)];
    for (norm, ws) in NORMS.into_iter().chain(burns) {
        let settings = Settings {
            seed: 5,
            ..settings(norm, ws)
        };
        run(settings.clone(), Start::Seed, 30, 7, Some(&whole));
        run(settings.clone(), Start::Seed, 15, 7, Some(&part));
        let checkpoint = Checkpoint::read(&part).unwrap();
        assert_eq!(checkpoint.progress().unwrap().step, 15);
        run(settings, Start::Checkpoint(checkpoint), 30, 7, Some(&rest));
        let [whole, part, rest] = [&whole, &part, &rest].map(|path| tensors(path));
        assert_ne!(whole, part, "{norm}");
        for (name, bytes) in &whole {
            assert!(rest[name] == *bytes, "{norm}: {name} differs");
        }
        assert_eq!(whole.len(), rest.len(), "{norm}");
    }
}

/// PyTorch's state dict has exactly these.
#[test]
fn names_are_those_of_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    run(
        settings(NormKind::BcnEst, true),
        Start::Seed,
        1,
        1,
        Some(&path),
    );
    let names: Vec<String> = tensors(&path).into_keys().collect();
    let of_norm = |prefix: &str| {
        let names = names.iter().filter_map(|name| name.strip_prefix(prefix));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [
        "bias",
        "bn.bias",
        "bn.estbn_moving_speed",
        "bn.num_batches_tracked",
        "bn.running_mean",
        "bn.running_var",
        "bn.weight",
        "weight",
    ];
    for prefix in ["norm1.", "layer1.norm2.", "layer2.downsample.1."] {
        assert_eq!(of_norm(prefix), expected);
    }
    // 6 convolutions, 6 norms, the head.
    assert_eq!(names.len(), 6 + 6 * 8 + 2);
}

/// What does not fit is refused before a step, by what is wrong with it.
#[test]
fn other_networks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bn");
    run(
        settings(NormKind::Bn, false),
        Start::Seed,
        1,
        1,
        Some(&path),
    );
    let checkpoint = Checkpoint::read(&path).unwrap();
    let state = |kind| Network::new(kind, false, 0, &MovingSpeed::new(0.0), &device()).state();
    assert!(checkpoint.state(&state(NormKind::BurnBn)).is_ok());
    for (kind, why) in [
        (
            NormKind::Gn,
            "has norm1.running_mean, which the network has not",
        ),
        (NormKind::Bcn, "lacks norm1.bn.weight"),
        (NormKind::Bcn, "(its metadata say --norm bn)"),
        (
            NormKind::Bcn,
            "norm1.weight is F32 of [8], expected F32 of [1, 2, 1]",
        ),
    ] {
        let error = checkpoint.state(&state(kind)).unwrap_err().to_string();
        let all = error.contains(why) || error.contains("more");
        assert!(all, "{kind}: {error}");
    }
    // Without metadata, as others write it: weights, but no run to go on with.
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    fs::write(&path, safetensors::serialize(file.iter(), None).unwrap()).unwrap();
    let weights = Checkpoint::read(&path).unwrap();
    assert!(weights.state(&state(NormKind::Bn)).is_ok());
    let error = weights.progress().unwrap_err().to_string();
    assert!(error.contains("--init"), "{error}");
}

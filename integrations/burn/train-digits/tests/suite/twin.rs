//! Beside PyTorch: the losses of its first 60 steps, which `examples/reference/train_digits.py --steps 60 --log-every 1`
//! wrote.

use crate::common::{NORMS, run, settings};
use std::path::Path;
use train_digits::log::Log;
use train_digits::network::NormKind;
use train_digits::run::Start;

/// What the loss of a step may differ by, up to a step. Both compute in f32, and round differently; what differs grows
/// with every step.
const BOUNDS: [(usize, f64); 2] = [(20, 1e-4), (60, 1e-2)];

fn compare(norm: NormKind, ws: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    let twin = Log::read(&folder.join(format!("{norm}.tsv"))).unwrap();
    let ours = run(settings(norm, ws), Start::Seed, 60, 1, None);
    assert_eq!((ours.rows.len(), twin.rows.len()), (60, 60));
    for key in ["norm", "ws", "batch", "lr", "epochs", "seed"] {
        assert_eq!(ours.settings[key], twin.settings[key]);
    }
    let mut worst = [0.0; BOUNDS.len()];
    for (ours, twin) in ours.rows.iter().zip(&twin.rows) {
        assert_eq!(ours.step, twin.step);
        let index = BOUNDS.iter().position(|(step, _)| ours.step <= *step);
        let worst = &mut worst[index.unwrap()];
        *worst = f64::max(*worst, (ours.loss - twin.loss).abs());
    }
    println!("{norm}: {worst:.1e?}");
    for (worst, (step, bound)) in worst.iter().zip(BOUNDS) {
        assert!(*worst < bound, "{norm}, up to step {step}: {worst:e}");
    }
}

#[test]
fn batch_norm() {
    let [(norm, ws), ..] = NORMS;
    compare(norm, ws);
}

#[test]
fn group_norm() {
    let [_, (norm, ws), ..] = NORMS;
    compare(norm, ws);
}

#[test]
fn bc_norm() {
    let [.., (norm, ws), _] = NORMS;
    compare(norm, ws);
}

#[test]
fn bc_norm_by_estimates() {
    let [.., (norm, ws)] = NORMS;
    compare(norm, ws);
}

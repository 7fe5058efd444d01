//! Beside PyTorch: the losses of its first 60 steps, which `examples/reference/train_digits.py --steps 60 --log-every 1`
//! wrote.

use crate::common::{NORMS, run, settings};
use std::path::Path;
use train_digits::log::Log;
use train_digits::network::NormKind;
use train_digits::run::Start;

/// What the loss of a step may differ by: both compute in f32, and round differently. On llvmpipe none differs by more
/// than 1e-6, which is the last digit of the logs.
const BOUND: f64 = 1e-4;

fn compare(norm: NormKind, ws: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    let twin = Log::read(&folder.join(format!("{norm}.tsv"))).unwrap();
    let ours = run(settings(norm, ws), Start::Seed, 60, 1, None);
    assert_eq!((ours.rows.len(), twin.rows.len()), (60, 60));
    for key in ["norm", "ws", "batch", "lr", "epochs", "seed"] {
        assert_eq!(ours.settings[key], twin.settings[key]);
    }
    let mut worst = 0.0;
    for (ours, twin) in ours.rows.iter().zip(&twin.rows) {
        assert_eq!(ours.step, twin.step);
        worst = f64::max(worst, (ours.loss - twin.loss).abs());
    }
    println!("{norm}: {worst:.1e}");
    assert!(worst < BOUND, "{norm}: {worst:e}");
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

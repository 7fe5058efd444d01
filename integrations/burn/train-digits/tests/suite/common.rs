//! A device, digits, runs.

use burn::tensor::Device;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use train_digits::checkpoint::Progress;
use train_digits::device;
use train_digits::digits::Digits;
use train_digits::log::Log;
use train_digits::network::NormKind;
use train_digits::ranks::Ranks;
use train_digits::run::{End, Options, Start, train};
use train_digits::training::Settings;

/// The norms, and whether with Weight Standardization.
pub const NORMS: [(NormKind, bool); 4] = [
    (NormKind::Bn, false),
    (NormKind::Gn, false),
    (NormKind::Bcn, true),
    (NormKind::BcnEst, true),
];

/// The same for every test of the process.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || device::open(None, 0).expect("a wgpu device");
    DEVICE.get_or_init(open).clone()
}

/// The digits of the program.
pub fn digits() -> &'static [Digits; 2] {
    static DIGITS: OnceLock<[Digits; 2]> = OnceLock::new();
    DIGITS.get_or_init(|| Digits::read(None).expect("digits"))
}

pub fn settings(norm: NormKind, ws: bool) -> Settings {
    Settings {
        norm,
        ws,
        batch: 2,
        lr: 0.02,
        epochs: 3,
        seed: 0,
    }
}

/// A run up to a step, with a checkpoint at its end if asked for.
pub fn run(
    settings: Settings,
    start: Start,
    steps: usize,
    log_every: usize,
    save: Option<&Path>,
) -> Log {
    let progress = match &start {
        Start::Checkpoint(checkpoint) => checkpoint.progress().unwrap(),
        _ => Progress {
            settings,
            step: 0,
            seconds: 0.0,
        },
    };
    let options = Options {
        steps: Some(steps),
        log: None,
        log_every,
        save: save.map(Path::to_owned),
        print: false,
        ranks: Ranks::ALONE,
    };
    let never = AtomicBool::new(false);
    match train(progress, start, &options, digits(), &device(), &never).unwrap() {
        End::Finished(log) => log,
        End::Stopped(step) => panic!("stopped after step {step}"),
    }
}

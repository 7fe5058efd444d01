//! What a step costs with each norm, and what would remain of it without its norms.

use crate::digits::Digits;
use crate::network::NormKind;
use crate::ranks::Ranks;
use crate::training::{Batches, Settings, Trainer};
use anyhow::Result;
use burn::tensor::Device;
use std::time::Instant;

/// Steps that compile and allocate.
const WARM_UP: usize = 20;
/// Blocks of which the median is taken, and the steps of a block, which are waited for together.
const BLOCKS: usize = 9;
const STEPS: usize = 20;

/// Prints a table.
///
/// # Errors
/// Those of the device.
pub fn run(settings: &Settings, digits: &Digits, device: &Device) -> Result<()> {
    println!("| norm | ms a step | the norms' share | with WS: ms a step | the norms' share |");
    println!("| --- | --- | --- | --- | --- |");
    let measure = |norm, ws| {
        let settings = Settings {
            norm,
            ws,
            ..settings.clone()
        };
        milliseconds(&settings, digits, device)
    };
    let without = [
        measure(NormKind::None, false)?,
        measure(NormKind::None, true)?,
    ];
    println!("| none | {:.2} | | {:.2} | |", without[0], without[1]);
    for norm in [
        NormKind::Bn,
        NormKind::Gn,
        NormKind::Bcn,
        NormKind::BcnEst,
        NormKind::BurnBn,
        NormKind::BurnGn,
    ] {
        let mut line = format!("| {norm} |");
        for (ws, without) in [false, true].into_iter().zip(without) {
            let with = measure(norm, ws)?;
            let share = 100.0 * (with - without) / with;
            line += &format!(" {with:.2} | {share:.0} % |");
        }
        println!("{line}");
    }
    Ok(())
}

/// The median of a step.
fn milliseconds(settings: &Settings, digits: &Digits, device: &Device) -> Result<f64> {
    let mut trainer = Trainer::new(settings, device, Ranks::ALONE);
    let mut batches = Batches::new(settings, digits.len(), Ranks::ALONE);
    let per_epoch = settings.steps_per_epoch(digits.len());
    let mut scheduler = settings.scheduler(settings.epochs * per_epoch)?;
    let mut done = 0;
    let mut steps = |count: usize| -> Result<f64> {
        let started = Instant::now();
        for _ in 0..count {
            let (images, labels) = digits.batch(batches.of_step(done), trainer.device());
            trainer.step(images, labels, scheduler.step().base());
            done += 1;
        }
        trainer.device().sync()?;
        Ok(started.elapsed().as_secs_f64() * 1e3 / count as f64)
    };
    steps(WARM_UP)?;
    let mut blocks = [0.0; BLOCKS];
    for block in &mut blocks {
        *block = steps(STEPS)?;
    }
    blocks.sort_by(f64::total_cmp);
    Ok(blocks[BLOCKS / 2])
}

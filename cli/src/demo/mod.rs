//! `bcnorm demo`: the norm at work on photographs, end to end.
//!
//! Photographs become feature maps ([`filters`]), the GPU normalizes them and differentiates ([`norm`]), every
//! output is checked and timed ([`timing`]), and the maps are drawn before and after ([`pictures`]).

mod filters;
mod norm;
mod numbers;
mod output;
mod paper;
mod photos;
mod pictures;
mod report;
mod timing;

use crate::case;
use crate::device::Engine;
use anyhow::{Result, ensure};
use bcnorm::NormDesc;
use bcnorm::desc::MAX_ELEMENTS;
use bcnorm_testkit::run::{expected_in, same_bits};
use filters::{CHANNELS, GROUPS};
use indicatif::ProgressBar;
use norm::Stats;
use output::{Folder, SUMMARY};
use photos::Photo;
use report::Report;
use std::io::Write as _;
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Makes 32 feature maps of each photograph with a fixed bank of colour, blur, edge, Gabor and texture \
filters; normalizes them on the GPU as a layer in training does, forward and backward; checks every \
output against f64 arithmetic; and draws the maps before and after.

Files: input.png; features-before.png, features-after.png and gradient.png, all maps on a sheet; \
histograms-before.png and histograms-after.png, a plot per group; summary.json, the numbers.

Examples:
  bcnorm demo                          the photographs that come with the program
  bcnorm demo cat.jpg --output cat     one of yours
  bcnorm demo *.jpg --groups 4         several as a batch
  bcnorm demo --adapter llvmpipe       another device (bcnorm info lists them)")]
pub struct Args {
    /// JPEG or PNG files, the batch; all take the size of the first, reduced where the device cannot hold that
    /// [default: four that come with the program]
    #[arg(value_name = "PHOTO")]
    photos: Vec<PathBuf>,
    /// Folder to write into
    #[arg(long, value_name = "DIR", default_value = "demo-output")]
    output: PathBuf,
    /// "cpu", or a part of an adapter's name or backend [default: the best adapter]
    #[arg(long, value_name = "cpu|NAME")]
    adapter: Option<String>,
    /// Number of groups, a divisor of 32
    #[arg(long, value_name = "G", default_value_t = GROUPS.len())]
    groups: usize,
    /// The statistics that normalize the channels
    #[arg(long, value_enum, default_value_t = Stats::Batch)]
    stats: Stats,
    /// Replace files of the same names that no earlier demo wrote
    #[arg(long)]
    force: bool,
}

pub fn run(args: Args) -> Result<()> {
    NormDesc::bc_norm(CHANNELS, args.groups).validate()?;
    let folder = Folder::new(&args.output, args.force, &args.photos)?;
    let originals = match args.photos.as_slice() {
        [] => photos::bundled()?,
        paths => paths
            .iter()
            .map(|path| photos::open(path))
            .collect::<Result<_>>()?,
    };
    let engine = Engine::open(args.adapter.as_deref())?;
    let all_pixels = engine.largest_binding().min(4 * MAX_ELEMENTS) / (4 * CHANNELS as u64);
    let pixels = all_pixels / originals.len() as u64;
    ensure!(
        pixels > 0,
        "{} photographs are too many: the feature maps of all together have room for {all_pixels} pixels on {}; \
         give fewer",
        originals.len(),
        engine.describe()
    );
    let (photos, notes) = photos::fit(originals, pixels)?;
    let size = (photos[0].width, photos[0].height);
    ensure!(
        args.stats == Stats::Estimate || !of_one_colour(&photos),
        "all pixels have the same colour, so no feature varies and there is nothing to normalize: \
         give another photograph, or several, or --stats estimate"
    );

    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    progress.set_message("filtering");
    let maps = filters::feature_maps(&photos);
    let mut case = norm::case(maps, photos.len(), size, args.groups, args.stats);
    progress.set_message("normalizing, forward");
    let first = engine.run(&case)?;
    progress.set_message("normalizing, forward and backward");
    case = case.with_grad_y(norm::loss_gradient(&first["y"], size));
    let outputs = engine.run(&case)?;
    progress.set_message("checking against f64");
    let mut errors = case::errors(&outputs, &expected_in::<f64>(&case));
    let counted = outputs.num_batches_tracked == case.num_batches_tracked_after();
    let counter = if counted { 0.0 } else { f64::INFINITY };
    errors.insert("bn.num_batches_tracked_after", counter);
    progress.set_message("timing");
    let times = timing::measure(&case, &engine)?;
    let report = Report {
        engine: &engine,
        photos: &photos,
        notes: &notes,
        stats: args.stats,
        repeatable: same_bits(&first["y"], &outputs["y"]),
        case: &case,
        outputs: &outputs,
        errors,
        times,
    };
    progress.set_message("drawing");
    let pictures = pictures::draw(&photos, &case, &outputs)?;
    // First, so that the folder is known as ours should a later file fail.
    let summary = format!("{:#}\n", report.json());
    folder.write(SUMMARY, summary.as_bytes())?;
    for (name, picture) in pictures {
        folder.write(name, &picture)?;
    }
    progress.finish_and_clear();

    write!(std::io::stdout(), "{}", report.text(&args.output))?;
    let failures = report.failures();
    ensure!(
        failures.is_empty(),
        "wrong beyond the bar: {}",
        failures.join(", ")
    );
    ensure!(report.repeatable, "two runs gave y with different bits");
    Ok(())
}

/// Whether nothing varies: a single pixel, or many that are equal.
fn of_one_colour(photos: &[Photo]) -> bool {
    (0..3).all(|channel| {
        let mut values = photos.iter().flat_map(|photo| photo.channel(channel));
        let first = values.next();
        values.all(|value| Some(value) == first)
    })
}

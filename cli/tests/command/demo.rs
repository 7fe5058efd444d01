//! `bcnorm demo` as a user runs it.

use crate::common::words;
use image::{GenericImageView as _, ImageFormat, RgbImage};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PICTURES: [&str; 6] = [
    "input.png",
    "features-before.png",
    "features-after.png",
    "gradient.png",
    "histograms-before.png",
    "histograms-after.png",
];

/// Runs `bcnorm demo` in a folder.
fn demo(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bcnorm"))
        .arg("demo")
        .args(words(line))
        .current_dir(folder)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A photograph of noise and slopes.
fn photo(folder: &Path, name: &str, width: u32, height: u32) -> PathBuf {
    let path = folder.join(name);
    let image = RgbImage::from_fn(width, height, |x, y| {
        let noise = (x * 7919 + y * 104_729) % 251;
        image::Rgb([noise as u8, (x * 3 % 256) as u8, (y * 5 % 256) as u8])
    });
    image.save(&path).unwrap();
    path
}

fn summary(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap()
}

/// Every picture is a PNG of some size that shows more than paper.
fn check_pictures(folder: &Path) {
    for name in PICTURES {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(image::guess_format(&bytes).unwrap(), ImageFormat::Png);
        let picture = image::load_from_memory(&bytes).unwrap();
        let (width, height) = picture.dimensions();
        assert!((100..2600).contains(&width), "{name} is {width} wide");
        assert!((100..2600).contains(&height), "{name} is {height} high");
        let rgb = picture.to_rgb8();
        let colours: BTreeSet<_> = rgb.pixels().map(|pixel| pixel.0).collect();
        assert!(colours.len() > 16, "{name} has {} colours", colours.len());
        let paper = rgb.pixels().filter(|pixel| pixel.0 == [255; 3]).count();
        assert!(paper * 20 > rgb.pixels().len(), "{name} has no margins");
    }
}

fn check_summary(folder: &Path, shape: [usize; 4], groups: usize) {
    let summary = summary(folder);
    assert_eq!(summary["shape"], serde_json::json!(shape));
    assert_eq!(summary["groups"], groups);
    assert_eq!(summary["pass"], true);
    assert_eq!(summary["repeatable"], true);
    let errors = summary["errors"].as_object().unwrap();
    for name in ["y", "grad_x", "grad_bn.weight", "bn.running_var_after"] {
        assert!(errors[name].as_f64().unwrap() < 5e-6, "{name}");
    }
    assert_eq!(errors.len(), 9);
    assert_eq!(
        summary["running_mean"]["after"].as_array().unwrap().len(),
        32
    );
    assert!(summary["times"]["forward"]["ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_photograph_on_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    photo(folder.path(), "photo.png", 61, 47);
    let output = demo(folder.path(), "photo.png --output out");
    if stderr(&output).contains("no GPU adapter") {
        // House rule: say why, and fail where adapters are promised.
        assert!(std::env::var_os("CI").is_none(), "{}", stderr(&output));
        eprintln!("not run: {}", stderr(&output));
        return;
    }
    assert!(output.status.success(), "{}", stderr(&output));
    let out = folder.path().join("out");
    check_pictures(&out);
    check_summary(&out, [1, 32, 47, 61], 8);
    assert_eq!(fs::read_dir(&out).unwrap().count(), PICTURES.len() + 1);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in [
        "[1, 32, 47, 61]",
        "grad_bn.weight",
        "pass",
        "GB/s",
        "line 6 px",
        "out",
    ] {
        assert!(text.contains(part), "\"{part}\" is not in\n{text}");
    }
    assert!(!text.contains("FAIL"));
    // Drivers may say things there; the progress bar may not where nobody looks.
    assert!(!stderr(&output).contains("drawing"), "{}", stderr(&output));
}

#[test]
fn a_batch_on_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    photo(folder.path(), "a.png", 40, 30);
    photo(folder.path(), "b.jpg", 90, 90);
    photo(folder.path(), "c.png", 3, 5);
    let args = "a.png b.jpg c.png --adapter cpu --groups 4 --stats estimate";
    let output = demo(folder.path(), args);
    assert!(output.status.success(), "{}", stderr(&output));
    let out = folder.path().join("demo-output");
    check_pictures(&out);
    check_summary(&out, [3, 32, 30, 40], 4);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("b is 90 x 90: resized and cropped to 40 x 30"),
        "{text}"
    );
    assert_eq!(summary(&out)["backend"], "cpu");
    // Once more into the same folder, and no trace of temporary files.
    assert!(demo(folder.path(), args).status.success());
    assert_eq!(fs::read_dir(&out).unwrap().count(), PICTURES.len() + 1);
}

#[test]
fn small_photographs_work_or_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    photo(folder.path(), "point.png", 1, 1);
    photo(folder.path(), "line.png", 1, 300);
    RgbImage::from_pixel(20, 10, image::Rgb([9, 99, 199]))
        .save(folder.path().join("flat.png"))
        .unwrap();
    for file in ["point.png", "flat.png"] {
        let output = demo(folder.path(), &format!("{file} --adapter cpu"));
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(error.contains("same colour"), "{error}");
    }
    assert!(!folder.path().join("demo-output").exists());
    for args in [
        "point.png --adapter cpu --stats estimate",
        "point.png line.png --adapter cpu",
        "line.png --adapter cpu",
        "flat.png --adapter cpu --stats estimate",
    ] {
        let output = demo(folder.path(), args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    photo(folder.path(), "photo.png", 5, 4);
    fs::write(folder.path().join("text.png"), "no picture").unwrap();
    fs::create_dir(folder.path().join("theirs")).unwrap();
    fs::write(folder.path().join("theirs/input.png"), "theirs").unwrap();
    for (args, part) in [
        ("missing.jpg", "missing.jpg"),
        ("text.png", "no JPEG or PNG"),
        (".", "folder"),
        ("photo.png --groups 5", "num_groups = 5"),
        ("photo.png --groups 0", "num_groups = 0"),
        ("photo.png --output text.png", "no folder"),
        ("photo.png --adapter cpu --output theirs", "--force"),
        (
            "photo.png --adapter cpu --output text.png/below",
            "text.png/below",
        ),
    ] {
        let output = demo(folder.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&output).contains(part),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    let kept = fs::read(folder.path().join("theirs/input.png")).unwrap();
    assert_eq!(kept, b"theirs");
    let usage = demo(folder.path(), "photo.png --stats none");
    assert_eq!(usage.status.code(), Some(2));
}

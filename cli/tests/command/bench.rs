//! `bcnorm bench` and `bcnorm info` on tiny work.

use crate::common::{fail, json_lines, succeed, words};
use bcnorm::NormKind;

#[test]
fn a_line_has_every_field() {
    let text = succeed(words(
        "bench --json --shape 2,6,5,5 --shape 3x4x17 --repeats 2 --steps --submission-ms 4",
    ));
    let lines = json_lines(&text);
    assert_eq!(lines.len(), 6);
    let directions = ["forward", "backward", "eval"].iter().cycle();
    for (line, direction) in lines.iter().zip(directions) {
        assert_eq!(line["direction"], *direction);
        for (field, value) in [("dtype", "f32"), ("layout", "nchw"), ("norm", "bc_norm")] {
            assert_eq!(line[field], value);
        }
        for field in ["adapter", "backend"] {
            assert!(
                line[field].as_str().is_some_and(|text| !text.is_empty()),
                "{line}"
            );
        }
        let number = |field: &str| {
            line[field]
                .as_f64()
                .unwrap_or_else(|| panic!("{field}: {line}"))
        };
        for field in [
            "ms",
            "copy_ms",
            "ratio_to_copy",
            "read_ms",
            "composition_ms",
            "cpu_ms",
            "cpu_1_ms",
            "gb_per_s",
        ] {
            assert!(number(field) > 0.0, "{field}: {line}");
        }
        assert!(number("error") <= 5e-6);
        assert!((number("ratio_to_copy") * number("copy_ms") / number("ms") - 1.0).abs() < 1e-9);
        let elements: u64 = line["shape"]
            .as_array()
            .expect("sizes")
            .iter()
            .map(|size| size.as_u64().expect("a size"))
            .product();
        let transfers = if *direction == "backward" { 5 } else { 3 };
        assert_eq!(line["bytes"], transfers * 4 * elements);
        assert_eq!(line["copy_bytes"], 2 * 4 * elements);
        assert_eq!(line["tensor_bytes"], 4 * elements);
        let ops = match *direction {
            "forward" => 10,
            "backward" => 17,
            _ => 9,
        };
        assert_eq!(line["composition_bytes"], ops * 4 * elements);
        let clock = line["clock"].as_str();
        assert!(matches!(clock, Some("timestamps" | "wall")), "{line}");
        assert!(line["suite"].is_null());
        let steps = line["steps"].as_array().expect("steps");
        assert!(steps.len() >= 4 && steps.iter().all(|step| step["ms"].as_f64() > Some(0.0)));
    }
}

#[test]
fn the_table_is_for_people() {
    let text = succeed(words(
        "bench --shape 2,6,5,5 --repeats 1 --direction eval --no-cpu --groups 2 --tune fold.entries_per_lane=2 --submission-ms 1",
    ));
    for part in [
        "(2, 6, 5, 5), 2 groups",
        "eval",
        "copies",
        "GB/s",
        "copy (workgroups of",
        "read",
        "op by op",
    ] {
        assert!(text.contains(part), "\"{text}\" lacks \"{part}\"");
    }
    assert!(!text.contains("forward"), "{text}");
}

/// Runs a bench as brief as it gets.
fn brief(args: &str) -> Vec<serde_json::Value> {
    let common = words("bench --json --no-cpu --repeats 1 --submission-ms 1");
    json_lines(&succeed(common.into_iter().chain(words(args))))
}

#[test]
fn every_norm_is_measured() {
    for norm in [
        "bc_norm",
        "batch_norm",
        "est_bn",
        "group_norm",
        "instance_norm",
        "layer_norm",
    ] {
        let lines = brief(&format!("--norm {norm} --shape 2,6,5,5 --shape 3,8,6"));
        assert_eq!(lines.len(), 6);
        for line in lines {
            assert_eq!(line["norm"], norm);
            assert_eq!(line["composition_ms"].is_null(), norm != "bc_norm");
            assert!(line["cpu_ms"].is_null() && line["cpu_1_ms"].is_null());
            assert!(line["error"].as_f64() <= Some(5e-6), "{line}");
        }
    }
}

#[test]
fn other_types_and_layouts_have_no_composition() {
    for args in ["--dtype bf16", "--layout last"] {
        for line in brief(&format!("{args} --shape 2,6,5,5")) {
            assert!(line["composition_ms"].is_null() && line["composition_bytes"].is_null());
            assert!(line["read_ms"].as_f64() > Some(0.0));
        }
    }
}

#[test]
fn suites_are_measured_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let charts = folder.path().join("new").join("charts");
    let path = charts.to_str().expect("UTF-8");
    // Two given shapes and a suite; the part of a suite that one norm refuses is left out.
    let args = format!("--suite small --norm instance_norm --shape 2,6,5 --plot {path}");
    let lines = brief(&args);
    let shapes = lines.len() / 3;
    assert!(shapes > 5 && lines.len().is_multiple_of(3));
    assert!(lines[0]["suite"].is_null() && lines[3]["suite"] == "small");
    assert!(
        lines
            .iter()
            .all(|line| line["shape"] != serde_json::json!([64, 128]))
    );

    let files: Vec<_> = std::fs::read_dir(&charts)
        .expect("the folder was made")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let name = file.to_string_lossy().into_owned();
        assert!(name.contains("-instance-norm-f32-nchw-"), "{name}");
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        // A dot a measurement; no composition, and so no ring.
        assert_eq!(text.matches("<circle").count(), lines.len(), "{name}");
        assert!(text.contains("64 x 7 x 7") || text.contains("2 x 64 x 7 x 7"));
    }
}

#[test]
fn time_is_minded() {
    let args = words("bench --json --no-cpu --suite small --seconds 0");
    let output = crate::common::bcnorm(args);
    assert!(output.status.success() && output.stdout.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let note = "note: 10 of 10 shapes left out for want of time: (16, 512, 7, 7), ";
    assert!(
        stderr.contains(note) && stderr.contains(" and 6 more"),
        "{stderr}"
    );

    // None left out; a shape that is named twice is measured once, where it was named first.
    let lines = brief("--shape 2,64,7,7 --shape 2,64,7,7 --seconds 500 --direction eval");
    assert_eq!(lines.len(), 1);
    let lines = brief("--shape 64,128 --suite small --direction eval --norm batch_norm");
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0]["shape"], serde_json::json!([64, 128]));

    let tuned = succeed(words(
        "tune --seconds 0 --shape 2,6,5,5 --repeats 1 --submission-ms 1",
    ));
    assert!(
        tuned.ends_with("nothing is clearly faster than the default\n"),
        "{tuned}"
    );
    assert!(!tuned.contains("of the time"), "{tuned}");
}

#[test]
fn measurements_become_a_section() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let common = "bench --json --no-cpu --repeats 1 --submission-ms 1 --steps --shape 2,64,7,7";
    let run = |more: &[&str]| succeed(words(common).into_iter().chain(more.iter().copied()));
    let (tuning, results, adapters) = (at("t.txt"), at("r.jsonl"), at("a.jsonl"));
    succeed([
        "tune",
        "--seconds",
        "0",
        "--shape",
        "2,6,5,5",
        "--repeats",
        "1",
        "--save",
        &tuning,
    ]);
    let mut text = run(&[]);
    text += &run(&["--label", "Tunings: default"]);
    text += &run(&["--label", "Tunings: of a file", "--tuning", &tuning]);
    std::fs::write(&results, &text).expect("written");
    let info = succeed(["info", "--json"]);
    std::fs::write(&adapters, info.replace('\n', " ")).expect("written");

    let section = succeed(["section", &adapters, &results]);
    let driver = &json_lines(&info.replace('\n', " "))[0]["adapters"][0]["driver"];
    for part in [
        driver.as_str().expect("a driver"),
        "### bc_norm, f32, channels first\n\n| shape | forward | backward | eval | copy | read |\n",
        "| (2, 64, 7, 7), 25.1 kB | ",
        "| (2, 64, 7, 7) | backward | row_products ",
        "### Tunings\n\n| norm, shape; forward, backward, eval | default | of a file |",
    ] {
        assert!(section.contains(part), "\"{section}\" lacks \"{part}\"");
    }

    for (text, reason) in [
        ("", "nothing was measured"),
        ("{}\nx", "line 2"),
        ("{\"direction\":1}", "line 1"),
    ] {
        std::fs::write(&results, text).expect("written");
        let stderr = fail(1, ["section", &results]);
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert!(fail(1, ["section", &at("none")]).contains("none: "));
}

#[test]
fn wrong_requests_are_explained() {
    for (status, args, reason) in [
        (1, "--shape 2,6,5 --groups 4", "num_groups = 4"),
        (1, "--shape 0,6,5", "empty"),
        (1, "--shape 7", "rank 1"),
        (1, "--shape 99999,99999,99999", "elements"),
        // Refused before anything of that size is made.
        (1, "--shape 64,1024,128,256", "reference"),
        (2, "--shape 2,a", "N,C,H,W"),
        (2, "--dtype f64", "bf16"),
        (2, "--layout middle", "last"),
        (2, "--repeats 0", "repeats"),
        (2, "--suite imagenet", "resnet50"),
        (2, "--norm weight_standardization", "layer_norm"),
        (
            1,
            "--norm instance_norm --shape 2,6,1",
            "more than one value",
        ),
        // No folder can be made below a file.
        (1, "--plot /dev/null/charts", "--plot"),
        (2, "--direction sideways", "forward"),
        (1, "--adapter no-such", "no-such"),
        (1, "--shape 2,6,5 --tune speed=9", "speed"),
        (1, "--shape 2,6,5 --tuning no-such", "no-such"),
        (2, "--shape 2,6,5 --label x", "--json"),
    ] {
        let stderr = fail(status, words("bench").into_iter().chain(words(args)));
        assert!(
            stderr.contains(reason),
            "{args:?}: \"{stderr}\" lacks \"{reason}\""
        );
    }
}

/// What cannot be written is known before anything is measured, and before an adapter is looked for.
#[test]
fn outputs_are_checked_before_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (missing, there) = (at("no/t.txt"), at("t.txt"));
    let file = folder.path().to_str().expect("UTF-8");
    std::fs::write(&there, "precious").expect("written");
    let mut wrong = vec![
        (vec!["tune", "--save", &missing], "no folder"),
        (vec!["tune", "--save", &there], "--force"),
        (vec!["tune", "--force", "--save", file], "it is a folder"),
    ];
    // Not even the machine's owner can make a file there.
    if cfg!(target_os = "linux") {
        wrong.extend([
            (vec!["tune", "--save", "/proc/t.txt"], "/proc"),
            (vec!["bench", "--plot", "/proc"], "no file can be made"),
            (vec!["demo", "--output", "/proc/demo"], "/proc/demo"),
            (vec!["demo", "--output", "/proc"], "no file can be made"),
        ]);
    }
    for (mut args, reason) in wrong {
        args.extend(["--adapter", "no such"]);
        let stderr = fail(1, &args);
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    }
    assert_eq!(std::fs::read(&there).expect("there"), b"precious");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1
    );
}

/// One spelling of each norm, whatever the command; where there is no desktop, nobody complains of it.
#[test]
fn norms_have_one_name_each() {
    for norm in NormKind::ALL {
        let args = ["info", "--plan", "4,6,5,5", "--norm", norm.name(), "--json"];
        let output = crate::common::bcnorm(args);
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let plans: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an object");
        assert_eq!(plans["norm"], norm.name());
    }
    for command in ["run", "info", "tune", "bench"] {
        let help = succeed([command, "--help"]);
        for kind in NormKind::ALL {
            let measured = command != "bench" || *kind != NormKind::WeightStandardization;
            assert_eq!(help.contains(kind.name()), measured, "{command}: {help}");
        }
        for old in ["bcnorm", "batchnorm", "groupnorm", "ws"] {
            let stderr = fail(2, [command, "--norm", old]);
            assert!(stderr.contains("group_norm"), "{stderr}");
        }
    }
}

#[test]
fn one_adapter_is_the_default() {
    let report: serde_json::Value =
        serde_json::from_str(&succeed(words("info --json"))).expect("an object");
    let adapters = report["adapters"].as_array().expect("a list");
    let default = adapters.iter().filter(|adapter| adapter["default"] == true);
    assert_eq!(default.count(), 1, "{report}");
    for adapter in adapters {
        let limit = &adapter["limits"]["max_storage_buffer_binding_size"];
        assert!(limit.as_u64() > Some(0), "{adapter}");
        assert!(adapter["features"]["subgroup"].is_boolean(), "{adapter}");
        assert!(
            adapter["tuning"]["map.workgroup_size"].as_u64() > Some(0),
            "{adapter}"
        );
    }
    assert!(report["cpu"]["threads"].as_u64() > Some(0));
    let text = succeed(words("info"));
    assert!(
        text.contains("the default") && text.contains("map.workgroup_size"),
        "{text}"
    );
}

/// Cards that are not here: predictions that say so; an unknown name is answered with those that are known.
#[test]
fn plans_are_predicted_for_cards() {
    let text = succeed(words("info --plan 32,256,56,56 --card h200,m2"));
    assert!(text.starts_with("A prediction"), "{text}");
    for part in [
        "h200, calibrated",
        "m2, uncalibrated",
        "row_affine",
        "memory",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all = succeed(words("info --plan 8,64,56,56 --card all --json"));
    let all: serde_json::Value = serde_json::from_str(&all).expect("an object");
    assert_eq!(all["cards"].as_array().map(Vec::len), Some(7), "{all}");
    assert!(
        all["cards"][0]["steps"][0]["us"].as_f64() > Some(1.0),
        "{all}"
    );
    assert!(fail(2, words("info --plan 8,64 --card voodoo")).contains("rtx-4090"));
    assert!(fail(2, words("info --card h200")).contains("--plan"));
}

#[test]
fn help_teaches() {
    for command in ["info", "demo", "verify", "run", "bench", "tune"] {
        let text = succeed([command, "--help"]);
        assert!(text.contains("Usage: bcnorm"), "{text}");
        assert!(command == "demo" || text.contains("Examples:"), "{text}");
    }
    assert!(succeed(words("--help")).contains("Examples:"));
    assert!(succeed(words("--version")).starts_with("bcnorm "));
    // Nothing to do is wrong usage.
    let output = crate::common::bcnorm::<&str>([]);
    assert_eq!(output.status.code(), Some(2));
}

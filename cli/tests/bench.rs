//! `bcnorm bench` and `bcnorm info` on tiny work.

mod common;

use common::{fail, json_lines, succeed};

#[test]
fn a_line_has_every_field() {
    let text = succeed([
        "bench",
        "--json",
        "--shape",
        "2,6,5,5",
        "--shape",
        "3x4x7",
        "--repeats",
        "2",
        "--steps",
        "--submission-ms",
        "4",
    ]);
    let lines = json_lines(&text);
    assert_eq!(lines.len(), 6);
    let directions = ["forward", "backward", "eval"].iter().cycle();
    for (line, direction) in lines.iter().zip(directions) {
        assert_eq!(line["direction"], *direction);
        for (field, value) in [("dtype", "f32"), ("layout", "nchw"), ("norm", "bcnorm")] {
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
        for field in ["ms", "copy_ms", "ratio_to_copy", "cpu_ms", "gb_per_s"] {
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
        let steps = line["steps"].as_array().expect("steps");
        assert!(steps.len() >= 4 && steps.iter().all(|step| step["ms"].as_f64() > Some(0.0)));
    }
}

#[test]
fn the_table_is_for_people() {
    let text = succeed([
        "bench",
        "--shape",
        "2,6,5,5",
        "--repeats",
        "1",
        "--direction",
        "eval",
        "--no-cpu",
        "--groups",
        "2",
        "--tune",
        "entries_per_lane=2",
        "--submission-ms",
        "1",
    ]);
    for part in [
        "(2, 6, 5, 5), 2 groups",
        "eval",
        "copies",
        "GB/s",
        "copy (workgroups of",
    ] {
        assert!(text.contains(part), "\"{text}\" lacks \"{part}\"");
    }
    assert!(!text.contains("forward"), "{text}");
}

#[test]
fn wrong_requests_are_explained() {
    for (status, args, reason) in [
        (1, &["--shape", "2,6,5", "--groups", "4"][..], "4 groups"),
        (1, &["--shape", "0,6,5"], "empty"),
        (1, &["--shape", "7"], "rank 1"),
        (1, &["--shape", "99999,99999,99999"], "elements"),
        // Refused before anything of that size is made.
        (1, &["--shape", "64,1024,128,256"], "reference"),
        (2, &["--shape", "2,a"], "N,C,H,W"),
        (2, &["--dtype", "f64"], "bf16"),
        (2, &["--layout", "middle"], "last"),
        (2, &["--repeats", "0"], "repeats"),
        (2, &["--direction", "sideways"], "forward"),
        (1, &["--adapter", "no such"], "no such"),
        (1, &["--shape", "2,6,5", "--tune", "speed=9"], "speed"),
    ] {
        let stderr = fail(status, [&["bench"], args].concat());
        assert!(
            stderr.contains(reason),
            "{args:?}: \"{stderr}\" lacks \"{reason}\""
        );
    }
}

#[test]
fn one_adapter_is_the_default() {
    let report: serde_json::Value =
        serde_json::from_str(&succeed(["info", "--json"])).expect("an object");
    let adapters = report["adapters"].as_array().expect("a list");
    let default = adapters.iter().filter(|adapter| adapter["default"] == true);
    assert_eq!(default.count(), 1, "{report}");
    for adapter in adapters {
        let limit = &adapter["limits"]["max_storage_buffer_binding_size"];
        assert!(limit.as_u64() > Some(0), "{adapter}");
        assert!(adapter["features"]["subgroup"].is_boolean(), "{adapter}");
        assert!(
            adapter["tuning"]["workgroup_size"].as_u64() > Some(0),
            "{adapter}"
        );
    }
    assert!(report["cpu"]["threads"].as_u64() > Some(0));
    let text = succeed(["info"]);
    assert!(
        text.contains("the default") && text.contains("workgroup_size"),
        "{text}"
    );
}

#[test]
fn help_teaches() {
    for command in ["info", "demo", "verify", "run", "bench"] {
        let text = succeed([command, "--help"]);
        assert!(text.contains("Usage: bcnorm"), "{text}");
        assert!(command == "demo" || text.contains("Examples:"), "{text}");
    }
    assert!(succeed(["--help"]).contains("Examples:"));
    assert!(succeed(["--version"]).starts_with("bcnorm "));
    // Nothing to do is wrong usage.
    let output = common::bcnorm::<&str>([]);
    assert_eq!(output.status.code(), Some(2));
}

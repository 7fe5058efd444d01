//! The file that `bcnorm info --card` predicts from.
#![allow(missing_docs)]

/// It is what `cargo xtask isa --model` writes now, with the Mesa that it was written with.
#[test]
fn the_file_is_up_to_date() {
    let (text, driver) = bcnorm_isa::model::text().unwrap();
    if !driver.contains("22.3.") {
        println!("skipped: {driver} counts other instructions than Mesa 22.3");
        return;
    }
    let committed = include_str!("../../cli/src/info/instructions.tsv");
    let figures = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert!(
        figures(&text) == figures(committed),
        "run cargo xtask isa --model cli/src/info/instructions.tsv"
    );
}

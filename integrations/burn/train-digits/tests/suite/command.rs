//! The command: its exit statuses, and what it says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn train_digits(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train-digits"));
    command.args(args).current_dir(folder);
    command
}

fn output(args: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = train_digits(args, folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn mistakes_are_named_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("x"), "no safetensors").unwrap();
    for (args, status, why) in [
        ("--norm batch", 2, "bcn-est"),
        ("--batch 0", 2, "1 or more"),
        ("--batch 5000", 2, "there are 4000 digits"),
        ("--lr 2", 2, "at most 1"),
        ("--compare --norm bn", 2, "cannot be used with"),
        ("--resume x --init x", 2, "cannot be used with"),
        ("--resume none", 1, "cannot read none"),
        ("--resume x", 1, "x: not a whole safetensors file"),
        ("--evaluate x", 1, "x: not a whole safetensors file"),
        ("--compare --with x", 1, "x: not a log"),
        ("--data .", 1, "train-images.idx3.gz"),
        ("--adapter nonesuch", 1, "there are:"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (code, stdout, stderr) = output(&args, folder);
        assert_eq!(code, Some(status), "{args:?}: {stderr}");
        assert!(stderr.contains(why), "{args:?}: {stderr}");
        assert_eq!(stdout, "", "{args:?}");
    }
}

/// A run is stopped, goes on, and is evaluated.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = "--norm gn --steps 100000 --epochs 1000 --log-every 5 --save x --log x.tsv";
    let args: Vec<&str> = args.split(' ').collect();
    let mut command = train_digits(&args, folder);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Two lines of head, and a row.
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.skip(2);
    assert!(lines.next().unwrap().unwrap().starts_with("5\t"));
    let interrupt = ["-INT", &child.id().to_string()];
    assert!(
        Command::new("kill")
            .args(interrupt)
            .status()
            .unwrap()
            .success()
    );
    // What it still prints must go somewhere.
    let last = lines.map_while(Result::ok).last();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let stopped = stderr.rsplit("stopped after step ").next().unwrap();
    let step: usize = stopped.split(';').next().unwrap().parse().unwrap();
    if let Some(last) = last {
        assert!(last.starts_with(&format!("{step}\t")), "{last}, {stderr}");
    }

    let more = (step + 2).to_string();
    let args = [
        "--resume",
        "x",
        "--steps",
        &more,
        "--log",
        "x.tsv",
        "--log-every",
        "1",
    ];
    let (code, stdout, stderr) = self::output(&args, folder);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("norm=gn"), "{stdout}");
    let log = fs::read_to_string(folder.join("x.tsv")).unwrap();
    let steps = log
        .lines()
        .skip(2)
        .map(|line| line.split('\t').next().unwrap());
    let steps: Vec<usize> = steps.map(|step| step.parse().unwrap()).collect();
    assert!(steps.ends_with(&[step, step + 1, step + 2]), "{steps:?}");
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");

    let (code, stdout, stderr) = self::output(&["--evaluate", "x"], folder);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("accuracy 0."), "{stdout}");
    let (code, _, stderr) = self::output(&["--resume", "x", "--norm", "bn"], folder);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("--norm bn, but the checkpoint's run has norm gn"),
        "{stderr}"
    );
    let (code, _, stderr) = self::output(&["--evaluate", "x", "--norm", "bcn"], folder);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("of another network"), "{stderr}");
}

//! `cargo xtask isa`.

use anyhow::{Context, Result, ensure};
use bcnorm_isa::figures::Figures;
use bcnorm_isa::plans::Selection;
use bcnorm_isa::{FAMILIES, compile, compiler, model, report};
use clap::Parser;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What AMD's compiler makes of the kernels of plans, by Mesa's RADV, which needs no AMD GPU for that. Without options: of
/// plans that have every kind of kernel, for every family that the installed Mesa knows.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask isa")]
struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The families, by RADV's names [default: polaris10, vega10, navi10, navi21, navi31, gfx1201, as far as Mesa has them]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    family: Vec<String>,
    /// Print a JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Write the final code of all kernels to this file
    #[arg(long, value_name = "FILE")]
    asm: Option<PathBuf>,
    /// Print what changed since an earlier run, whose lines of --json are in this file
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    compare: Option<PathBuf>,
    /// Write the file that `bcnorm info --card` predicts from (cli/src/info/instructions.tsv), and nothing else
    #[arg(long, value_name = "FILE", exclusive = true)]
    model: Option<PathBuf>,
    /// Only say by the exit status whether there is a compiler for the one family
    #[arg(long, hide = true)]
    probe: bool,
}

/// Whether the installed Mesa knows a family. Another process asks, since RADV ends one that asks for another.
fn is_known(family: &str) -> Result<bool> {
    let mut probe = Command::new(env::current_exe()?);
    probe.args(["--probe", "--family", family]);
    Ok(probe.output()?.status.success())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if let (true, [family]) = (args.probe, &args.family[..]) {
        return compiler(family).map(drop);
    }
    if let Some(path) = &args.model {
        let (text, _) = model::text()?;
        return fs::write(path, text)
            .with_context(|| format!("{}: cannot be written", path.display()));
    }
    let earlier = args.compare.as_deref().map(report::read).transpose()?;
    let entries = args.selection.entries()?;
    let named = !args.family.is_empty();
    let families: Vec<&str> = match named {
        true => args.family.iter().map(String::as_str).collect(),
        false => FAMILIES.to_vec(),
    };
    let mut all: Vec<Figures> = Vec::new();
    let mut code = String::new();
    for family in families {
        if !is_known(family)? {
            // Without any RADV this says so.
            compiler(FAMILIES[0])?;
            ensure!(!named, "this Mesa does not know the family {family}");
            eprintln!("{family}: this Mesa does not know it");
            continue;
        }
        let compiler = compiler(family)?;
        eprintln!(
            "{}, {}: {} kernels",
            compiler.name,
            compiler.driver,
            entries.len()
        );
        let compiled = compile(&compiler, &entries, |entry, compiled| {
            let figures = Figures::new(family, &entry.plan, &entry.spec, &compiled)?;
            Ok((figures, args.asm.is_some().then_some(compiled.assembly)))
        })?;
        for (figures, assembly) in compiled {
            if let Some(assembly) = assembly {
                let (family, kernel, plan) = figures.key();
                let _ = writeln!(code, "; {family} {kernel}: {plan}\n{assembly}");
            }
            all.push(figures);
        }
    }
    if let Some(path) = &args.asm {
        fs::write(path, code).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    let mut text = String::new();
    if args.json {
        for figures in &all {
            let _ = writeln!(text, "{}", serde_json::to_string(figures)?);
        }
    } else if let Some(earlier) = &earlier {
        text = report::comparison(earlier, &all);
    } else {
        text = report::table(&all);
    }
    eprint!("{}", report::summary(&all));
    // A reader may close the pipe.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

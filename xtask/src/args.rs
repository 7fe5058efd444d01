//! The command line.

use std::ffi::OsString;

use crate::integration::{Action, Integration};

/// Printed by `--help` and when no command is given.
pub const HELP: &str = "\
cargo xtask: set-up, demo, tests and checks of bcnorm

Usage: cargo xtask COMMAND [OPTIONS] [-- ARGS]

Commands:
  demo    make sure that a Vulkan driver is there, then run `bcnorm demo ARGS`
  train   make sure that a Vulkan driver is there, then run `train-digits ARGS`:
          a network that learns digits at batch size 2 (integrations/burn)
  test    make sure that the test adapters are there, then run the tests;
          ARGS go to cargo-nextest, and then only the tests it selects run;
          with --long they draw more cases, and run on every adapter where
          one by GL is left out otherwise
  web     build the browser package and its page, serve the page, and print
          its address; with --build only build, into target/web; with --test
          run the tests in a browser alone; with --bench measure in one,
          beside other libraries
  burn    the tests of the modules for burn (integrations/burn); with --bench
          measure them beside burn's own
  mpi     the tests of the layers over several ranks (integrations/mpi), for
          which it installs an MPI; with --bench measure what the exchange costs
  isa     what AMD's compiler makes of the kernels, without an AMD GPU: registers,
          instructions, waves; `cargo xtask isa --help` lists its options
  shaders every kernel in every language that wgpu writes, through spirv-val,
          glslang and Tint, and the lints of the house
  dx12    build the command for Windows, and run it on DirectX 12 under wine
  kit     make one archive that measures a GPU on a machine with its driver alone
  ci      formatting, lints, documentation and the tests with --long,
          failures at the end
  setup   the set-up of `test` alone

Options:
  --no-install   install nothing: say what is missing and how to get it
  -h, --help     this text

Set-up: bcnorm needs no GPU. On Linux, Mesa's llvmpipe stands in for one (and
`test` adds Mesa's GL and SwiftShader, which Chromium ships); where apt-get
exists, what is missing is installed with it. The browser's part
wants Node.js, Rust's target wasm32-unknown-unknown (or Debian's rustc-web) and,
for tests, Chromium. macOS uses Metal and Windows DX12,
with nothing to install.

Environment:
  BCNORM_REQUIRE_ADAPTERS          adapters (comma-separated) without which the
                                   tests fail; `ci`, and `test` where CI=true,
                                   fill it in on Linux unless it is set
  BCNORM_REQUIRE_BROWSER           if set, tests in a browser that cannot run are
                                   failures; `ci`, and `test` where CI=true, set it
  BCNORM_LONG                      if set, as --long
  CHROMIUM                         the browser, if not /usr/bin/chromium
  VK_DRIVER_FILES, VK_ICD_FILENAMES   if set, only these Vulkan drivers are used

Examples:
  cargo xtask demo
  cargo xtask demo -- --help
  cargo xtask train -- --norm bcn-est --ws --epochs 1
  cargo xtask test -- -E 'test(backward)'
  cargo xtask test -- -p bcnorm --no-capture
  cargo xtask test --long -- family
  cargo xtask web";

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Run `bcnorm demo`.
    Demo,
    /// Run `train-digits`.
    Train,
    /// Run the test suite.
    Test {
        /// Whether the tests take their time.
        long: bool,
    },
    /// The browser package and its page.
    Web(WebAction),
    /// One of the crates for what others have.
    Integration(Integration, Action),
    /// What a GPU's compiler makes of the kernels; the arguments are its own.
    Isa,
    /// Every kernel in every language, through checkers.
    Shaders,
    /// The command on DirectX 12, under wine; the arguments are its own.
    Dx12,
    /// An archive that measures a GPU; the arguments are its own.
    Kit,
    /// Run every check.
    Ci,
    /// Install what is missing.
    Setup,
}

impl Command {
    /// Whether what follows the command's name is for it to read, all but `--no-install`.
    fn reads_its_own(self) -> bool {
        matches!(self, Self::Isa | Self::Dx12 | Self::Kit)
    }
}

/// What to do once the browser package is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebAction {
    /// Nothing more.
    Build,
    /// Serve the page.
    Serve,
    /// Run the tests in a browser.
    Test,
    /// Measure in a browser.
    Bench,
    /// Run the shaders through Tint, without a browser.
    Tint,
}

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// Whether missing packages may be installed.
    pub install: bool,
    /// What followed `--`, or the name of a command that reads its own arguments.
    pub rest: Vec<OsString>,
}

/// Reads a command line (without the program's name); an error says what to do.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, String> {
    let mut args = args;
    let mut command: Option<(Command, String)> = None;
    let (mut install, mut help) = (true, false);
    let mut rest = None;
    let mut own = Vec::new();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let reads_its_own = command
            .as_ref()
            .is_some_and(|(command, _)| command.reads_its_own());
        match text.as_str() {
            _ if reads_its_own && text != "--no-install" => own.push(arg),
            "--" => {
                rest = Some(args.collect());
                break;
            }
            "-h" | "--help" => help = true,
            "--no-install" => install = false,
            "--long" if matches!(command, Some((Command::Test { .. }, _))) => {
                command = Some((Command::Test { long: true }, "test".to_owned()));
            }
            "--build" | "--test" | "--bench" if matches!(command, Some((Command::Web(_), _))) => {
                let action = match text.as_str() {
                    "--build" => WebAction::Build,
                    "--test" => WebAction::Test,
                    _ => WebAction::Bench,
                };
                match &mut command {
                    Some((Command::Web(known), _)) if *known == WebAction::Serve => *known = action,
                    _ => return Err(format!("'{text}' after another: one of them at a time")),
                }
            }
            "--test" | "--bench" if matches!(command, Some((Command::Integration(..), _))) => {
                let action = match text.as_str() {
                    "--test" => Action::Test,
                    _ => Action::Bench,
                };
                if let Some((Command::Integration(_, known), _)) = &mut command {
                    *known = action;
                }
            }
            _ if text.starts_with('-') => {
                return Err(match &command {
                    Some((Command::Demo | Command::Train | Command::Test { .. }, name)) => format!(
                        "unknown option '{text}': arguments that cargo xtask passes on \
                         come after --, as in `cargo xtask {name} -- {text}`"
                    ),
                    _ => format!("unknown option '{text}'; see `cargo xtask --help`"),
                });
            }
            _ => match &command {
                None => command = Some((named(&text)?, text)),
                Some((Command::Demo | Command::Train | Command::Test { .. }, name)) => {
                    return Err(format!(
                        "unexpected argument '{text}': arguments that cargo xtask passes on \
                         come after --, as in `cargo xtask {name} -- {text}`"
                    ));
                }
                Some((_, name)) => {
                    return Err(format!("unexpected argument '{text}' after '{name}'"));
                }
            },
        }
    }
    let (command, name) = match command {
        _ if help => (Command::Help, String::new()),
        Some(command) => command,
        None if rest.is_none() && install => (Command::Help, String::new()),
        None => return Err("which command? See `cargo xtask --help`".to_owned()),
    };
    let mut rest: Vec<OsString> = rest.unwrap_or_default();
    if command.reads_its_own() {
        rest = own;
    }
    let alone = matches!(
        command,
        Command::Ci
            | Command::Setup
            | Command::Shaders
            | Command::Web(_)
            | Command::Integration(..)
    );
    if alone && !rest.is_empty() {
        return Err(format!(
            "'{name}' passes no arguments on: drop what follows --"
        ));
    }
    Ok(Args {
        command,
        install,
        rest,
    })
}

/// The command of this name.
fn named(name: &str) -> Result<Command, String> {
    match name {
        "demo" => Ok(Command::Demo),
        "train" => Ok(Command::Train),
        "test" => Ok(Command::Test { long: false }),
        "web" => Ok(Command::Web(WebAction::Serve)),
        "burn" => Ok(Command::Integration(Integration::Burn, Action::Test)),
        "mpi" => Ok(Command::Integration(Integration::Mpi, Action::Test)),
        "isa" => Ok(Command::Isa),
        "shaders" => Ok(Command::Shaders),
        "dx12" => Ok(Command::Dx12),
        "kit" => Ok(Command::Kit),
        "ci" => Ok(Command::Ci),
        "setup" => Ok(Command::Setup),
        "help" => Ok(Command::Help),
        _ => Err(format!(
            "unknown command '{name}': it is one of demo, train, test, web, burn, mpi, isa, shaders, dx12, kit, ci, setup (see `cargo xtask --help`)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands_and_what_follows_them() {
        let demo = read("demo -- --shape 2,3 --no-install").unwrap();
        assert_eq!(demo.command, Command::Demo);
        assert!(demo.install, "what follows -- is not ours");
        assert_eq!(demo.rest, ["--shape", "2,3", "--no-install"]);
        let again = read("test -- -p bcnorm -- --exact").unwrap();
        assert_eq!(again.rest, ["-p", "bcnorm", "--", "--exact"]);
        for line in ["demo", "train", "test", "web", "ci", "setup"] {
            assert!(!read(&format!("{line} --no-install")).unwrap().install);
            assert!(!read(&format!("--no-install {line}")).unwrap().install);
            assert!(read(line).unwrap().install);
        }
    }

    #[test]
    fn long_tests_are_asked_for() {
        for (line, long) in [
            ("test", false),
            ("test --long", true),
            ("test --no-install --long -- family", true),
            ("test -- --long", false),
        ] {
            let command = read(line).map(|args| args.command);
            assert_eq!(command, Ok(Command::Test { long }), "{line}");
        }
        for line in ["ci --long", "--long test", "demo --long"] {
            assert!(read(line).unwrap_err().contains("'--long'"), "{line}");
        }
    }

    #[test]
    fn the_web_has_actions() {
        let command = |line| read(line).map(|args| args.command);
        for (line, action) in [
            ("web", WebAction::Serve),
            ("web --build", WebAction::Build),
            ("web --no-install --test", WebAction::Test),
            ("web --bench", WebAction::Bench),
        ] {
            assert_eq!(command(line), Ok(Command::Web(action)), "{line}");
        }
        for line in [
            "web --build --bench",
            "ci --build",
            "--build web",
            "web -- x",
        ] {
            assert!(command(line).is_err(), "{line}");
        }
    }

    #[test]
    fn integrations_have_actions() {
        let command = |line| read(line).map(|args| args.command);
        for (line, integration, action) in [
            ("burn", Integration::Burn, Action::Test),
            ("burn --test", Integration::Burn, Action::Test),
            (
                "burn --no-install --bench",
                Integration::Burn,
                Action::Bench,
            ),
            ("mpi --test", Integration::Mpi, Action::Test),
            ("mpi --bench", Integration::Mpi, Action::Bench),
        ] {
            let expected = Command::Integration(integration, action);
            assert_eq!(command(line), Ok(expected), "{line}");
        }
        for line in ["burn --build", "--bench burn", "burn -- x"] {
            assert!(command(line).is_err(), "{line}");
        }
    }

    #[test]
    fn some_commands_read_their_own() {
        let isa = read("isa --all --no-install --json --help -- x").unwrap();
        assert_eq!(isa.command, Command::Isa);
        assert!(!isa.install);
        assert_eq!(isa.rest, ["--all", "--json", "--help", "--", "x"]);
        assert_eq!(
            read("--help kit --minutes 3").unwrap().command,
            Command::Help
        );
    }

    #[test]
    fn help_wins() {
        for line in ["", "--help", "-h", "help", "ci --help", "demo -h"] {
            assert_eq!(read(line).unwrap().command, Command::Help, "{line:?}");
        }
        assert_eq!(read("demo -- --help").unwrap().command, Command::Demo);
    }

    #[test]
    fn errors_name_the_culprit() {
        for (line, culprit) in [
            ("dmeo", "'dmeo'"),
            ("--fast", "'--fast'"),
            ("ci --fast", "'--fast'"),
            ("demo --fast", "`cargo xtask demo -- --fast`"),
            ("train --ws", "`cargo xtask train -- --ws`"),
            ("test backward", "`cargo xtask test -- backward`"),
            ("ci demo", "'demo' after 'ci'"),
            ("ci -- x", "'ci'"),
            ("--no-install", "which command?"),
            ("-- x", "which command?"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(culprit), "{line:?}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_utf8_no_panic() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![0xff, b'x']);
        assert!(parse([odd()].into_iter()).is_err());
        let passed = parse(["demo".into(), "--".into(), odd()].into_iter()).unwrap();
        assert_eq!(passed.rest, [odd()]);
    }
}

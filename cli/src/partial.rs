//! Files in the making: under a name of their own until they are whole, and gone if they never are,
//! even where a signal ends the program.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;

/// Those that there are. Who holds the lock is the only one to make, rename or remove any.
static PARTIAL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn partial() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PARTIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a file in a folder. A private file is its owner's alone; others are as any new file, less the umask.
fn make(folder: &Path, private: bool) -> io::Result<NamedTempFile> {
    #[cfg(unix)]
    signals::watch();
    let mut builder = tempfile::Builder::new();
    builder.prefix(".bcnorm-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if private { 0o600 } else { 0o666 };
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = private;
    let mut partial = partial();
    let file = builder.tempfile_in(folder)?;
    partial.insert(file.path().to_owned());
    Ok(file)
}

/// Checks that a file can be made in a folder, by making one.
pub fn check(folder: &Path) -> io::Result<()> {
    let file = make(folder, true)?;
    let mut partial = partial();
    partial.remove(file.path());
    file.close()
}

/// Writes a file by `fill`, whole or not at all, beside its place and then into it. Without `replace` it is an error
/// where there is a file of this name.
pub fn write(
    path: &Path,
    private: bool,
    replace: bool,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = make(folder_of(path), private)?;
    let filled = fill(file.as_file_mut());
    let mut partial = partial();
    partial.remove(file.path());
    // With an error goes the file.
    filled?;
    match replace {
        true => file.persist(path)?,
        false => file.persist_noclobber(path)?,
    };
    Ok(())
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
mod signals {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;
    use std::os::raw::c_int;
    use std::sync::Once;

    /// From the first file on: a signal that ends the program removes what is unfinished, then ends it
    /// as if nothing had been done, so that its status is what the caller expects.
    pub fn watch() {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            let watched = [SIGHUP, SIGINT, SIGTERM];
            let watched = watched.into_iter().filter(|&signal| !is_ignored(signal));
            // Without it all is as it was, but for what a signal leaves behind.
            let Ok(mut signals) = Signals::new(watched) else {
                return;
            };
            std::thread::spawn(move || {
                for signal in signals.forever() {
                    // Kept: no file is made any more.
                    let partial = super::partial();
                    for path in partial.iter() {
                        let _ = std::fs::remove_file(path);
                    }
                    let _ = emulate_default_handler(signal);
                }
            });
        });
    }

    /// Whether whoever started the program wants it to ignore a signal: SIGHUP under nohup, SIGINT
    /// behind a shell. Where the system does not say, SIGHUP counts as ignored.
    fn is_ignored(signal: c_int) -> bool {
        let ignored = std::fs::read_to_string("/proc/self/status").ok();
        let mask = ignored.and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            u64::from_str_radix(line?.trim(), 16).ok()
        });
        match mask {
            Some(mask) => mask >> (signal - 1) & 1 == 1,
            None => signal == SIGHUP,
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    const FOLDER: &str = "BCNORM_TEST_FOLDER";

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    /// This test again, in a process that makes a file and waits.
    fn start(folder: &Path, hangup_is_ignored: bool) -> Child {
        let trap = if hangup_is_ignored {
            "trap '' HUP; "
        } else {
            ""
        };
        let child = Command::new("sh")
            .args(["-c", &format!("{trap}exec \"$@\""), "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "partial::tests::a_signal_leaves_nothing"])
            .env(FOLDER, folder)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(50);
        while files(folder) == 0 {
            assert!(Instant::now() < deadline, "no file is made");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn send(child: &Child, signal: &str) {
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    #[test]
    fn a_signal_leaves_nothing() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            let path = Path::new(&folder).join("whole");
            let half = |file: &mut File| {
                file.write_all(b"half")?;
                std::thread::sleep(Duration::from_secs(60));
                Ok(())
            };
            return write(&path, true, false, half).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        for (name, number) in [("HUP", 1), ("INT", 2), ("TERM", 15)] {
            let mut child = start(folder.path(), false);
            send(&child, name);
            assert_eq!(child.wait().unwrap().signal(), Some(number));
            assert_eq!(files(folder.path()), 0, "{name}");
        }
        // As under nohup. (Where the system does not say what is ignored, SIGHUP is anyway.)
        let mut child = start(folder.path(), true);
        send(&child, "HUP");
        std::thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none());
        assert_eq!(files(folder.path()), 1);
        send(&child, "TERM");
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn a_file_is_finished_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole");
        check(folder.path()).unwrap();
        assert_eq!(files(folder.path()), 0);
        for replace in [false, true] {
            let fill = |file: &mut File| {
                assert_eq!(files(folder.path()), 1 + usize::from(replace));
                file.write_all(b"text")
            };
            write(&path, false, replace, fill).unwrap();
            assert_eq!(files(folder.path()), 1);
        }
        write(&path, false, false, |_| Ok(())).unwrap_err();
        write(&path, false, true, |_| Err(io::Error::other("full"))).unwrap_err();
        assert_eq!(files(folder.path()), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        let left = super::partial();
        assert!(left.iter().all(|path| !path.starts_with(folder.path())));
    }
}

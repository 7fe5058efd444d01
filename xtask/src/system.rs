//! What this machine has: Vulkan's loader and drivers, EGL, SwiftShader.
//! Reads only, by the Vulkan loader's own rules, and without loading anything.

use serde_json::Value;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs that embed SwiftShader keep its manifest.
const SWIFTSHADER: [&str; 6] = [
    "/usr/lib/chromium",
    "/usr/lib64/chromium",
    "/usr/lib/chromium-browser",
    "/usr/lib64/chromium-browser",
    "/opt/google/chrome",
    "/opt/microsoft/msedge",
];

/// Device nodes without which a hardware driver finds nothing to drive.
const GPU_NODES: [&str; 4] = ["/dev/nvidiactl", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0"];

/// The machine as the tasks see it. Tests build one over a folder of their own.
#[derive(Debug)]
pub struct System {
    root: PathBuf,
    env: BTreeMap<OsString, OsString>,
    ldconfig: String,
}

/// A Vulkan driver whose manifest and library are both there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The manifest ("ICD file").
    pub manifest: PathBuf,
    /// The library's file name.
    pub library: String,
}

impl Driver {
    /// Mesa's llvmpipe for Vulkan.
    pub fn is_lavapipe(&self) -> bool {
        self.library.contains("vulkan_lvp")
    }

    /// Chromium's CPU driver.
    pub fn is_swiftshader(&self) -> bool {
        self.library.contains("vk_swiftshader")
    }
}

impl System {
    /// This machine, now.
    pub fn probe() -> Self {
        // Debian keeps /sbin out of a user's PATH; musl has no `ldconfig -p`.
        let ldconfig = ["ldconfig", "/sbin/ldconfig"]
            .iter()
            .filter_map(|program| Command::new(program).arg("-p").output().ok())
            .find(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        Self {
            root: PathBuf::from("/"),
            env: env::vars_os().collect(),
            ldconfig,
        }
    }

    /// An environment variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.env
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Whether an environment variable is set, be it to nothing.
    pub fn is_set(&self, name: &str) -> bool {
        self.env.contains_key(OsStr::new(name))
    }

    /// Whether a program of this name is on the PATH.
    pub fn program(&self, name: &str) -> bool {
        self.paths("PATH").any(|folder| folder.join(name).is_file())
    }

    /// The variable with which the user has chosen the Vulkan drivers; the loader
    /// then looks nowhere else, [`System::add_driver`]'s variable included.
    pub fn pinned(&self) -> Option<&'static str> {
        ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
            .into_iter()
            .find(|name| self.var(name).is_some())
    }

    /// Vulkan's loader.
    pub fn vulkan_loader(&self) -> Option<PathBuf> {
        self.library("libvulkan.so.1")
    }

    /// The Vulkan drivers that the loader would find.
    pub fn drivers(&self) -> Vec<Driver> {
        let manifests = match self.pinned() {
            Some(name) => self.paths(name).collect(),
            None => {
                let mut manifests: Vec<_> = self.paths("VK_ADD_DRIVER_FILES").collect();
                manifests.extend(
                    self.data_folders()
                        .map(|folder| folder.join("vulkan/icd.d")),
                );
                manifests
            }
        };
        let mut found: Vec<Driver> = Vec::new();
        for manifest in manifests.into_iter().flat_map(manifests_in) {
            if found.iter().all(|driver| driver.manifest != manifest) {
                found.extend(self.driver(&manifest));
            }
        }
        found
    }

    /// The drivers that can be expected to offer an adapter: all of the user's own
    /// choice; otherwise those that need no GPU, and the others if there is one.
    pub fn usable_drivers(&self) -> Vec<Driver> {
        let mut drivers = self.drivers();
        if self.pinned().is_none() && !self.has_gpu() {
            drivers.retain(|driver| driver.is_lavapipe() || driver.is_swiftshader());
        }
        drivers
    }

    /// SwiftShader's manifest, in the places where the loader does not look.
    pub fn swiftshader(&self) -> Option<PathBuf> {
        SWIFTSHADER
            .iter()
            .map(|folder| self.at(folder).join("vk_swiftshader_icd.json"))
            .find(|manifest| self.driver(manifest).is_some())
    }

    /// Whether Mesa's EGL and its software renderer are there.
    pub fn mesa_gl(&self) -> bool {
        let renderer = self.library_folders().into_iter().any(|folder| {
            folder.join("dri/swrast_dri.so").exists()
                || entries(&folder)
                    .iter()
                    .any(|path| name_of(path).starts_with("libgallium"))
        });
        renderer
            && ["libEGL.so.1", "libEGL_mesa.so.0", "libGLESv2.so.2"]
                .iter()
                .all(|name| self.library(name).is_some())
    }

    /// Whether a GPU's device node is there (a driver's files alone say nothing:
    /// Mesa's package brings those of every vendor).
    pub fn has_gpu(&self) -> bool {
        GPU_NODES.iter().any(|node| self.at(node).exists())
            || entries(&self.at("/dev/dri"))
                .iter()
                .any(|path| name_of(path).starts_with("renderD"))
    }

    /// Whether apt has lists of packages (container images often drop them).
    pub fn apt_lists(&self) -> bool {
        entries(&self.at("/var/lib/apt/lists"))
            .iter()
            .any(|path| name_of(path).contains("_Packages"))
    }

    /// The variable, and its value, that shows the loader one more driver. Nothing
    /// if it sees that driver already or the user has chosen the drivers.
    pub fn add_driver(&self, manifest: &Path) -> Option<(&'static str, OsString)> {
        let drivers = self.drivers();
        if self.pinned().is_some() || drivers.iter().any(|driver| driver.manifest == manifest) {
            return None;
        }
        // Loaders before 1.3.207 (Ubuntu 22.04's) know only how to replace the list.
        let adds = self
            .vulkan_loader()
            .and_then(|loader| fs::read(loader).ok())
            .is_none_or(|bytes| contains(&bytes, b"VK_ADD_DRIVER_FILES"));
        let (name, mut list) = if adds {
            (
                "VK_ADD_DRIVER_FILES",
                self.paths("VK_ADD_DRIVER_FILES").collect::<Vec<_>>(),
            )
        } else {
            (
                "VK_ICD_FILENAMES",
                drivers.into_iter().map(|driver| driver.manifest).collect(),
            )
        };
        list.push(manifest.to_owned());
        // Only a path with a separator in it cannot be joined: no way to name it then.
        env::join_paths(list).ok().map(|value| (name, value))
    }

    /// Reads a manifest; none if it or its library is not there for this machine.
    fn driver(&self, manifest: &Path) -> Option<Driver> {
        let json = String::from_utf8_lossy(&fs::read(manifest).ok()?).into_owned();
        if cfg!(target_pointer_width = "64")
            && string_field(&json, "library_arch").as_deref() == Some("32")
        {
            return None;
        }
        let path = string_field(&json, "library_path")?;
        // A bare name is dlopen's to find; any other path starts at the manifest.
        let library = if !path.contains('/') {
            self.library(&path)?
        } else if path.starts_with('/') {
            self.at(&path)
        } else {
            manifest.parent()?.join(&path)
        };
        let driver = Driver {
            manifest: manifest.to_owned(),
            library: name_of(&library),
        };
        library.exists().then_some(driver)
    }

    /// A shared library, where the dynamic linker would find it.
    fn library(&self, name: &str) -> Option<PathBuf> {
        let listed = cached_libraries(&self.ldconfig, name, env::consts::ARCH)
            .map(|path| self.at(path))
            .find(|path| path.exists());
        listed.or_else(|| {
            self.paths("LD_LIBRARY_PATH")
                .chain(self.library_folders())
                .map(|folder| folder.join(name))
                .find(|path| path.exists())
        })
    }

    /// Whether libclang is there, of whichever version, where the loader or LLVM's folders have it.
    pub fn has_libclang(&self) -> bool {
        let llvm = std::fs::read_dir(self.at("/usr/lib"));
        let folders = llvm
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let own = folders.filter(|path| path.join("lib/libclang.so").exists());
        self.is_set("LIBCLANG_PATH") || self.library("libclang.so").is_some() || own.count() > 0
    }

    /// The usual folders of libraries.
    fn library_folders(&self) -> Vec<PathBuf> {
        let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
        [
            &multiarch,
            "/usr/lib64",
            "/usr/lib",
            "/usr/local/lib",
            "/lib64",
            "/lib",
            "/run/opengl-driver/lib",
        ]
        .map(|folder| self.at(folder))
        .into()
    }

    /// The folders in which the loader looks for `vulkan/icd.d`.
    fn data_folders(&self) -> impl Iterator<Item = PathBuf> {
        let list = |name: &str, otherwise: &str| {
            let value = self.var(name).unwrap_or(OsStr::new(otherwise));
            env::split_paths(value)
                .map(|path| self.at(path))
                .collect::<Vec<_>>()
        };
        let home = |name: &str, below: &str| {
            let own = self.var(name).map(|path| self.at(path));
            own.or_else(|| self.var("HOME").map(|home| self.at(home).join(below)))
        };
        let mut folders: Vec<PathBuf> = Vec::new();
        folders.extend(home("XDG_CONFIG_HOME", ".config"));
        folders.extend(list("XDG_CONFIG_DIRS", "/etc/xdg"));
        folders.push(self.at("/etc"));
        folders.extend(home("XDG_DATA_HOME", ".local/share"));
        folders.extend(list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
        folders.push(self.at("/run/opengl-driver/share"));
        folders.into_iter()
    }

    /// The paths in a variable.
    fn paths(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        env::split_paths(self.var(name).unwrap_or_default())
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| self.at(path))
    }

    /// A path on this machine, below the root of a test's own.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match path.strip_prefix("/") {
            Ok(below) if !path.starts_with(&self.root) => self.root.join(below),
            _ => path.to_owned(),
        }
    }
}

/// The manifests that a path names: itself, or a folder's in the order of their names.
fn manifests_in(path: PathBuf) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path];
    }
    let mut files = entries(&path);
    files.retain(|file| file.extension() == Some(OsStr::new("json")));
    files.sort();
    files
}

/// A folder's entries; none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// A path's last part.
fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Whether the bytes hold the needle.
fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// A library's paths in the output of `ldconfig -p`, those of other machines left out.
fn cached_libraries<'a>(
    ldconfig: &'a str,
    name: &'a str,
    arch: &str,
) -> impl Iterator<Item = &'a str> {
    let mark = match arch {
        "x86_64" => "x86-64",
        "aarch64" => "AArch64",
        _ => "",
    };
    ldconfig.lines().filter_map(move |line| {
        let (entry, path) = line.split_once(" => ")?;
        let (library, kind) = entry.trim().split_once(' ')?;
        (library == name && kind.contains(mark)).then_some(path.trim())
    })
}

/// The first string value of this key in a JSON text: all that a manifest asks for.
fn string_field(json: &str, key: &str) -> Option<String> {
    fn find(value: &Value, key: &str) -> Option<String> {
        let inner: Vec<&Value> = match value {
            Value::Object(fields) => fields.values().collect(),
            Value::Array(values) => values.iter().collect(),
            _ => return None,
        };
        let own = value.get(key).and_then(Value::as_str).map(str::to_owned);
        own.or_else(|| inner.into_iter().find_map(|value| find(value, key)))
    }
    find(&serde_json::from_str(json).ok()?, key)
}

/// Machines made of empty files, for the tests here and in `setup`.
#[cfg(all(test, unix))]
pub mod fake {
    use super::*;

    /// A folder that plays the machine's root, removed when dropped.
    pub struct Machine {
        /// What the tasks see of it.
        pub system: System,
        _root: tempfile::TempDir,
    }

    impl Machine {
        /// A machine with nothing on it.
        pub fn bare() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().to_owned();
            let (env, ldconfig) = (BTreeMap::new(), String::new());
            Self {
                system: System {
                    root,
                    env,
                    ldconfig,
                },
                _root: folder,
            }
        }

        /// Adds a file.
        pub fn file(self, path: &str, text: &str) -> Self {
            let path = self.system.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        /// Adds a variable.
        pub fn var(mut self, name: &str, value: &str) -> Self {
            self.system.env.insert(name.into(), value.into());
            self
        }

        /// Adds a driver, its library beside the others.
        pub fn driver(self, manifest: &str, library: &str) -> Self {
            let json = format!(r#"{{"ICD": {{"library_path": "{library}"}}}}"#);
            self.file(manifest, &json)
                .file(&format!("/usr/lib/{library}"), "")
        }

        /// Adds a loader that can add drivers.
        pub fn loader(self) -> Self {
            self.file("/usr/lib/libvulkan.so.1", "VK_ADD_DRIVER_FILES")
        }

        /// Adds llvmpipe for Vulkan.
        pub fn lavapipe(self) -> Self {
            self.driver("/usr/share/vulkan/icd.d/lvp_icd.json", "libvulkan_lvp.so")
        }

        /// Adds Mesa's GL.
        pub fn gl(self) -> Self {
            self.file("/usr/lib/libEGL.so.1", "")
                .file("/usr/lib/libEGL_mesa.so.0", "")
                .file("/usr/lib/libGLESv2.so.2", "")
                .file("/usr/lib/dri/swrast_dri.so", "")
        }

        /// Adds Chromium's SwiftShader.
        pub fn swiftshader(self) -> Self {
            let json = r#"{"ICD": {"library_path": "./libvk_swiftshader.so"}}"#;
            self.file("/usr/lib/chromium/vk_swiftshader_icd.json", json)
                .file("/usr/lib/chromium/libvk_swiftshader.so", "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_parse() {
        let mesa = r#"{
            "ICD": { "api_version": "1.1.230", "library_path": "/usr/lib/libvulkan_lvp.so" },
            "file_format_version": "1.0.0" }"#;
        assert_eq!(
            string_field(mesa, "library_path").unwrap(),
            "/usr/lib/libvulkan_lvp.so"
        );
        assert_eq!(string_field(mesa, "library_arch"), None);
        let odd = r#"{"note":"library_path","library_path" : "a\/b\\ \"c\" \u00e9"}"#;
        assert_eq!(string_field(odd, "library_path").unwrap(), "a/b\\ \"c\" é");
        for broken in [
            "",
            r#""library_path""#,
            r#""library_path": 3"#,
            r#""library_path": "a"#,
            r#""library_path": "\u12"#,
        ] {
            assert_eq!(string_field(broken, "library_path"), None, "{broken}");
        }
    }

    #[test]
    fn ldconfig_lists_this_architecture() {
        let cache = "2 libs found in cache\n\
            \tlibvulkan.so.1 (libc6) => /lib/i386-linux-gnu/libvulkan.so.1\n\
            \tlibvulkan.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libvulkan.so.1\n\
            \tlibvulkan.so.12 (libc6,x86-64) => /lib/other\n";
        let find = |arch| cached_libraries(cache, "libvulkan.so.1", arch).collect::<Vec<_>>();
        assert_eq!(find("x86_64"), ["/lib/x86_64-linux-gnu/libvulkan.so.1"]);
        assert!(find("aarch64").is_empty());
    }
}

#[cfg(all(test, unix))]
mod machine_tests {
    use super::fake::Machine;

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let machine = Machine::bare();
        let system = &machine.system;
        assert_eq!(system.vulkan_loader(), None);
        assert!(system.drivers().is_empty());
        assert_eq!(system.swiftshader(), None);
        assert!(!system.mesa_gl() && !system.has_gpu() && !system.apt_lists());
    }

    #[test]
    fn a_driver_needs_its_library() {
        let json = r#"{"ICD": {"library_path": "/opt/libvulkan_lvp.so"}}"#;
        let manifest = "/etc/vulkan/icd.d/lvp_icd.json";
        let machine = Machine::bare().file(manifest, json);
        assert!(machine.system.drivers().is_empty());
        let machine = machine.file("/opt/libvulkan_lvp.so", "");
        assert!(machine.system.drivers()[0].is_lavapipe());
        let other = r#"{"ICD": {"library_path": "/opt/libvulkan_lvp.so", "library_arch": "32"}}"#;
        assert!(machine.file(manifest, other).system.drivers().is_empty());
    }

    #[test]
    fn hardware_drivers_need_hardware() {
        let machine = Machine::bare().driver(
            "/usr/share/vulkan/icd.d/intel_icd.json",
            "libvulkan_intel.so",
        );
        assert_eq!(machine.system.drivers().len(), 1);
        assert!(machine.system.usable_drivers().is_empty());
        let machine = machine.file("/dev/dri/renderD128", "");
        assert_eq!(machine.system.usable_drivers().len(), 1);
    }

    #[test]
    fn a_choice_of_drivers_replaces_the_folders() {
        let machine = Machine::bare()
            .lavapipe()
            .driver("/opt/mine.json", "libmine.so")
            .var("VK_ADD_DRIVER_FILES", "/opt/mine.json");
        assert_eq!(machine.system.drivers().len(), 2);
        let machine = machine.var("VK_ICD_FILENAMES", "/opt/mine.json");
        assert_eq!(machine.system.drivers().len(), 1);
        assert_eq!(
            machine.system.usable_drivers().len(),
            1,
            "a choice is taken as it is"
        );
        let machine = machine.var("VK_DRIVER_FILES", "/nowhere.json");
        assert_eq!(machine.system.pinned(), Some("VK_DRIVER_FILES"));
        assert!(machine.system.drivers().is_empty());
        let machine = machine
            .var("VK_DRIVER_FILES", "")
            .var("VK_ICD_FILENAMES", "");
        assert_eq!(
            machine.system.pinned(),
            None,
            "an empty variable chooses nothing"
        );
    }

    #[test]
    fn swiftshader_joins_the_others() {
        let machine = Machine::bare().loader().lavapipe().swiftshader();
        let manifest = machine.system.swiftshader().unwrap();
        let (name, value) = machine.system.add_driver(&manifest).unwrap();
        assert_eq!(
            (name, value.as_os_str()),
            ("VK_ADD_DRIVER_FILES", manifest.as_os_str())
        );
        // An old loader is given the whole list.
        let machine = machine.file("/usr/lib/libvulkan.so.1", "");
        let (name, value) = machine.system.add_driver(&manifest).unwrap();
        let list: Vec<_> = std::env::split_paths(&value).collect();
        assert_eq!((name, list.len()), ("VK_ICD_FILENAMES", 2));
        assert!(list[0].ends_with("lvp_icd.json") && list[1] == manifest);
        // Seen already, or not wanted: nothing to add.
        let machine = machine.var("VK_ADD_DRIVER_FILES", manifest.to_str().unwrap());
        assert_eq!(machine.system.add_driver(&manifest), None);
        let machine = machine.var("VK_ICD_FILENAMES", "/mine.json");
        assert_eq!(machine.system.add_driver(&manifest), None);
    }

    #[test]
    fn gl_needs_a_renderer() {
        assert!(Machine::bare().gl().system.mesa_gl());
        let without = Machine::bare()
            .file("/usr/lib/libEGL.so.1", "")
            .file("/usr/lib/libEGL_mesa.so.0", "")
            .file("/usr/lib/libGLESv2.so.2", "");
        assert!(!without.system.mesa_gl());
        assert!(
            without
                .file("/usr/lib64/libgallium-25.0.so", "")
                .system
                .mesa_gl()
        );
    }
}

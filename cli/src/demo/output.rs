//! The folder that the demo writes into.

use crate::store::{Destination, check_writable};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

pub const FILES: [&str; 7] = [
    "input.png",
    "features-before.png",
    "features-after.png",
    "gradient.png",
    "histograms-before.png",
    "histograms-after.png",
    SUMMARY,
];

/// The file that says whose the others are.
pub const SUMMARY: &str = "summary.json";

/// Who wrote a summary.
pub const MADE_BY: &str = "bcnorm demo";

/// A folder in which the demo may write its files.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A folder that need not exist. Files of an earlier demo may be replaced; other files of the same names
    /// only with `force`, and the photographs never.
    pub fn new(path: &Path, force: bool, photos: &[PathBuf]) -> Result<Self> {
        let shown = path.display();
        ensure!(
            path.is_dir() || path.symlink_metadata().is_err(),
            "cannot write into {shown}: it is no folder"
        );
        let there = FILES.map(|file| path.join(file)).into_iter();
        let there: Vec<PathBuf> = there
            .filter(|file| file.symlink_metadata().is_ok())
            .collect();
        if let Some(file) = there.first().and_then(|file| file.file_name()) {
            ensure!(
                force || is_ours(path),
                "{shown} has a {} that no earlier demo wrote: choose another folder with \
                 --output, or replace it with --force",
                file.display()
            );
        }
        let inputs = photos
            .iter()
            .map(|photo| ("a photograph of the batch", photo.as_path()));
        let inputs: Vec<(&str, &Path)> = inputs.collect();
        for file in &there {
            Destination::new(file, true, &inputs)?;
        }
        // What is there of the folder and those around it.
        let folder = path.ancestors().find(|folder| folder.exists());
        check_writable(folder.unwrap_or(Path::new(".")))
            .with_context(|| format!("cannot write into {shown}"))?;
        Ok(Self(path.to_owned()))
    }

    /// Writes a file, whole or not at all; makes the folder if need be.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let shown = self.0.display();
        fs::create_dir_all(&self.0).with_context(|| format!("cannot make the folder {shown}"))?;
        Destination::new(&self.0.join(file), true, &[])?.write(bytes)
    }
}

/// Whether an earlier demo wrote into the folder.
fn is_ours(path: &Path) -> bool {
    let summary = fs::read(path.join(SUMMARY)).unwrap_or_default();
    let summary = serde_json::from_slice::<serde_json::Value>(&summary);
    summary.is_ok_and(|summary| summary.get("made_by").is_some_and(|name| name == MADE_BY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_an_earlier_demo_are_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::new(&path, false, &[]).unwrap();
        assert!(!path.exists(), "made before there is anything to write");
        folder.write("input.png", b"one").unwrap();
        assert_eq!(fs::read(path.join("input.png")).unwrap(), b"one");

        let error = Folder::new(&path, false, &[]).unwrap_err().to_string();
        let named = error.contains("input.png") && error.contains("--force");
        assert!(named, "{error}");
        Folder::new(&path, true, &[]).unwrap();

        let write = |summary: &str| folder.write(SUMMARY, summary.as_bytes()).unwrap();
        write(r#"{"made_by": "somebody"}"#);
        Folder::new(&path, false, &[]).unwrap_err();
        write(r#"{"made_by": "bcnorm demo"}"#);
        let folder = Folder::new(&path, false, &[]).unwrap();
        folder.write("input.png", b"two").unwrap();
        assert_eq!(fs::read(path.join("input.png")).unwrap(), b"two");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    }

    #[test]
    fn a_photograph_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let photo = parent.path().join("input.png");
        fs::write(&photo, "theirs").unwrap();
        let photos = [photo.clone()];
        let error = Folder::new(parent.path(), true, &photos).unwrap_err();
        assert!(error.to_string().contains("a photograph"), "{error}");
        Folder::new(parent.path(), true, &[]).unwrap();
    }

    #[test]
    fn other_files_do_not_matter() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("photo.jpg"), "theirs").unwrap();
        Folder::new(parent.path(), false, &[]).unwrap();
        let error = Folder::new(&parent.path().join("photo.jpg"), true, &[]).unwrap_err();
        assert!(error.to_string().contains("no folder"), "{error}");
    }
}

//! The digits: 4,000 of MNIST's to learn from and 1,000 to test with, which are in the program (`examples/digits` says
//! under which terms), or files of the same names and format in a folder.

use anyhow::{Context as _, Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use flate2::read::GzDecoder;
use std::fs;
use std::io::Read as _;
use std::path::Path;

/// Pixels of an image in a row, and in a column.
const SIDE: usize = 28;
/// Mean and deviation of MNIST's pixels.
const MEAN: f32 = 0.1307;
const DEVIATION: f32 = 0.3081;

/// Images and their labels.
#[derive(Debug)]
pub struct Digits {
    /// Normalized, image by image, row by row.
    pixels: Vec<f32>,
    labels: Vec<i32>,
}

impl Digits {
    /// Those to learn from and those to test with, of a folder or of the program.
    ///
    /// # Errors
    /// A file that cannot be read or is not as it should be, by its path.
    pub fn read(folder: Option<&Path>) -> Result<[Self; 2]> {
        macro_rules! embedded {
            ($name:literal) => {
                (
                    $name,
                    &include_bytes!(concat!("../../../../examples/digits/", $name))[..],
                )
            };
        }
        let pairs = [
            [
                embedded!("train-images.idx3.gz"),
                embedded!("train-labels.idx1.gz"),
            ],
            [
                embedded!("test-images.idx3.gz"),
                embedded!("test-labels.idx1.gz"),
            ],
        ];
        let [train, test] = pairs.map(|files| {
            let [images, labels] = files.map(|(name, embedded)| match folder {
                None => unpacked(embedded).context(name),
                Some(folder) => {
                    let path = folder.join(name);
                    let read = fs::read(&path).map_err(Into::into);
                    read.and_then(|bytes| unpacked(&bytes))
                        .with_context(|| path.display().to_string())
                }
            });
            Self::parse(&images?, &labels?).with_context(|| {
                let [(images, _), (labels, _)] = files;
                format!("{images} and {labels}")
            })
        });
        Ok([train?, test?])
    }

    /// Of two unpacked IDX files.
    fn parse(images: &[u8], labels: &[u8]) -> Result<Self> {
        let (sizes, pixels) = idx::<3>(images).context("images")?;
        let ([count], labels) = idx::<1>(labels).context("labels")?;
        ensure!(
            sizes == [count, SIDE, SIDE] && count > 0,
            "images of {sizes:?} for {count} labels: expected [{count}, {SIDE}, {SIDE}], and one at least"
        );
        if let Some(label) = labels.iter().find(|label| **label > 9) {
            bail!("the label {label}: expected 0 to 9");
        }
        let normalized = |pixel: &u8| (f32::from(*pixel) / 255.0 - MEAN) / DEVIATION;
        Ok(Self {
            pixels: pixels.iter().map(normalized).collect(),
            labels: labels.iter().map(|label| i32::from(*label)).collect(),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The images `[batch, 1, 28, 28]` and labels `[batch]` at these indices.
    pub fn batch(&self, indices: &[usize], device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let area = SIDE * SIDE;
        let images = indices.iter().map(|i| &self.pixels[i * area..][..area]);
        let images = TensorData::new(
            images.collect::<Vec<_>>().concat(),
            [indices.len(), 1, SIDE, SIDE],
        );
        let labels: Vec<i32> = indices.iter().map(|i| self.labels[*i]).collect();
        let labels = TensorData::new(labels, [indices.len()]);
        (
            Tensor::from_data(images, device),
            Tensor::from_data(labels, device),
        )
    }

    /// The labels at these indices.
    pub fn labels(&self, indices: &[usize]) -> Vec<i32> {
        indices.iter().map(|i| self.labels[*i]).collect()
    }
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let read = GzDecoder::new(bytes).read_to_end(&mut unpacked);
    read.context("not a whole gzip file")?;
    Ok(unpacked)
}

/// The sizes and values of an IDX file of bytes with D axes.
fn idx<const D: usize>(bytes: &[u8]) -> Result<([usize; D], &[u8])> {
    let header = 4 + 4 * D;
    let magic = [0, 0, 8, D as u8];
    ensure!(
        bytes.len() >= header && bytes[..4] == magic,
        "not an IDX file of bytes with {D} axes: it should begin with {magic:?}"
    );
    let size = |axis: usize| {
        let at = 4 + 4 * axis;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    };
    let sizes: [usize; D] = std::array::from_fn(size);
    let expected = sizes.iter().try_fold(1, |n: usize, s| n.checked_mul(*s));
    let values = &bytes[header..];
    ensure!(
        expected == Some(values.len()),
        "{} values for the sizes {sizes:?}: the file was cut, or is another",
        values.len()
    );
    Ok((sizes, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked() {
        let labels = [&[0, 0, 8, 1, 0, 0, 0, 1][..], &[7]].concat();
        let image = [
            &[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28][..],
            &[51; 784],
        ]
        .concat();
        let digits = Digits::parse(&image, &labels).unwrap();
        assert_eq!((digits.len(), digits.labels(&[0])), (1, vec![7]));
        assert_eq!(digits.pixels[5], (0.2 - MEAN) / DEVIATION);
        let refused = |images: &[u8], labels: &[u8], why: &str| {
            let error = Digits::parse(images, labels).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        };
        refused(
            &image[..500],
            &labels,
            "484 values for the sizes [1, 28, 28]",
        );
        refused(&labels, &labels, "should begin with [0, 0, 8, 3]");
        refused(&image, &[0, 0, 8, 1, 0, 0, 0, 1, 10], "the label 10");
        refused(&image, &[0, 0, 8, 1, 0, 0, 0, 2, 1, 1], "for 2 labels");
        let cut = unpacked(&[0x1f, 0x8b, 8]).unwrap_err();
        assert!(format!("{cut:#}").contains("gzip"), "{cut:#}");
    }
}

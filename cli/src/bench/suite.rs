//! Named lists of shapes.

use crate::request::parse_dims;
use fastrand::Rng;
use serde::Serialize;

/// A named list of shapes.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Five shapes of real networks.
    Default,
    /// Twelve shapes of networks, the most telling of a GPU first: what to measure where time is short.
    Typical,
    /// Every norm of a ResNet-50 on 224 x 224, at batch 32 and 2.
    Resnet50,
    /// A detector on 800 x 1200 at batch 1 and 2: backbone and pyramid at strides 4 to 32.
    Detection,
    /// U-Nets and diffusion blocks.
    Unet,
    /// Tiny and odd.
    Small,
    /// Rows of 1 to 16 elements, in tensors of 4 to 16 MB.
    Short,
    /// Rows of every length from 1 to 257, 64 channels, 2 MB.
    Lengths,
    /// 300 random shapes of 0.5 to 16 MB.
    Random,
}

impl Suite {
    /// Whether it is for charts rather than tables.
    pub fn has_many_shapes(self) -> bool {
        matches!(self, Suite::Lengths | Suite::Random)
    }

    /// Its shapes (N, C, *spatial).
    pub fn shapes(self) -> Vec<Vec<usize>> {
        let (batches, shapes): (&[&str], _) = match self {
            Suite::Default => (&[""], DEFAULT),
            Suite::Typical => (&[""], TYPICAL),
            Suite::Resnet50 => (&["32x", "2x"], RESNET50),
            Suite::Detection => (&["1x", "2x"], DETECTION),
            Suite::Unet => (&[""], UNET),
            Suite::Small => (&[""], SMALL),
            Suite::Short => (&[""], SHORT),
            Suite::Lengths => return lengths(),
            Suite::Random => return random(),
        };
        let shapes = |batch| {
            let shapes = shapes.split_whitespace();
            shapes.map(move |shape| parse_dims(&format!("{batch}{shape}")))
        };
        let dims = batches.iter().flat_map(shapes).flatten();
        dims.map(|dims| dims.0).collect()
    }
}

/// What is measured where nothing is named: stages of a ResNet-50 and a detector.
const DEFAULT: &str = "8x64x56x56 4x256x56x56 2x256x100x152 16x512x7x7 1x64x224x224";

/// The first is quick, and a measure of the time that the others take. Most are also of `resnet50` and `detection`.
const TYPICAL: &str = "\
    8x64x56x56 32x256x56x56 32x1024x14x14 2x256x100x150 16x512x7x7 32x64x112x112 \
    32x512x28x28 32x2048x7x7 4x256x56x56 1x64x224x224 2x512x28x28 1x256x200x300";

/// (C, H, W) of ResNet-50's norms (v1.5, where the stride is in the 3 x 3 convolution): stem, then per stage the
/// bottleneck, the bottleneck before its stride, and the block's end.
const RESNET50: &str = "\
    64x112x112 64x56x56 256x56x56 128x56x56 128x28x28 512x28x28 \
    256x28x28 256x14x14 1024x14x14 512x14x14 512x7x7 2048x7x7";

/// (C, H, W) of a detector on 800 x 1200: ResNet-50's block ends at strides 4, 8, 16, 32, the pyramid's 256
/// channels at the same and at stride 64.
const DETECTION: &str = "\
    64x200x300 256x200x300 512x100x150 256x100x150 1024x50x75 \
    256x50x75 2048x25x38 256x25x38 256x13x19";

/// Blocks of a latent diffusion U-Net at batch 2 (with and without guidance the batch doubles), of its decoder,
/// and of the first U-Net (572 x 572, unpadded convolutions).
const UNET: &str = "\
    2x320x64x64 2x640x32x32 2x960x32x32 2x1280x16x16 2x1280x8x8 \
    2x2560x8x8 1x128x512x512 1x512x64x64 1x64x568x568 1x128x280x280 \
    1x256x136x136 1x1024x28x28";

/// Tiny and odd.
const SMALL: &str = "\
    16x512x7x7 2x64x7x7 4x3x5 2x256x1x1 3x65x33x31 1x32x13x17 \
    8x96x14x14 64x128 5x7x11x13 1x1024x4x4";

/// Linear layers' outputs, and the last maps of networks on small images.
const SHORT: &str = "4096x512 512x512x2x2 64x2048x3x3 256x1024x4x4";

fn lengths() -> Vec<Vec<usize>> {
    let lengths = (1..=257).map(|len| vec![((1 << 19) + 32 * len) / (64 * len), 64, len]);
    lengths.collect()
}

/// The same ones each time.
fn random() -> Vec<Vec<usize>> {
    let mut random = Rng::with_seed(4);
    (0..300).map(|_| draw(&mut random).to_vec()).collect()
}

/// A random shape (N, C, H, W): log-uniform in its size and in each of its sizes, two thirds of which are made
/// odd or prime.
fn draw(random: &mut Rng) -> [usize; 4] {
    loop {
        let mut log_uniform = |low: f64, high: f64| low * (high / low).powf(random.f64());
        let elements = log_uniform((1 << 17).into(), (1 << 22).into());
        let channels = log_uniform(1.0, 2049.0).floor();
        let rest = elements / channels;
        let mut cuts = [random.f64(), random.f64()];
        cuts.sort_by(f64::total_cmp);
        let [n, h, w] = [cuts[0], cuts[1] - cuts[0], 1.0 - cuts[1]].map(|share| rest.powf(share));
        let sizes = [n, channels, h, w].map(|size| {
            let size = (size.round() as usize).max(1);
            match random.u8(..3) {
                0 => size | 1,
                1 => (size..).find(|&n| is_prime(n)).unwrap_or(size),
                _ => size,
            }
        });
        let [n, c, h, w] = sizes;
        if (1 << 17..=1 << 22).contains(&(n * c * h * w)) && c <= 2048 && n * h * w > 1 {
            return sizes;
        }
    }
}

fn is_prime(n: usize) -> bool {
    let mut divisors = (2..).take_while(|d| d * d <= n);
    n >= 2 && divisors.all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::super::data;
    use super::*;
    use crate::request::Request;
    use bcnorm::{Mode, NormKind};
    use clap::ValueEnum as _;

    #[test]
    fn every_shape_can_be_measured() {
        for suite in Suite::value_variants() {
            for dims in suite.shapes() {
                let request = Request::new(NormKind::BcNorm, &dims, None).unwrap();
                data::check_size(&request).unwrap();
                request
                    .norm
                    .validate_for(&request.tensor, Mode::Train)
                    .unwrap();
            }
        }
        // None is left out.
        let count = |suite: Suite| suite.shapes().len();
        assert_eq!(count(Suite::Resnet50), 24);
        assert_eq!([Suite::Default, Suite::Small].map(count), [5, 10]);
        assert_eq!([Suite::Typical, Suite::Short].map(count), [12, 4]);
        assert_eq!([Suite::Detection, Suite::Unet].map(count), [18, 12]);
        assert_eq!([Suite::Lengths, Suite::Random].map(count), [257, 300]);
    }

    #[test]
    fn shapes_are_what_they_say() {
        for (index, dims) in lengths().iter().enumerate() {
            assert_eq!(dims[2], index + 1);
            let share = dims.iter().product::<usize>() as f64 / f64::from(1 << 19);
            assert!((0.95..1.05).contains(&share), "{dims:?}");
        }
        // Odd and prime sizes on every axis, and the same shapes each time.
        let shapes = random();
        for axis in 0..4 {
            let drawn = || shapes.iter().map(|dims| dims[axis]);
            assert!(drawn().filter(|n| n % 2 == 1).count() > 100);
            assert!(drawn().filter(|&n| n > 2 && is_prime(n)).count() > 50);
        }
        assert_eq!(shapes, random());
    }
}

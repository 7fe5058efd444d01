//! Named lists of shapes.

use super::cliffs;
use crate::request::parse_dims;
use clap::ValueEnum as _;

/// A named list of shapes.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Five shapes of real networks.
    Default,
    /// Every norm of a ResNet-50 on 224 x 224, at batch 32 and 2.
    Resnet50,
    /// A detector on 800 x 1200 at batch 1 and 2: backbone and pyramid at strides 4 to 32.
    Detection,
    /// U-Nets and diffusion blocks.
    Unet,
    /// Tiny and odd.
    Small,
    /// L = 1 to 257 one by one, and 300 random shapes of 0.5 to 16 MB: where does time per byte jump?
    Cliffs,
}

impl Suite {
    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Its shapes (N, C, *spatial), each with the part of the suite it belongs to.
    pub fn shapes(self, seed: u64) -> Vec<(Option<cliffs::Part>, Vec<usize>)> {
        let (batches, shapes): (&[&str], _) = match self {
            Suite::Default => (&[""], DEFAULT),
            Suite::Resnet50 => (&["32x", "2x"], RESNET50),
            Suite::Detection => (&["1x", "2x"], DETECTION),
            Suite::Unet => (&[""], UNET),
            Suite::Small => (&[""], SMALL),
            Suite::Cliffs => return cliffs::shapes(seed),
        };
        let shapes = |batch| {
            shapes
                .split_whitespace()
                .map(move |shape| format!("{batch}{shape}"))
        };
        let dims = batches
            .iter()
            .flat_map(shapes)
            .map(|shape| parse_dims(&shape));
        dims.flatten().map(|dims| (None, dims.0)).collect()
    }
}

/// What is measured where nothing is named: stages of a ResNet-50 and a detector.
const DEFAULT: &str = "8x64x56x56 4x256x56x56 2x256x100x152 16x512x7x7 1x64x224x224";

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

#[cfg(test)]
mod tests {
    use super::super::data;
    use super::*;
    use crate::request::Request;
    use bcnorm::{DType, Layout, Mode, NormKind};

    #[test]
    fn every_shape_can_be_measured() {
        for suite in Suite::value_variants() {
            for (_, dims) in suite.shapes(1) {
                let (dtype, layout) = (DType::F32, Layout::ChannelsFirst);
                let request = Request::new(NormKind::BcNorm, &dims, None, dtype, layout).unwrap();
                data::check_size(&request).unwrap();
                request
                    .norm
                    .validate_for(&request.tensor, Mode::Train)
                    .unwrap();
            }
        }
        // None is left out.
        let count = |suite: Suite| suite.shapes(1).len();
        assert_eq!(count(Suite::Resnet50), 24);
        assert_eq!([Suite::Default, Suite::Small].map(count), [5, 10]);
        assert_eq!([Suite::Detection, Suite::Unet].map(count), [18, 12]);
    }
}

//! Named lists of shapes.

use super::cliffs;
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
        let listed = |shapes: &[&[usize]]| shapes.iter().map(|dims| dims.to_vec()).collect();
        let shapes: Vec<Vec<usize>> = match self {
            Suite::Default => listed(&DEFAULTS),
            Suite::Resnet50 => with_batches(&[32, 2], &RESNET50),
            Suite::Detection => with_batches(&[1, 2], &DETECTION),
            Suite::Unet => listed(&UNET),
            Suite::Small => listed(&SMALL),
            Suite::Cliffs => return cliffs::shapes(seed),
        };
        shapes.into_iter().map(|dims| (None, dims)).collect()
    }
}

fn with_batches(batches: &[usize], shapes: &[[usize; 3]]) -> Vec<Vec<usize>> {
    batches
        .iter()
        .flat_map(|&batch| shapes.iter().map(move |&[c, h, w]| vec![batch, c, h, w]))
        .collect()
}

/// What is measured where nothing is named: stages of a ResNet-50 and a detector.
const DEFAULTS: [&[usize]; 5] = [
    &[8, 64, 56, 56],
    &[4, 256, 56, 56],
    &[2, 256, 100, 152],
    &[16, 512, 7, 7],
    &[1, 64, 224, 224],
];

/// (C, H, W) of ResNet-50's norms (v1.5, where the stride is in the 3 x 3 convolution): stem, then
/// per stage the bottleneck, the bottleneck before its stride, and the block's end.
const RESNET50: [[usize; 3]; 12] = [
    [64, 112, 112],
    [64, 56, 56],
    [256, 56, 56],
    [128, 56, 56],
    [128, 28, 28],
    [512, 28, 28],
    [256, 28, 28],
    [256, 14, 14],
    [1024, 14, 14],
    [512, 14, 14],
    [512, 7, 7],
    [2048, 7, 7],
];

/// (C, H, W) of a detector on 800 x 1200: ResNet-50's block ends at strides 4, 8, 16, 32, the pyramid's
/// 256 channels at the same and at stride 64.
const DETECTION: [[usize; 3]; 9] = [
    [64, 200, 300],
    [256, 200, 300],
    [512, 100, 150],
    [256, 100, 150],
    [1024, 50, 75],
    [256, 50, 75],
    [2048, 25, 38],
    [256, 25, 38],
    [256, 13, 19],
];

/// Blocks of a latent diffusion U-Net at batch 2 (with and without guidance the batch doubles), of its
/// decoder, and of the first U-Net (572 x 572, unpadded convolutions).
const UNET: [&[usize]; 12] = [
    &[2, 320, 64, 64],
    &[2, 640, 32, 32],
    &[2, 960, 32, 32],
    &[2, 1280, 16, 16],
    &[2, 1280, 8, 8],
    &[2, 2560, 8, 8],
    &[1, 128, 512, 512],
    &[1, 512, 64, 64],
    &[1, 64, 568, 568],
    &[1, 128, 280, 280],
    &[1, 256, 136, 136],
    &[1, 1024, 28, 28],
];

/// Tiny and odd.
const SMALL: [&[usize]; 10] = [
    &[16, 512, 7, 7],
    &[2, 64, 7, 7],
    &[4, 3, 5],
    &[2, 256, 1, 1],
    &[3, 65, 33, 31],
    &[1, 32, 13, 17],
    &[8, 96, 14, 14],
    &[64, 128],
    &[5, 7, 11, 13],
    &[1, 1024, 4, 4],
];

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
        assert_eq!(Suite::Resnet50.shapes(1).len(), 24);
    }
}

//! The generator, the order and the initial weights are those of every implementation: values of the twin.

use crate::common::{device, digits};
use bcnorm_burn::MovingSpeed;
use train_digits::network::{Network, NormKind};
use train_digits::random::{SplitMix64, order};

#[test]
fn the_generator() {
    let mut random = SplitMix64::new(0);
    let next = [(); 3].map(|()| random.next_u64());
    assert_eq!(
        next,
        [0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f]
    );
    let mut random = SplitMix64::new(7);
    let uniform = [(); 3].map(|()| random.uniform());
    assert_eq!(
        uniform,
        [
            0.38982969522476196,
            0.016788244247436523,
            0.9007606506347656
        ]
    );
}

#[test]
fn the_order() {
    assert_eq!(order(0, 0, 8), [4, 6, 7, 3, 5, 1, 2, 0]);
    assert_eq!(order(0, 1, 8), [0, 1, 4, 3, 5, 7, 6, 2]);
    assert_eq!(order(1, 0, 8), [3, 4, 5, 6, 0, 2, 1, 7]);
    let len = digits()[0].len();
    assert_eq!(order(0, 0, len)[..5], [3397, 3985, 3257, 1694, 210]);
    assert_eq!(order(2, 2, len)[len - 3..], [1536, 1210, 2525]);
}

/// Names and shapes are PyTorch's, and convolutions and the head alone are drawn, in that order.
#[test]
fn the_initial_weights() {
    let state = |kind| Network::new(kind, true, 0, &MovingSpeed::new(0.0), &device()).state();
    let entries = state(NormKind::BcnEst);
    let shape = |name: &str| {
        let found = entries.iter().find(|entry| entry.name == name);
        found.unwrap_or_else(|| panic!("{name}")).shape.clone()
    };
    assert_eq!(shape("conv1.weight"), [8, 1, 3, 3]);
    assert_eq!(shape("norm1.weight"), [1, 2, 1]);
    assert_eq!(shape("norm1.bn.running_var"), [8]);
    assert_eq!(shape("layer2.downsample.0.weight"), [16, 8, 1, 1]);
    assert_eq!(shape("layer2.downsample.1.bn.bias"), [16]);
    assert_eq!(shape("fc.weight"), [10, 16]);
    // 6 convolutions, 6 norms of 6, the head.
    assert_eq!(entries.len(), 6 + 6 * 6 + 2);

    let mut random = SplitMix64::new(0);
    for entry in &entries {
        let drawn = match entry.shape.as_slice() {
            [_, inputs, height, width] => Some(inputs * height * width),
            _ if entry.name.starts_with("fc.") => Some(16),
            _ => None,
        };
        let len = entry.values.len();
        let expected = match drawn {
            Some(fan_in) => random.weights(len, fan_in),
            None if entry.name.ends_with("bias") || entry.name.ends_with("mean") => vec![0.0; len],
            None => vec![1.0; len],
        };
        assert_eq!(entry.values, expected, "{}", entry.name);
    }
    // As the twin has them.
    assert_eq!(
        entries[0].values[..3],
        [0.255_540_53, -0.045_648_02, -0.315_710_8]
    );
    let names = |kind| {
        let names = state(kind).into_iter().map(|entry| entry.name);
        names
            .filter(|name| name.starts_with("norm1."))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(NormKind::Gn), ["norm1.weight", "norm1.bias"]);
    assert_eq!(names(NormKind::Bn), names(NormKind::BurnBn));
}

//! Devices, data, comparisons.

use burn::tensor::{Device, Tensor, TensorData};
use std::sync::OnceLock;

/// burn's wgpu device, initialized for bcnorm; the same for every test of the process.
pub fn wgpu() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let init = || bcnorm_burn::init(Device::wgpu_options()).expect("a wgpu device");
    DEVICE.get_or_init(init).clone()
}

/// By the kernels, and by burn's operations on a CPU.
pub fn devices() -> [(&'static str, Device); 2] {
    let devices = [("wgpu", wgpu()), ("flex", Device::flex())];
    assert!(bcnorm_burn::is_native(&devices[0].1));
    assert!(!bcnorm_burn::is_native(&devices[1].1));
    devices
}

/// Values with an offset, of every size about 1, that differ from seed to seed.
pub fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| 1.5 * next() + 0.3).collect()
}

pub fn tensor<const D: usize>(dims: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let values = values(dims.iter().product(), seed);
    Tensor::from_data(TensorData::new(values, dims), device)
}

pub fn read<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    let data = tensor.clone().into_data().convert::<f32>();
    data.try_to_vec().expect("f32")
}

/// The largest difference, in the largest expected value.
pub fn difference(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
    assert!(scale > 0.0 && scale.is_finite(), "nothing to compare with");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A NaN is the worst, and stays.
    let worst = worst.fold(0f32, |most, d| match most.is_nan() || d <= most {
        true => most,
        false => d,
    });
    f64::from(worst) / f64::from(scale)
}

pub fn assert_close<const D: usize>(what: &str, got: &Tensor<D>, expected: &Tensor<D>, bound: f64) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let difference = difference(&read(got), &read(expected));
    assert!(difference <= bound, "{what}: {difference:e} > {bound:e}");
}

/// What a call panics with.
pub fn panics(call: impl FnOnce()) -> String {
    let call = std::panic::AssertUnwindSafe(call);
    let payload = std::panic::catch_unwind(call).expect_err("it was to panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
        .expect("a message")
}

#[test]
fn comparisons_can_fail() {
    assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
    assert_eq!(difference(&[1.0, 1.0], &[1.0, 2.0]), 0.5);
    assert!(difference(&[f32::NAN, 2.0], &[1.0, 2.0]).is_nan());
    let device = Device::flex();
    let [a, b] = [1, 2].map(|seed| tensor([4, 5], seed, &device));
    assert!(panics(|| assert_close("x", &a, &b, 1e-4)).starts_with("x: "));
    assert!(panics(|| assert_close("x", &(a.clone() * f32::NAN), &a, 1e-4)).starts_with("x: NaN"));
}

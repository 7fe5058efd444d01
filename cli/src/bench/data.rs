//! Data of the shapes that are measured.

use crate::case::Problem;
use crate::request::Request;
use anyhow::{Result, ensure};

/// 256 MiB of f32.
const MAX_ELEMENTS: u64 = 1 << 26;

/// Refuses shapes that are too large to be checked.
pub fn check_size(request: &Request) -> Result<()> {
    let (dims, elements) = (request.tensor.dims(), request.tensor.elements());
    ensure!(
        elements <= MAX_ELEMENTS,
        "a tensor of shape {dims:?} has {elements} elements; the f64 reference, which checks what is \
         timed, takes some 100 bytes for each: {MAX_ELEMENTS} at most"
    );
    Ok(())
}

/// A problem without data. The speed of est_bn is 0, as at the start of a training: what normalizes stays as it
/// is, and so do the results of repeated calls, which are compared.
pub fn empty(request: &Request) -> Problem {
    let tensor = &request.tensor;
    Problem::new(request.norm, tensor.dims(), Vec::new())
        .with_dtype(tensor.dtype())
        .with_layout(tensor.layout())
}

/// A training problem: normal data, each channel with a mean and a deviation of its own; the same data on every
/// run.
pub fn random(request: &Request) -> Problem {
    let dims = request.tensor.dims();
    let mut random = fastrand::Rng::with_seed(0x0bc0_0921);
    let mut vary = |len: usize, mean: f32, std: f32| -> Vec<f32> {
        (0..len).map(|_| mean + std * normal(&mut random)).collect()
    };
    let elements: usize = dims.iter().product();
    let means = vary(dims[1], 1.0, 3.0);
    let mut x = vary(elements, 0.0, 1.0);
    let rows = x.chunks_exact_mut(elements / (dims[0] * dims[1]));
    for (channel, row) in (0..dims[1]).cycle().zip(rows) {
        let std = 0.5 + (channel % 5) as f32;
        row.iter_mut()
            .for_each(|value| *value = means[channel] + std * *value);
    }
    let running_var = vary(dims[1], 2.0, 0.3);
    let grad_y = vary(elements, 0.1, 1.0);
    // The problem knows which parameters and statistics the norm has: those become random.
    let mut problem = Problem::new(request.norm, dims, x).with_grad_y(grad_y);
    for (values, mean, std) in [
        (&mut problem.bn_weight, 1.0, 0.2),
        (&mut problem.bn_bias, 0.0, 0.3),
        (&mut problem.weight, 1.0, 0.2),
        (&mut problem.bias, 0.0, 0.3),
    ] {
        *values = vary(values.len(), mean, std);
    }
    for (value, mean) in problem.running_mean.iter_mut().zip(&means) {
        *value = mean + 0.1;
    }
    for (value, var) in problem.running_var.iter_mut().zip(running_var) {
        *value = var.abs();
    }
    let (dtype, layout) = (request.tensor.dtype(), request.tensor.layout());
    problem.with_dtype(dtype).with_layout(layout)
}

/// Nearly normal: the sum of four uniform numbers, scaled to variance 1.
fn normal(random: &mut fastrand::Rng) -> f32 {
    (0..4).map(|_| random.f32() - 0.5).sum::<f32>() * 3f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::NormKind;

    #[test]
    fn data_is_what_it_says() {
        let dims = [3, 6, 50, 7];
        let request = Request::new(NormKind::BcNorm, &dims, None);
        let case = random(&request.unwrap());
        case.check().unwrap();
        assert!(case.running_var.iter().all(|var| *var > 0.5));
        let mut random = fastrand::Rng::with_seed(1);
        let values: Vec<f32> = (0..100_000).map(|_| normal(&mut random)).collect();
        let mean = values.iter().sum::<f32>() / 1e5;
        let var = values.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(
            mean.abs() < 0.02 && (var - 1.0).abs() < 0.02,
            "{mean} {var}"
        );
    }
}

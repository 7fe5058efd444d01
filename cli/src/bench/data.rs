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

/// A training problem; the same data on every run.
pub fn random(request: &Request) -> Problem {
    let tensor = &request.tensor;
    Problem::random_of(request.norm, tensor.dims(), 0x0bc0_0921)
        .with_dtype(tensor.dtype())
        .with_layout(tensor.layout())
}

//! A device whose errors are kept: what the library should have refused must not reach wgpu.

use super::adapters;
use bcnorm::gpu::headless::Gpu;
use std::sync::{Arc, Mutex};

pub struct Watched {
    pub gpu: Gpu,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    /// On the best adapter, with WebGPU's default limits.
    pub fn new() -> Self {
        let gpu = adapters::first();
        let errors = Arc::<Mutex<Vec<String>>>::default();
        let kept = errors.clone();
        gpu.device
            .on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
                kept.lock().unwrap().push(error.to_string());
            }));
        Self { gpu, errors }
    }

    /// The errors since the last call.
    pub fn take_errors(&self) -> Vec<String> {
        let _ = self.gpu.device.poll(wgpu::PollType::wait_indefinitely());
        std::mem::take(&mut *self.errors.lock().unwrap())
    }

    pub fn assert_no_errors(&self) {
        let errors = self.take_errors();
        assert!(
            errors.is_empty(),
            "wgpu was given what it refuses: {errors:?}"
        );
    }
}

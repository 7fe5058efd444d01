//! What the runs of a problem leave, and what is expected of them.

use std::collections::BTreeMap;
use std::ops::Index;

/// The outputs, by the names of the golden files. Tensors are in row-major order with channels first.
pub type Outputs = BTreeMap<&'static str, Vec<f32>>;

/// What the oracle expects of each output, with the scale that an error is divided by.
pub type Expected = BTreeMap<&'static str, (Vec<f64>, f64)>;

/// What a run left.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// By name.
    pub outputs: Outputs,
    /// Batches tracked after the call.
    pub num_batches_tracked: u32,
}

impl Run {
    /// An output, empty where there is none.
    pub fn get(&self, name: &str) -> &[f32] {
        self.outputs.get(name).map_or(&[], Vec::as_slice)
    }
}

impl Index<&str> for Run {
    type Output = [f32];

    fn index(&self, name: &str) -> &[f32] {
        &self.outputs[name]
    }
}

//! Mirror of `shaders/running_fold.wgsl`.

use super::RunningStatistics;
use crate::params::ChannelParams;
use crate::tables::Moments;

/// Running statistics of InstanceNorm: the average over the samples of each sample's mean and unbiased
/// variance. Means are averaged as differences from the first sample's pivot, so that a large mean
/// costs nothing.
pub fn running_fold(params: &ChannelParams, rows: &[Moments], running: RunningStatistics) {
    let (entries, columns) = (params.table.entries as usize, params.table.columns as usize);
    let momentum = params.norm.momentum;
    for (c, (mean, var)) in running.mean.iter_mut().zip(running.var).enumerate() {
        let pivot = rows[c].pivot;
        let (mut offset, mut variance) = (0.0, 0.0);
        for row in (0..entries).map(|i| &rows[i * columns + c]) {
            offset += f64::from((row.pivot - pivot) + row.offset);
            let count = f64::from(row.count);
            variance += f64::from(row.variance) * (count / (count - 1.0));
        }
        let count = f64::from(params.table.entries);
        let (offset, variance) = ((offset / count) as f32, (variance / count) as f32);
        *mean = (1.0 - momentum) * *mean + (momentum * pivot + momentum * offset);
        *var = (1.0 - momentum) * *var + momentum * variance;
    }
}

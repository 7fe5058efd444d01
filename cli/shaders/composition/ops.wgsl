// The ops of the op-by-op composition, each behind a line that names it: what its kernel (reduce, fold or map)
// lacks. The command and the browser's benchmark read them.

//! statistics
// Sums of x and of its squares.
fn prepare(channel: u32) -> f32 { return 0.0; }
fn terms(word: u32, keep: vec4<bool>, p: f32) -> Terms {
    let v = select(vec4(0.0), x[word], keep);
    return Terms(v, v * v);
}

//! products
// Sums of dy and of dy (x - mean).
fn prepare(channel: u32) -> f32 { return statistics[channel].x; }
fn terms(word: u32, keep: vec4<bool>, p: f32) -> Terms {
    let v = select(vec4(0.0), dy[word], keep);
    return Terms(v, v * (x[word] - p));
}

//! sum
// Sums of x.
fn prepare(channel: u32) -> f32 { return 0.0; }
fn terms(word: u32, keep: vec4<bool>, p: f32) -> Terms {
    return Terms(select(vec4(0.0), x[word], keep), vec4(0.0));
}

//! fold_statistics
// Mean and 1 / standard deviation.
fn finish(channel: u32, sum: vec2<f32>) {
    let mean = sum.x / shape.count;
    let variance = max(sum.y / shape.count - mean * mean, 0.0);
    sums[channel] = vec2(mean, inverseSqrt(variance + shape.eps));
}

//! fold_products
// The means that backward subtracts, and the parameters' gradients.
fn finish(channel: u32, sum: vec2<f32>) {
    let rstd = statistics[channel].y;
    sums[channel] = vec2(sum.x, sum.y * rstd * rstd) / shape.count;
    gradients[channel] = vec2(sum.x, sum.y * rstd);
}

//! fold_sum
// A parameter's gradient.
fn finish(channel: u32, sum: vec2<f32>) { sums[channel] = sum; }

//! normalize
fn prepare(channel: u32) -> vec4<f32> {
    let s = statistics[channel];
    return vec4(s.x, s.y * weight[channel], bias[channel], 0.0);
}
fn apply(word: u32, p: vec4<f32>) -> vec4<f32> { return (x[word] - p.x) * p.y + p.z; }

//! normalize_plain
fn prepare(channel: u32) -> vec2<f32> { return statistics[channel]; }
fn apply(word: u32, p: vec2<f32>) -> vec4<f32> { return (x[word] - p.x) * p.y; }

//! scale
fn prepare(channel: u32) -> f32 { return weight[channel]; }
fn apply(word: u32, p: f32) -> vec4<f32> { return x[word] * p; }

//! shift
fn prepare(channel: u32) -> f32 { return bias[channel]; }
fn apply(word: u32, p: f32) -> vec4<f32> { return x[word] + p; }

//! multiply
fn prepare(channel: u32) -> f32 { return 0.0; }
fn apply(word: u32, p: f32) -> vec4<f32> { return x[word] * dy[word]; }

//! gradient
fn prepare(channel: u32) -> vec4<f32> {
    let s = statistics[channel];
    let m = means[channel];
    return vec4(s.x, m.x, m.y, s.y * weight[channel]);
}
fn apply(word: u32, p: vec4<f32>) -> vec4<f32> {
    return (dy[word] - p.y - (x[word] - p.x) * p.z) * p.w;
}

//! gradient_plain
fn prepare(channel: u32) -> vec4<f32> {
    let s = statistics[channel];
    let m = means[channel];
    return vec4(s.x, m.x, m.y, s.y);
}
fn apply(word: u32, p: vec4<f32>) -> vec4<f32> {
    return (dy[word] - p.y - (x[word] - p.x) * p.z) * p.w;
}

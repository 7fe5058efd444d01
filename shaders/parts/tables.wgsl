// Entries of the tables between stages; src/tables.rs documents them and is their twin.
struct Moments {
    count: u32,
    pivot: f32,
    offset: f32,
    variance: f32,
}

struct Channel {
    mean_pivot: f32,
    mean_offset: f32,
    rstd: f32,
    scale: f32,
    scale_low: f32,
    bias: f32,
    weight: f32,
    count: u32,
}

struct Group {
    mean_pivot: f32,
    mean_offset: f32,
    mean_rest: f32,
    rstd: f32,
    weight: f32,
}

struct Affine {
    pivot: f32,
    offset: f32,
    scale: f32,
    shift: f32,
}

struct Products {
    count: u32,
    pivot: f32,
    offset: f32,
    x_mean: f32,
    covariance: f32,
}

struct GradientPair {
    bias: f32,
    weight: f32,
}

struct GroupGradient {
    mean_pivot: f32,
    mean_offset: f32,
    mean_rest: f32,
    rstd: f32,
    grad_pivot: f32,
    grad_offset: f32,
    shift: f32,
    projection: f32,
    rest: f32,
    scale: f32,
    unused: f32,
    unused_too: f32,
}

struct RowGradient {
    scale: f32,
    weight: f32,
    x_scale: f32,
    mean: f32,
}

struct AffineBackward {
    x_pivot: f32,
    x_scale: f32,
    grad_pivot: f32,
    grad_scale: f32,
    shift: f32,
}

// What AffineBackward's x - x_pivot is multiplied by first: the power of two that is next to grad_scale, towards 0 (1
// where that is 0). x_scale alone may be below f32's least number: it is as small as the square of a reciprocal
// standard deviation.
fn x_unit_exponent(grad_scale: f32) -> u32 {
    let exponent = (bitcast<u32>(grad_scale) >> 23u) & 0xffu;
    return select(min(exponent, 253u), 127u, exponent == 0u);
}

fn x_unit(grad_scale: f32) -> f32 {
    return bitcast<f32>(x_unit_exponent(grad_scale) << 23u);
}

// 1 / x_unit.
fn x_unit_inverse(grad_scale: f32) -> f32 {
    return bitcast<f32>((254u - x_unit_exponent(grad_scale)) << 23u);
}

// Entries that are a whole number of four: a shader that loads or stores them member by member pays for each.
struct StoredMoments {
    all: vec4<u32>,
}

fn moments_of(stored: StoredMoments) -> Moments {
    let a = bitcast<vec4<f32>>(stored.all);
    return Moments(stored.all.x, a.y, a.z, a.w);
}

fn stored_moments(m: Moments) -> StoredMoments {
    return StoredMoments(vec4<u32>(m.count, bitcast<vec3<u32>>(vec3<f32>(m.pivot, m.offset, m.variance))));
}

struct StoredChannel {
    low: vec4<f32>,
    high: vec4<u32>,
}

fn channel_of(stored: StoredChannel) -> Channel {
    let a = stored.low;
    let b = bitcast<vec4<f32>>(stored.high);
    return Channel(a.x, a.y, a.z, a.w, b.x, b.y, b.z, stored.high.w);
}

// A channel without a channel part: z = 1 (x - 0) + 0.
fn unchanged_channel() -> Channel {
    return Channel(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0u);
}

fn stored_channel(c: Channel) -> StoredChannel {
    let low = vec4<f32>(c.mean_pivot, c.mean_offset, c.rstd, c.scale);
    let high = bitcast<vec3<u32>>(vec3<f32>(c.scale_low, c.bias, c.weight));
    return StoredChannel(low, vec4<u32>(high, c.count));
}

struct StoredAffine {
    all: vec4<f32>,
}

fn affine_of(stored: StoredAffine) -> Affine {
    let a = stored.all;
    return Affine(a.x, a.y, a.z, a.w);
}

fn stored_affine(a: Affine) -> StoredAffine {
    return StoredAffine(vec4<f32>(a.pivot, a.offset, a.scale, a.shift));
}

struct StoredGroupGradient {
    low: vec4<f32>,
    middle: vec4<f32>,
    high: vec4<f32>,
}

fn group_gradient(stored: StoredGroupGradient) -> GroupGradient {
    let a = stored.low;
    let b = stored.middle;
    let c = stored.high;
    return GroupGradient(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w);
}

fn stored_group_gradient(g: GroupGradient) -> StoredGroupGradient {
    return StoredGroupGradient(
        vec4<f32>(g.mean_pivot, g.mean_offset, g.mean_rest, g.rstd),
        vec4<f32>(g.grad_pivot, g.grad_offset, g.shift, g.projection),
        vec4<f32>(g.rest, g.scale, g.unused, g.unused_too),
    );
}

// Batches so far and one more. It stays at the last count rather than begin again.
fn next_count(count: u32) -> u32 {
    return min(count, 0xfffffffeu) + 1u;
}

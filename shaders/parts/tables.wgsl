// Entries of the tables between stages; src/tables.rs documents them and is their twin.
struct Moments {
    count: u32,
    pivot: f32,
    offset: f32,
    m2: f32,
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
    product: f32,
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
    grad_scale: f32,
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

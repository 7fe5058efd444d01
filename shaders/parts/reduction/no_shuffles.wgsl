// The reductions of shuffles.wgsl where no lanes are taken to be in one subgroup: a lane has its own value.
// #import tables

fn shuffled_moments(value: Moments, local: u32) -> Moments {
    return value;
}

fn shuffled_products(value: Products, local: u32) -> Products {
    return value;
}

fn shuffled_pair(value: vec2<f32>) -> vec2<f32> {
    return value;
}

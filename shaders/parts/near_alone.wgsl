// near.wgsl's reductions where no lanes are taken to be in one subgroup: a lane has its own value.
fn near_moments(value: Moments, local: u32) -> Moments {
    return value;
}

fn near_products(value: Products, local: u32) -> Products {
    return value;
}

fn near_pair(value: vec2<f32>) -> vec2<f32> {
    return value;
}

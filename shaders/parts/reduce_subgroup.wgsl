// Reduction over LANES lanes that are in one subgroup: no barrier, no workgroup memory.
fn reduce_moments(value: Moments, local: u32) -> Moments {
    return near_moments(value, local);
}

fn reduce_products(value: Products, local: u32) -> Products {
    return near_products(value, local);
}

fn reduce_pair(value: vec2<f32>, local: u32) -> vec2<f32> {
    return near_pair(value);
}

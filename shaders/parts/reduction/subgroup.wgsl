// Reduction over LANES lanes that are in one subgroup: no barrier, no workgroup memory.
// #import spec
// #import tables
// #import reduction/shuffles

fn reduce_moments(value: Moments, local: u32) -> Moments {
    return shuffled_moments(value, local);
}

fn reduce_products(value: Products, local: u32) -> Products {
    return shuffled_products(value, local);
}

fn reduce_pair(value: vec2<f32>, local: u32) -> vec2<f32> {
    return shuffled_pair(value);
}

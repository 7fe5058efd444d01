// Reduction over one lane: nothing to do, and no barrier. Barriers are what costs on a software
// adapter.
// #import tables

fn reduce_moments(value: Moments, local: u32) -> Moments {
    return value;
}

fn reduce_products(value: Products, local: u32) -> Products {
    return value;
}

fn reduce_pair(value: vec2<f32>, local: u32) -> vec2<f32> {
    return value;
}

// An invocation has its item to itself.

fn gather(index: u32, sum: vec2<f32>) -> vec2<f32> {
    return sum;
}

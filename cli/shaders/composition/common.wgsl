// What the kernels of the op-by-op composition share. A tensor is words of 4 elements, padded to whole words;
// to an op it is `rows` rows of `len` elements, those of channel c being the rows c, c + channels, and so on.
// WORKGROUP_SIZE and LANES, the invocations that share an item, are put before this text.

struct Shape {
    rows: u32,
    len: u32,
    channels: u32,
    samples: u32,
    // A row is worked on in so many parts, of so many words each.
    parts: u32,
    words: u32,
    // Values behind one channel's statistics.
    count: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
// Mean and 1 / standard deviation of each channel.
@group(0) @binding(3) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
// Of each channel: the means that backward subtracts.
@group(0) @binding(6) var<storage, read> means: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read> parts: array<vec2<f32>>;
@group(0) @binding(8) var<storage, read_write> sums: array<vec2<f32>>;
@group(0) @binding(9) var<storage, read_write> gradients: array<vec2<f32>>;
@group(0) @binding(10) var<storage, read_write> result: array<vec4<f32>>;

// Which item an invocation works on, and its place among those that share it.
fn place(group: vec3<u32>, groups: vec3<u32>, index: u32) -> vec2<u32> {
    let flat = (group.y * groups.x + group.x) * WORKGROUP_SIZE + index;
    return vec2(flat / LANES, flat % LANES);
}

// The words from x to y lie wholly in the row.
fn whole_words(row: u32) -> vec2<u32> {
    let begin = row * shape.len;
    let first = (begin + 3u) / 4u;
    return vec2(first, max(first, (begin + shape.len) / 4u));
}

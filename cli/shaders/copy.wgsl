// Copies a tensor, four elements an invocation: the least work that touches each byte once.
// A workgroup owns WORKGROUP_SIZE consecutive words of four elements. WORKGROUP_SIZE is put before
// this text.

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> destination: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // More workgroups than a dimension holds are folded into two.
    let word = (group.y * groups.x + group.x) * WORKGROUP_SIZE + lane;
    if word < arrayLength(&destination) {
        destination[word] = source[word];
    }
}

// Reads a tensor and nothing else: the least work of a reduction. Words of 4 u32 are added modulo 2^32, so
// that any type can be read and the sums are exact whatever their order.
// WORKGROUP_SIZE and WORDS, the words an invocation reads, are put before this text.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

var<workgroup> shared_sums: array<u32, WORKGROUP_SIZE>;

fn total(sum: vec4<u32>) -> u32 {
    return sum.x + sum.y + sum.z + sum.w;
}

// An invocation owns WORDS consecutive words and a sum: no barrier, for software adapters.
@compute @workgroup_size(WORKGROUP_SIZE)
fn read_alone(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = (group.y * groups.x + group.x) * WORKGROUP_SIZE + lane;
    let start = item * WORDS;
    let end_word = min(start + WORDS, arrayLength(&source));
    var sum = vec4<u32>();
    for (var word = start; word < end_word; word++) {
        sum += source[word];
    }
    if item < arrayLength(&sums) {
        sums[item] = total(sum);
    }
}

// A workgroup owns WORKGROUP_SIZE * WORDS consecutive words and a sum; its invocations read neighbours.
@compute @workgroup_size(WORKGROUP_SIZE)
fn read_together(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let item = group.y * groups.x + group.x;
    let start = item * WORKGROUP_SIZE * WORDS;
    let end_word = min(start + WORKGROUP_SIZE * WORDS, arrayLength(&source));
    var sum = vec4<u32>();
    for (var word = start + lane; word < end_word; word += WORKGROUP_SIZE) {
        sum += source[word];
    }
    shared_sums[lane] = total(sum);
    for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            shared_sums[lane] += shared_sums[lane + half];
        }
    }
    if lane == 0u && item < arrayLength(&sums) {
        sums[item] = shared_sums[0];
    }
}

// One channel's sums over the parts of its rows. LANES invocations own a channel.
// finish(channel, sum) and gather(index, sum) are put before this text.

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let at = place(group, groups, index);
    let channel = at.x;
    var sum = vec2(0.0);
    if channel < shape.channels {
        for (var i = at.y; i < shape.samples * shape.parts; i += LANES) {
            let row = i / shape.parts * shape.channels + channel;
            sum += parts[row * shape.parts + i % shape.parts];
        }
    }
    let all = gather(index, sum);
    if at.y == 0u && channel < shape.channels {
        finish(channel, all);
    }
}

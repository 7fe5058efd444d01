// Forward 3. LANES invocations own one (sample, group): statistics of the channel part's output
// z = scale (x - mean) + bias (or x itself) over the group's channels and space, from row moments
// alone; then the affine map of each of its rows.
// #import spec
// #import params/groups
// #import tables
// #import arithmetic/precise
// #import arithmetic/row_mean
// #import arithmetic/sums
// #import arithmetic/moments
// #import layout/item
// #import layout/channel_table
// #import layout/group_rows
// #import reduction/serial

@group(0) @binding(3) var<storage, read> rows: array<StoredMoments>;
// #if bias
@group(0) @binding(4) var<storage, read> bias: array<f32>;
// #end
@group(0) @binding(5) var<storage, read_write> groups: array<Group>;
@group(0) @binding(6) var<storage, read_write> coefficients: array<StoredAffine>;

// A row and its channel.
struct Entry {
    row: Moments,
    channel: Channel,
}

fn entry_at(span: GroupRows, i: u32) -> Entry {
    return Entry(moments_of(rows[span.first_row + i]), channel_entry(span.first_channel + i));
}

// The row's z as moments without a spread, for the mean alone.
fn mean_of(e: Entry) -> Moments {
    let mean = row_mean(e.row, e.channel);
    return Moments(e.row.count, mean.pivot, mean.offset, 0.0);
}

// The row's share in what is left of the mean, and in the variance.
fn left_of(e: Entry, group: Group, first: f32, count: f32) -> f32 {
    return (f32(e.row.count) / count) * (above_group_mean(e.row, e.channel, group) - first);
}

fn spread_of(e: Entry, group: Group, count: f32) -> f32 {
    let above = above_group_mean(e.row, e.channel, group);
    let share = f32(e.row.count) / count;
    return share * ((e.channel.scale * e.row.variance) * e.channel.scale) + (share * above) * above;
}

fn put(span: GroupRows, i: u32, e: Entry, group: Group) {
    // One of the two weights is 1.
    let scale = (group.weight * e.channel.weight) * group.rstd;
    var b = 0.0;
    // #if bias
    b = bias[select(span.g, span.first_channel + i, weight_per_channel())];
    // #end
    coefficients[span.first_row + i] = stored_affine(Affine(
        e.row.pivot,
        e.row.offset,
        scale * e.channel.scale,
        scale * above_group_mean(e.row, e.channel, group) + b,
    ));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn group_fold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let span = group_rows(min(item, params.dispatch.items - 1u));

    var moments = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < span.size; i = i + LANES) {
        moments = merge_moments(moments, mean_of(entry_at(span, i)));
    }
    moments = reduce_moments(moments, local);
    var group = Group(moments.pivot, moments.offset, 0.0, 0.0, group_weight(span.g));

    // Two more looks from the mean just found: what is left of it (relative to the first row, so
    // that rows of one mean leave exactly that), then the spread about it.
    let count = f32(moments.count);
    let first_entry = entry_at(span, 0u);
    let first = above_group_mean(first_entry.row, first_entry.channel, group);
    var left = no_sum();
    for (var i = lane; i < span.size; i = i + LANES) {
        left = and_term(left, vec2<f32>(left_of(entry_at(span, i), group, first, count), 0.0));
    }
    group.mean_rest = first + reduce_pair(total(left), local).x;
    var spread = no_sum();
    for (var i = lane; i < span.size; i = i + LANES) {
        spread = and_term(spread, vec2<f32>(spread_of(entry_at(span, i), group, count), 0.0));
    }
    let variance = reduce_pair(total(spread), local).x * (count / degrees_of_freedom(params.norm, count));
    group.rstd = reciprocal_std(variance + params.norm.eps);
    if (!active_item) {
        return;
    }
    if (lane == 0u) {
        groups[item] = group;
    }
    for (var i = lane; i < span.size; i = i + LANES) {
        put(span, i, entry_at(span, i), group);
    }
}

// Backward 2. LANES invocations own one (sample, group): what it makes of dy in each of its rows, and
// its terms of the gradients: of bias and weight, per group or per row, and per row those of bn.bias
// and bn.weight. All sums are of differences from the group's mean of dy (times the weight, where that
// is per channel), so that a large one cancels nowhere.
// #import spec
// #import params/terms
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
@group(0) @binding(4) var<storage, read> products: array<Products>;
@group(0) @binding(5) var<storage, read> groups: array<Group>;
// #if gradient_terms
@group(0) @binding(6) var<storage, read_write> gradient_terms: array<GradientPair>;
// #end
@group(0) @binding(7) var<storage, read_write> row_gradients: array<RowGradient>;

// The same of w dy, where the group part's weight w is per channel.
fn weighted(entry: Products, channel: Channel) -> Products {
    if (!weight_per_channel()) {
        return entry;
    }
    let w = channel.weight;
    let pivot = rounded(w * entry.pivot);
    let offset = product_rest(w, entry.pivot, pivot) + w * entry.offset;
    return Products(entry.count, pivot, offset, entry.x_mean, w * entry.covariance);
}

// A row, its channel, and what of dy there is in it: `plain`, or times the weight; z's mean over the row less
// the group's; its share in the group.
struct Entry {
    row: Moments,
    channel: Channel,
    plain: Products,
    dy: Products,
    above: f32,
    share: f32,
}

fn entry_at(span: GroupRows, i: u32, group: Group) -> Entry {
    let row = moments_of(rows[span.first_row + i]);
    let channel = channel_entry(span.first_channel + i);
    let plain = products[span.first_row + i];
    let above = above_group_mean(row, channel, group);
    return Entry(row, channel, plain, weighted(plain, channel), above, 1.0 / f32(span.size));
}

fn mean_of(e: Entry) -> Moments {
    return Moments(params.shape.row_len, e.dy.pivot, e.dy.offset, 0.0);
}

// Mean of dy (or w dy) over the row, less the group's mean.
fn grad_above_mean(entry: Products, mean: Moments) -> f32 {
    return rounded(entry.pivot - mean.pivot) + (entry.offset - mean.offset);
}

fn projected(e: Entry, mean: Moments) -> vec2<f32> {
    let grad_above = grad_above_mean(e.dy, mean);
    let scale = e.channel.scale;
    return vec2<f32>(
        e.share * (scale * e.dy.covariance) + (e.share * grad_above) * e.above,
        e.share * ((scale * e.row.variance) * scale) + (e.share * e.above) * e.above,
    );
}

fn remaining(e: Entry, mean: Moments, c: f32) -> vec2<f32> {
    let rest = rounded(grad_above_mean(e.dy, mean) - c * e.above);
    let inner = e.dy.covariance - c * (e.channel.scale * e.row.variance);
    return vec2<f32>(e.share * rest, e.share * (e.channel.scale * inner) + (e.share * rest) * e.above);
}

// dz = rstd weight (dy less all of z, plus the share of z that eps leaves): what its mean over each row, and its sum
// times x-hat, are made of.
struct GroupTerms {
    c: f32,
    c_left: f32,
    shift: f32,
    kept: f32,
    scale: f32,
    x_scale: f32,
    rstd: f32,
    first_term: u32,
    first_affine: u32,
}

fn put(span: GroupRows, i: u32, e: Entry, mean: Moments, terms: GroupTerms) {
    let len = f32(params.shape.row_len);
    let above = e.above;
    let rest = rounded(grad_above_mean(e.dy, mean) - terms.c * above) - (terms.shift + terms.c_left * above);
    let dz_mean = terms.scale * (rest + terms.kept * above);
    row_gradients[span.first_row + i] = RowGradient(
        terms.scale,
        e.channel.weight,
        -(terms.x_scale * e.channel.scale),
        dz_mean,
    );
    // #if gradient_terms
    if (params.table.channel_columns != 0u) {
        let spread = e.channel.scale * e.row.variance;
        let inner = (e.dy.covariance - terms.c * spread) - terms.c_left * spread;
        let inner_mean = terms.scale * (inner + terms.kept * spread);
        let weight_mean = e.channel.rstd * (inner_mean + x_above_mean(e.row, e.channel) * dz_mean);
        gradient_terms[terms.first_term + span.first_channel + i] = GradientPair(len * dz_mean, len * weight_mean);
    }
    if (params.table.columns != params.table.channel_columns && weight_per_channel()) {
        let sum = len * e.plain.pivot + len * e.plain.offset;
        let weight = terms.rstd * (len * (e.channel.scale * e.plain.covariance) + above * sum);
        gradient_terms[terms.first_affine + span.first_channel + i] = GradientPair(sum, weight);
    }
    // #end
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn group_fold_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let safe_item = min(item, params.dispatch.items - 1u);
    let span = group_rows(safe_item);
    let sample = safe_item / params.shape.num_groups;
    let group = groups[safe_item];
    let group_len = f32(span.size) * f32(params.shape.row_len);

    // Mean of dy over the group, as pivot + offset: rows are moments without a spread. Where w is per
    // channel, dy is w dy from here on.
    var mean = Moments(0u, 0.0, 0.0, 0.0);
    for (var i = lane; i < span.size; i = i + LANES) {
        mean = merge_moments(mean, mean_of(entry_at(span, i, group)));
    }
    mean = reduce_moments(mean, local);

    // z less its mean, c its multiple in dy: project it out once, and once more from what is left,
    // since rounding leaves some of it (Gram-Schmidt, twice is enough). In small groups little else
    // remains of dz, and the plain difference would be rounding.
    var sums = no_sum();
    for (var i = lane; i < span.size; i = i + LANES) {
        sums = and_term(sums, projected(entry_at(span, i, group), mean));
    }
    let projection = reduce_pair(total(sums), local);
    let c = ratio(projection.x, projection.y);
    sums = no_sum();
    for (var i = lane; i < span.size; i = i + LANES) {
        sums = and_term(sums, remaining(entry_at(span, i, group), mean, c));
    }
    let left = reduce_pair(total(sums), local);
    if (!active_item) {
        return;
    }

    // Columns of the terms: the channel part's, if it has any, then those of bias and weight, if there
    // are any.
    let first_term = sample * params.table.columns;
    let first_affine = first_term + params.table.channel_columns;
    let h = group.rstd * projection.x;
    // #if gradient_terms
    if (params.table.columns != params.table.channel_columns && !weight_per_channel() && lane == 0u) {
        let sum = group_len * mean.pivot + group_len * mean.offset;
        gradient_terms[first_affine + span.g] = GradientPair(sum, group_len * h);
    }
    // #end
    let c_left = ratio(left.y, projection.y);
    let unbiased = group_len / degrees_of_freedom(params.norm, group_len);
    let variance = projection.y * unbiased;
    let terms = GroupTerms(
        c,
        c_left,
        left.x,
        (c + c_left) * ratio(params.norm.eps, variance + params.norm.eps),
        group.rstd * group.weight,
        (group.rstd * h) * unbiased,
        group.rstd,
        first_term,
        first_affine,
    );
    for (var i = lane; i < span.size; i = i + LANES) {
        put(span, i, entry_at(span, i, group), mean, terms);
    }
}

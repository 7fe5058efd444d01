// Backward 1 and 2 in one, for short rows. LANES invocations own one (sample, group): what the group part makes of dy,
// and its terms of the gradients of weight and bias where these are per group. One read of x and one of dy from memory:
// a lane's first word stays in registers, as in element_affine.
//
// As group_fold_backward, where every element is a row.
// #import spec
// #import params
// #import tables
// #import storage/f32
// #import arithmetic/precise
// #import arithmetic/word_sums
// #import layout/item
// #import layout/elements
// #import layout/group_words
// #import reduction/serial

@group(0) @binding(2) var<storage, read> x: array<Stored>;
@group(0) @binding(3) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(4) var<storage, read> groups: array<Group>;
// #if affine_terms
@group(0) @binding(5) var<storage, read_write> affine_terms: array<GradientPair>;
// #end
@group(0) @binding(6) var<storage, read_write> group_gradients: array<StoredGroupGradient>;

// A word's z less its mean, and its dy.
struct Pair {
    above: Word,
    grad: Gradient,
}

fn pair_at(words: GroupWords, w: u32, group: Group) -> Pair {
    let i = words.base + w;
    let known = element_channels(words.first + w * WIDTH);
    let z = z_of(load(x[slot(i)], i), known);
    let gradient = gradient_of(load(grad_y[slot(i)], i), known);
    return Pair(above_mean(z, group.mean_pivot, group.mean_offset, group.mean_rest), gradient);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_products(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.items;
    let safe_item = min(item, params.items - 1u);
    let words = group_words(safe_item);
    let group = groups[safe_item];
    let count = f32(words.size * WIDTH);
    let unit = square_unit(count);

    // Mean of dy over the group, about its first element; and z's multiple in dy about that, which is the multiple in dy
    // less its mean: z less its own has none. It is projected out twice: see group_fold_backward. Sums of products with
    // z, and of its squares, are of z multiplied by square_unit.
    let first = pair_at(words, 0u, group).grad;
    let own = pair_at(words, min(lane, words.size - 1u), group);
    let origin = word_at(first.pivot, 0u);
    let origin_low = word_at(first.offset, 0u);
    var sums = no_totals();
    var run = no_sums();
    var products = no_totals();
    var products_run = no_sums();
    for (var w = lane; w < words.size; w = w + LANES) {
        var pair = own;
        if (w != lane) {
            pair = pair_at(words, w, group);
        }
        let high = rounded_word(pair.grad.pivot - Word(origin));
        let low = pair.grad.offset - Word(origin_low);
        run = Sums(run.a + high, run.b + low);
        let scaled = Word(unit) * pair.above;
        products_run = Sums(products_run.a + (high + low) * scaled, products_run.b + scaled * scaled);
        if (ends_lane_run(w)) {
            sums = and_run(sums, run);
            run = no_sums();
            products = and_run(products, products_run);
            products_run = no_sums();
        }
    }
    let means = reduce_pair(lane_sums(sums, run), local) / count;
    let product = reduce_pair(lane_sums(products, products_run), local);
    let c = unit * ratio(product.x, product.y);
    let pivot = origin + means.x;
    let offset = origin_low + means.y;

    sums = no_totals();
    run = no_sums();
    for (var w = lane; w < words.size; w = w + LANES) {
        var pair = own;
        if (w != lane) {
            pair = pair_at(words, w, group);
        }
        let rest = rounded_word(gradient_above(pair.grad, pivot, offset) - Word(c) * pair.above);
        run = Sums(run.a + rest, run.b + rest * (Word(unit) * pair.above));
        if (ends_lane_run(w)) {
            sums = and_run(sums, run);
            run = no_sums();
        }
    }
    // What is left of dy, and of its products with z.
    let left = reduce_pair(lane_sums(sums, run), local);
    if (!active_item || lane != 0u) {
        return;
    }
    let c_left = unit * ratio(left.y, product.y);
    // #if affine_terms
    // The mean of dy has its remainder in `left`, unless that has a NaN of x: none of it is dy's.
    let of_x = (bitcast<u32>(left.x) & 0x7fffffffu) > 0x7f800000u;
    let sum = (count * pivot + count * offset) + select(left.x, 0.0, of_x);
    affine_terms[item] = GradientPair(sum, (group.rstd * (product.x + left.y)) / unit);
    // #end
    let variance = product.y / ((degrees_of_freedom(count) * unit) * unit);
    let kept = (c + c_left) * ratio(params.eps, variance + params.eps);
    group_gradients[item] = stored_group_gradient(GroupGradient(
        group.mean_pivot,
        group.mean_offset,
        group.mean_rest,
        group.rstd,
        pivot,
        offset,
        left.x / count,
        c,
        c_left - kept,
        group.rstd * group.weight,
        0.0,
        0.0,
    ));
}

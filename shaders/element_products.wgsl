// Backward 1 and 2 in one, for short rows. LANES invocations own one group in SAMPLES samples: what the group part
// makes of dy, and its terms of the gradients of weight and bias where these are per group. One read of x
// and one of dy from memory. HELD words, and SAMPLES, as in element_affine.
//
// As group_fold_backward, where every element is a row.
@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> channels: array<StoredChannel>;
@group(0) @binding(4) var<storage, read> groups: array<Group>;
@group(0) @binding(5) var<storage, read_write> affine_terms: array<GradientPair>;
@group(0) @binding(6) var<storage, read_write> group_gradients: array<StoredGroupGradient>;

// A word's z less its mean, and its dy.
struct Pair {
    above: Word,
    grad: Gradient,
}

fn pair_at(words: GroupWords, sample: SampleWords, w: u32, known: ElementChannels, group: Group) -> Pair {
    let safe = min(w, words.size - 1u);
    let i = sample.base + safe;
    let own = word_channels(words, safe, known);
    let z = z_of(load_x(i, WIDTH), own);
    let gradient = gradient_of(load_grad_y(i, WIDTH), own);
    return Pair(above_mean(z, group.mean_pivot, group.mean_offset, group.mean_rest), gradient);
}

// dy's mean as pivot + offset, z's multiple in it, and what that is of: sums of products with z, and of its squares, z
// being multiplied by square_unit.
struct Projection {
    pivot: f32,
    offset: f32,
    product: f32,
    spread: f32,
    c: f32,
}

// left: the sums of what is left of dy, and of its products with z.
fn put(sample: SampleWords, group: Group, found: Projection, left: vec2<f32>, count: f32) {
    if (!sample.there) {
        return;
    }
    let unit = square_unit(count);
    let shift = left.x / count;
    let c_left = unit * ratio(left.y, found.spread);
    if (HAS_AFFINE_TERMS) {
        // The mean of dy has its remainder in `left`, unless that has a NaN of x: none of it is dy's.
        let of_x = (bitcast<u32>(left.x) & 0x7fffffffu) > 0x7f800000u;
        let sum = (count * found.pivot + count * found.offset) + select(left.x, 0.0, of_x);
        affine_terms[sample.item] = GradientPair(sum, (group.rstd * (found.product + left.y)) / unit);
    }
    let variance = found.spread / ((degrees_of_freedom(count) * unit) * unit);
    let kept = (found.c + c_left) * ratio(params.eps, variance + params.eps);
    group_gradients[sample.item] = stored_group_gradient(GroupGradient(
        group.mean_pivot,
        group.mean_offset,
        group.mean_rest,
        group.rstd,
        found.pivot,
        found.offset,
        shift,
        found.c,
        c_left - kept,
        group.rstd * group.weight,
        0.0,
        0.0,
    ));
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
    let words = group_words(min(item, params.items - 1u));
    let count = f32(words.size * WIDTH);
    let unit = square_unit(count);
    let s$ = sample_words(words, $u);
    let group$ = groups[s$.item];

    // Mean of dy over the group, about its first element; and z's multiple in dy about that, which is the multiple in dy
    // less its mean: z less its own has none. It is projected out twice: see group_fold_backward.
    let of_first = element_channels(words.first);
    var p# = pair_at(words, s$, lane + behind(#u), of_first, group$);
    // The same where all are lane 0's.
    var first$ = p$.grad;
    if (LANES > 1u) {
        first$ = pair_at(words, s$, 0u, of_first, group$).grad;
    }
    let origin$ = word_at(first$.pivot, 0u);
    let origin_low$ = word_at(first$.offset, 0u);
    var sums$ = no_totals();
    var run$ = no_sums();
    var products$ = no_totals();
    var products_run$ = no_sums();
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            let known = shared_channels(words, w, of_first);
            p# = pair_at(words, s$, w + behind(#u), known, group$);
        }
        let high# = rounded_words(p#.grad.pivot - Word(origin$));
        let low# = p#.grad.offset - Word(origin_low$);
        run$ = with_word(run$, words, w + behind(#u), high#, low#);
        let scaled# = Word(unit) * p#.above;
        let product# = (high# + low#) * scaled#;
        products_run$ = with_word(products_run$, words, w + behind(#u), product#, scaled# * scaled#);
        if (ends_run(i)) {
            sums$ = and_run(sums$, run$);
            run$ = no_sums();
            products$ = and_run(products$, products_run$);
            products_run$ = no_sums();
        }
    }
    let means$ = reduce_pair(lane_sums(sums$, run$), local) / count;
    let product_sums$ = reduce_pair(lane_sums(products$, products_run$), local);
    let c$ = unit * ratio(product_sums$.x, product_sums$.y);
    let pivot$ = origin$ + means$.x;
    let offset$ = origin_low$ + means$.y;

    sums$ = no_totals();
    run$ = no_sums();
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            let known = shared_channels(words, w, of_first);
            p# = pair_at(words, s$, w + behind(#u), known, group$);
        }
        let rest# = rounded_words(gradient_above(p#.grad, pivot$, offset$) - Word(c$) * p#.above);
        run$ = with_word(run$, words, w + behind(#u), rest#, rest# * (Word(unit) * p#.above));
        if (ends_run(i)) {
            sums$ = and_run(sums$, run$);
            run$ = no_sums();
        }
    }
    let left$ = reduce_pair(lane_sums(sums$, run$), local);
    if (!active_item || lane != 0u) {
        return;
    }
    put(s$, group$, Projection(pivot$, offset$, product_sums$.x, product_sums$.y, c$), left$, count);
}

// Backward 1 and 2 in one, for short rows. LANES invocations own one (sample, group): what the group part makes of dy,
// and its terms of the gradients of weight and bias where these are per group. One read of x and one of dy, where
// a group's words are a chunk of each lane (see layout/group_words.wgsl).
//
// As group_fold_backward, where every element is a row.
// #import spec
// #import params/elements
// #import tables
// #import storage/f32
// #import arithmetic/precise
// #import arithmetic/word_sums
// #import layout/item
// #import layout/elements
// #import layout/group_words
// #import reduction/serial

@group(0) @binding(3) var<storage, read> x: array<Stored>;
@group(0) @binding(4) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(5) var<storage, read> groups: array<Group>;
// #if affine_terms
@group(0) @binding(6) var<storage, read_write> affine_terms: array<GradientPair>;
// #end
@group(0) @binding(7) var<storage, read_write> group_gradients: array<StoredGroupGradient>;

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

struct Chunk {
    w0: Pair,
    w1: Pair,
    w2: Pair,
    w3: Pair,
}

fn chunk_at(words: GroupWords, w: u32, group: Group) -> Chunk {
    return Chunk(
        pair_at(words, word_or_last(words, w), group),
        pair_at(words, word_or_last(words, w + LANES), group),
        pair_at(words, word_or_last(words, w + 2u * LANES), group),
        pair_at(words, word_or_last(words, w + 3u * LANES), group),
    );
}

// Sums of dy less a first one, as pivots and offsets; and of its products with z, and of z's squares, z being multiplied
// by square_unit.
struct ProductSums {
    grad: Sums,
    product: Sums,
}

fn with_pair(sums: ProductSums, words: GroupWords, w: u32, pair: Pair, first: vec2<f32>, unit: f32) -> ProductSums {
    let high = rounded_word(pair.grad.pivot - Word(first.x));
    let low = pair.grad.offset - Word(first.y);
    let scaled = Word(unit) * pair.above;
    return ProductSums(
        with_word(sums.grad, words, w, high, low),
        with_word(sums.product, words, w, (high + low) * scaled, scaled * scaled),
    );
}

fn with_chunk_pair(sums: ProductSums, words: GroupWords, w: u32, chunk: Chunk, first: vec2<f32>, unit: f32) -> ProductSums {
    var run = with_pair(sums, words, w, chunk.w0, first, unit);
    run = with_pair(run, words, w + LANES, chunk.w1, first, unit);
    run = with_pair(run, words, w + 2u * LANES, chunk.w2, first, unit);
    return with_pair(run, words, w + 3u * LANES, chunk.w3, first, unit);
}

// dy's mean, z's multiple in dy less its mean.
struct Projection {
    pivot: f32,
    offset: f32,
    c: f32,
}

// Sums of what the projection leaves of dy, and of its products with z.
fn with_rest(sums: Sums, words: GroupWords, w: u32, pair: Pair, found: Projection, unit: f32) -> Sums {
    let rest = rounded_word(gradient_above(pair.grad, found.pivot, found.offset) - Word(found.c) * pair.above);
    return with_word(sums, words, w, rest, rest * (Word(unit) * pair.above));
}

fn with_chunk_rest(sums: Sums, words: GroupWords, w: u32, chunk: Chunk, found: Projection, unit: f32) -> Sums {
    var run = with_rest(sums, words, w, chunk.w0, found, unit);
    run = with_rest(run, words, w + LANES, chunk.w1, found, unit);
    run = with_rest(run, words, w + 2u * LANES, chunk.w2, found, unit);
    return with_rest(run, words, w + 3u * LANES, chunk.w3, found, unit);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn element_products(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = item_index(workgroup, num_workgroups, local);
    let lane = local % LANES;
    let active_item = item < params.dispatch.items;
    let safe_item = min(item, params.dispatch.items - 1u);
    let words = group_words(safe_item);
    let group = groups[safe_item];
    let count = f32(words.size * WIDTH);
    let unit = square_unit(count);

    // Mean of dy over the group, about its first element; and z's multiple in dy about that, which is the multiple in dy
    // less its mean: z less its own has none. It is projected out twice: see group_fold_backward.
    let first_word = pair_at(words, 0u, group).grad;
    let first = vec2<f32>(word_at(first_word.pivot, 0u), word_at(first_word.offset, 0u));
    let own = chunk_at(words, lane, group);
    var sums = no_totals();
    var products = no_totals();
    var run = with_chunk_pair(ProductSums(no_sums(), no_sums()), words, lane, own, first, unit);
    for (var i = 1u; i < words.chunks; i = i + 1u) {
        let w = chunk_word(i, lane);
        run = with_chunk_pair(run, words, w, chunk_at(words, w, group), first, unit);
        if (ends_run(i)) {
            sums = and_run(sums, run.grad);
            products = and_run(products, run.product);
            run = ProductSums(no_sums(), no_sums());
        }
    }
    let means = reduce_pair(lane_sums(sums, run.grad), local) / count;
    let product = reduce_pair(lane_sums(products, run.product), local);
    let found = Projection(first.x + means.x, first.y + means.y, unit * ratio(product.x, product.y));

    sums = no_totals();
    var rest = with_chunk_rest(no_sums(), words, lane, own, found, unit);
    for (var i = 1u; i < words.chunks; i = i + 1u) {
        let w = chunk_word(i, lane);
        rest = with_chunk_rest(rest, words, w, chunk_at(words, w, group), found, unit);
        if (ends_run(i)) {
            sums = and_run(sums, rest);
            rest = no_sums();
        }
    }
    // What is left of dy, and of its products with z.
    let left = reduce_pair(lane_sums(sums, rest), local);
    if (!active_item || lane != 0u) {
        return;
    }
    let c_left = unit * ratio(left.y, product.y);
    // #if affine_terms
    // The mean of dy has its remainder in `left`, unless that has a NaN of x: none of it is dy's.
    let of_x = (bitcast<u32>(left.x) & 0x7fffffffu) > 0x7f800000u;
    let sum = (count * found.pivot + count * found.offset) + select(left.x, 0.0, of_x);
    affine_terms[item] = GradientPair(sum, (group.rstd * (product.x + left.y)) / unit);
    // #end
    let variance = product.y / ((degrees_of_freedom(params.norm, count) * unit) * unit);
    let kept = (found.c + c_left) * ratio(params.norm.eps, variance + params.norm.eps);
    group_gradients[item] = stored_group_gradient(GroupGradient(
        group.mean_pivot,
        group.mean_offset,
        group.mean_rest,
        group.rstd,
        found.pivot,
        found.offset,
        left.x / count,
        found.c,
        c_left - kept,
        group.rstd * group.weight,
        0.0,
        0.0,
    ));
}

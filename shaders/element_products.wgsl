// Backward 1 and 2 in one, for short rows. LANES invocations own one (sample, group): what the group part
// makes of dy, and its terms of the gradients of weight and bias where these are per group. One read of x
// and one of dy from memory. HELD words as in element_affine.
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

fn pair_at(words: GroupWords, w: u32, of_first: ElementChannels, group: Group) -> Pair {
    let safe = min(w, words.size - 1u);
    let i = words.base + safe;
    let known = word_channels(words, safe, of_first);
    let z = z_of(load_x(i, WIDTH), known);
    let gradient = gradient_of(load_grad_y(i, WIDTH), known);
    return Pair(above_mean(z, group.mean_pivot, group.mean_offset, group.mean_rest), gradient);
}

// Sums of a word over what each loop adds up; behind the group's last word, 0.
struct Sums {
    a: Word,
    b: Word,
}

fn added(words: GroupWords, w: u32, sums: Sums, a: Word, b: Word) -> Sums {
    let zero = Word(0.0);
    let counts = w < words.size;
    return Sums(sums.a + select(zero, a, counts), sums.b + select(zero, b, counts));
}

fn means_of(words: GroupWords, w: u32, sums: Sums, pair: Pair, origin: f32, origin_low: f32) -> Sums {
    let high = rounded_words(pair.grad.pivot - Word(origin));
    return added(words, w, sums, high, pair.grad.offset - Word(origin_low));
}

fn projected(words: GroupWords, w: u32, sums: Sums, pair: Pair, pivot: f32, offset: f32) -> Sums {
    let grad = gradient_above(pair.grad, pivot, offset);
    return added(words, w, sums, grad * pair.above, pair.above * pair.above);
}

fn remaining(words: GroupWords, w: u32, sums: Sums, pair: Pair, pivot: f32, offset: f32, c: f32) -> Sums {
    let rest = rounded_words(gradient_above(pair.grad, pivot, offset) - Word(c) * pair.above);
    return added(words, w, sums, rest, rest * pair.above);
}

// a / b; 0 where b is 0: a group without spread has nothing to project out.
fn ratio(a: f32, b: f32) -> f32 {
    return select(a / b, 0.0, b == 0.0);
}

fn total(sums: Sums, local: u32) -> vec2<f32> {
    return reduce_pair(vec2<f32>(word_sum(sums.a), word_sum(sums.b)), local);
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
    let count = f32(words.size * WIDTH);
    let group = groups[safe_item];
    let none = Sums(Word(0.0), Word(0.0));

    // Mean of dy over the group, about its first element.
    let of_first = element_channels(words.first);
    var p# = pair_at(words, lane + #u * LANES, of_first, group);
    // The same where all are lane 0's.
    var grad_first = p0.grad;
    if (LANES > 1u) {
        grad_first = pair_at(words, 0u, of_first, group).grad;
    }
    let origin = word_at(grad_first.pivot, 0u);
    let origin_low = word_at(grad_first.offset, 0u);
    var sums = none;
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            p# = pair_at(words, w + #u * LANES, of_first, group);
        }
        var of_words = none;
        of_words = means_of(words, w + #u * LANES, of_words, p#, origin, origin_low);
        sums = Sums(sums.a + of_words.a, sums.b + of_words.b);
    }
    let means = total(sums, local) / count;
    let pivot = origin + means.x;
    let offset = origin_low + means.y;

    // z's multiple in dy, projected out twice: see group_fold_backward.
    sums = none;
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            p# = pair_at(words, w + #u * LANES, of_first, group);
        }
        var of_words = none;
        of_words = projected(words, w + #u * LANES, of_words, p#, pivot, offset);
        sums = Sums(sums.a + of_words.a, sums.b + of_words.b);
    }
    let projection = total(sums, local);
    let spread = projection.y;
    let c = ratio(projection.x, spread);
    sums = none;
    for (var i = 0u; i < words.chunks; i = i + 1u) {
        let w = i * (WORDS * LANES) + lane;
        if (HELD == 0u) {
            p# = pair_at(words, w + #u * LANES, of_first, group);
        }
        var of_words = none;
        of_words = remaining(words, w + #u * LANES, of_words, p#, pivot, offset, c);
        sums = Sums(sums.a + of_words.a, sums.b + of_words.b);
    }
    let left = total(sums, local);
    if (!active_item || lane != 0u) {
        return;
    }
    let shift = left.x / count;
    let c_left = ratio(left.y, spread);
    if (HAS_AFFINE_TERMS) {
        // The mean of dy has its remainder in `left`, unless that has a NaN of x: none of it is dy's.
        let of_x = (bitcast<u32>(left.x) & 0x7fffffffu) > 0x7f800000u;
        let sum = (count * pivot + count * offset) + select(left.x, 0.0, of_x);
        affine_terms[item] = GradientPair(sum, group.rstd * projection.x);
    }
    let variance = spread / degrees_of_freedom(count);
    let kept = (c + c_left) * ratio(params.eps, variance + params.eps);
    group_gradients[item] = stored_group_gradient(GroupGradient(
        group.mean_pivot,
        group.mean_offset,
        group.mean_rest,
        group.rstd,
        pivot,
        offset,
        shift,
        c,
        c_left - kept,
        group.rstd * group.weight,
        0.0,
        0.0,
    ));
}

// Reduction over SUBGROUP_SIZE lanes by shuffles, as a fixed tree; every lane gets the result. Of the two lanes of
// a shuffle, the lower's value comes first: both get the same bits, those of the tree in shared.wgsl.
//
// SUBGROUP_SIZE is that of the device's smallest subgroups, or LANES if that is less; in larger ones the same
// happens. Invocations whose local indices differ below SUBGROUP_SIZE only must be in one subgroup, in this order:
// drivers do so with workgroups of one dimension, WGSL does not say so (see Tuning::subgroup_size).
// #import spec
// #import tables
// #import arithmetic/moments

fn is_upper(local: u32, stride: u32) -> bool {
    return (local & stride) != 0u;
}

fn moments_words(value: Moments) -> vec4<u32> {
    return vec4<u32>(
        value.count,
        bitcast<u32>(value.pivot),
        bitcast<u32>(value.offset),
        bitcast<u32>(value.variance),
    );
}

fn words_moments(words: vec4<u32>) -> Moments {
    let values = bitcast<vec3<f32>>(words.yzw);
    return Moments(words.x, values.x, values.y, values.z);
}

fn shuffled_moments(value: Moments, local: u32) -> Moments {
    var result = value;
    for (var stride = 1u; stride < SUBGROUP_SIZE; stride = stride * 2u) {
        let own = moments_words(result);
        let other = subgroupShuffleXor(own, stride);
        let upper = is_upper(local, stride);
        result = merge_moments(
            words_moments(select(own, other, upper)),
            words_moments(select(other, own, upper)),
        );
    }
    return result;
}

fn products_words(value: Products) -> vec4<u32> {
    return vec4<u32>(
        bitcast<u32>(value.pivot),
        bitcast<u32>(value.offset),
        bitcast<u32>(value.x_mean),
        bitcast<u32>(value.covariance),
    );
}

fn words_products(count: u32, words: vec4<u32>) -> Products {
    let values = bitcast<vec4<f32>>(words);
    return Products(count, values.x, values.y, values.z, values.w);
}

fn shuffled_products(value: Products, local: u32) -> Products {
    var result = value;
    for (var stride = 1u; stride < SUBGROUP_SIZE; stride = stride * 2u) {
        let own = products_words(result);
        let own_count = result.count;
        let other = subgroupShuffleXor(own, stride);
        let other_count = subgroupShuffleXor(own_count, stride);
        let upper = is_upper(local, stride);
        result = merge_products(
            words_products(select(own_count, other_count, upper), select(own, other, upper)),
            words_products(select(other_count, own_count, upper), select(other, own, upper)),
        );
    }
    return result;
}

// A sum does not mind which comes first.
fn shuffled_pair(value: vec2<f32>) -> vec2<f32> {
    var result = value;
    for (var stride = 1u; stride < SUBGROUP_SIZE; stride = stride * 2u) {
        result = result + subgroupShuffleXor(result, stride);
    }
    return result;
}

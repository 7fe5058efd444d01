// Backward 1 with channels last. LANES invocations own one word of channels over one part of a
// sample's positions and write the mean of dy and its covariance with u = x - row mean, a row a channel.
// One read of x, one of dy; with an activation one of the residual, and dy is what it makes of dy.
//
// As in row_products, for each channel: a chunk's dy are taken about the chunk's first one, then merged.
// #import spec
// #import params/columns
// #import tables
// #import storage/f32
// #import arithmetic/activation
// #import arithmetic/column_moments
// #import layout/column
// #import reduction/columns_serial

@group(0) @binding(1) var<storage, read> x: array<Stored>;
@group(0) @binding(2) var<storage, read> grad_y: array<Stored>;
@group(0) @binding(3) var<storage, read> rows: array<StoredMoments>;
// #if coefficients
@group(0) @binding(4) var<storage, read> coefficients: array<StoredAffine>;
// #end
// #if residual
@group(0) @binding(5) var<storage, read> residual: array<Stored>;
// #end
@group(0) @binding(6) var<storage, read_write> product_parts: array<Products>;

// Positions of a chunk, LANES apart.
const CHUNK: u32 = 8u;

// What is known of the rows of a word's channels: their means, their maps forward.
struct Rows {
    pivot: Word,
    offset: Word,
    affine: ColumnAffine,
}

fn with_row(known: Rows, i: u32, row: u32) -> Rows {
    let moments = moments_of(rows[row]);
    var affine = known.affine;
    // #if coefficients
    affine = with_affine(affine, i, affine_of(coefficients[row]));
    // #end
    return Rows(
        with_element(known.pivot, i, moments.pivot),
        with_element(known.offset, i, moments.offset),
        affine,
    );
}

fn known_rows(span: ColumnSpan) -> Rows {
    let zero = Word(0.0);
    var known = Rows(zero, zero, ColumnAffine(zero, zero, zero, zero));
    known = with_row(known, 0u, span.row);
    if (WIDTH > 1u) {
        known = with_row(known, 1u, span.row + 1u);
    }
    if (WIDTH > 2u) {
        known = with_row(known, 2u, span.row + 2u);
        known = with_row(known, 3u, span.row + 3u);
    }
    return known;
}

struct Position {
    // x - row mean.
    u: Word,
    grad: Word,
}

// The k-th of a chunk of `count`; behind its last, the first one again.
fn chunk_position(known: Rows, first: u32, k: u32, count: u32) -> Position {
    let i = select(first, first + k * (LANES * params.split.words_per_position), k < count);
    let word = load(x[slot(i)], i);
    var grad = load(grad_y[slot(i)], i);
    // #if coefficients
    var t = normalized_columns(word, known.affine);
    // #if residual
    t = t + load(residual[slot(i)], i);
    // #end
    grad = activation_gradient(t, grad);
    // #end
    return Position(rounded_word(word - known.pivot) - known.offset, grad);
}

// Where `count` is CHUNK itself, nothing is left of the masks.
fn chunk_products(known: Rows, first: u32, count: u32) -> ColumnProducts {
    let p0 = chunk_position(known, first, 0u, count);
    let p1 = chunk_position(known, first, 1u, count);
    let p2 = chunk_position(known, first, 2u, count);
    let p3 = chunk_position(known, first, 3u, count);
    let p4 = chunk_position(known, first, 4u, count);
    let p5 = chunk_position(known, first, 5u, count);
    let p6 = chunk_position(known, first, 6u, count);
    let p7 = chunk_position(known, first, 7u, count);
    let zero = Word(0.0);
    let u0 = p0.u;
    let u1 = select(zero, p1.u, 1u < count);
    let u2 = select(zero, p2.u, 2u < count);
    let u3 = select(zero, p3.u, 3u < count);
    let u4 = select(zero, p4.u, 4u < count);
    let u5 = select(zero, p5.u, 5u < count);
    let u6 = select(zero, p6.u, 6u < count);
    let u7 = select(zero, p7.u, 7u < count);
    let pivot = p0.grad;
    let v0 = rounded_word(pivot - pivot);
    let v1 = select(zero, rounded_word(p1.grad - pivot), 1u < count);
    let v2 = select(zero, rounded_word(p2.grad - pivot), 2u < count);
    let v3 = select(zero, rounded_word(p3.grad - pivot), 3u < count);
    let v4 = select(zero, rounded_word(p4.grad - pivot), 4u < count);
    let v5 = select(zero, rounded_word(p5.grad - pivot), 5u < count);
    let v6 = select(zero, rounded_word(p6.grad - pivot), 6u < count);
    let v7 = select(zero, rounded_word(p7.grad - pivot), 7u < count);
    let n = f32(count);
    let offset = (((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7))) / n;
    let u = ((u0 + u1) + (u2 + u3)) + ((u4 + u5) + (u6 + u7));
    let low = (v0 * u0 + v1 * u1) + (v2 * u2 + v3 * u3);
    let high = (v4 * u4 + v5 * u5) + (v6 * u6 + v7 * u7);
    return ColumnProducts(count, pivot, offset, u / n, ((low + high) - offset * u) / n);
}

// After a chunk more.
fn and_chunk(products: ColumnProducts, span: ColumnSpan, known: Rows, first: u32, count: u32) -> ColumnProducts {
    return merge_column_products(products, chunk_products(known, column_word(span, first), count));
}

fn put(span: ColumnSpan, products: ColumnProducts) {
    for (var i = 0u; i < WIDTH; i = i + 1u) {
        product_parts[(span.row + i) * params.split.parts + span.part] = Products(
            products.count,
            word_at(products.pivot, i),
            word_at(products.offset, i),
            word_at(products.x_mean, i),
            word_at(products.covariance, i),
        );
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn column_products(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = column_item(workgroup, num_workgroups, local);
    let lane = column_lane(local);
    let active_item = item < params.dispatch.items;
    let span = column_span(min(item, params.dispatch.items - 1u));
    var known: array<Rows, COLUMN_WORDS>;
    for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
        known[k] = known_rows(neighbour_span(span, k));
    }

    var products: array<ColumnProducts, COLUMN_WORDS>;
    let chunks = (span.end - span.begin) / (CHUNK * LANES);
    for (var i = 0u; i < chunks; i = i + 1u) {
        let first = span.begin + i * (CHUNK * LANES) + lane;
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            products[k] = and_chunk(products[k], neighbour_span(span, k), known[k], first, CHUNK);
        }
    }
    // At most CHUNK positions a lane are left.
    let first = span.begin + chunks * (CHUNK * LANES) + lane;
    if (first < span.end) {
        let count = (span.end - first + LANES - 1u) / LANES;
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            products[k] = and_chunk(products[k], neighbour_span(span, k), known[k], first, count);
        }
    }
    // With more words there is one lane.
    products[0] = reduce_column_products(products[0], local);
    if (active_item && lane == 0u) {
        for (var k = 0u; k < COLUMN_WORDS; k = k + 1u) {
            put(neighbour_span(span, k), products[k]);
        }
    }
}

// Reduction over one lane: nothing to do, and no barrier.
// #import arithmetic/column_moments

fn reduce_column_moments(value: ColumnMoments, local: u32) -> ColumnMoments {
    return value;
}

fn reduce_column_products(value: ColumnProducts, local: u32) -> ColumnProducts {
    return value;
}

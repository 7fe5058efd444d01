// The uniform of the kernels that shorten a table.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    table: Table,
}

@group(0) @binding(0) var<uniform> params: Params;

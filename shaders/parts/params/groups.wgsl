// The uniform of the kernels on tables of groups and rows.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    norm: Norm,
    shape: Shape,
}

@group(0) @binding(0) var<uniform> params: Params;

// The uniform of the kernels on groups and rows that write terms of the parameters' gradients.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    norm: Norm,
    shape: Shape,
    table: Table,
}

@group(0) @binding(0) var<uniform> params: Params;

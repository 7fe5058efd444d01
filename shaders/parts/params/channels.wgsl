// The uniform of the kernels on channels.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    norm: Norm,
    table: Table,
}

@group(0) @binding(0) var<uniform> params: Params;

// The uniform of the kernels on rows of a tensor with channels first.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    split: RowSplit,
}

@group(0) @binding(0) var<uniform> params: Params;

// The uniform of the kernels on a tensor with channels last.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    split: ColumnSplit,
}

@group(0) @binding(0) var<uniform> params: Params;

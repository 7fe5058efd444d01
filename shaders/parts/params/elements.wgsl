// The uniform of the kernels on groups of elements.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    norm: Norm,
    groups: ElementGroups,
}

@group(0) @binding(0) var<uniform> params: Params;

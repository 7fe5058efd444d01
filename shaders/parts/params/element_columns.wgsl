// The uniform of the kernels on elements as columns over the samples.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    norm: Norm,
    groups: ElementGroups,
    split: SampleSplit,
}

@group(0) @binding(0) var<uniform> params: Params;

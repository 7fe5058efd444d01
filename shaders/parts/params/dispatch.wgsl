// The least uniform: what all have.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
}

@group(0) @binding(0) var<uniform> params: Params;

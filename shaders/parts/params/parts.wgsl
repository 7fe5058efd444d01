// The uniform of the kernels that merge the parts of every row.
// #import params/blocks

struct Params {
    dispatch: Dispatch,
    // Parts of a row.
    @size(16) parts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

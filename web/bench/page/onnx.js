// ONNX models of BCNorm in evaluation.

import { EPS } from "/app/reference.js";
import { model, node, tensor } from "./onnx-file.js";
import { running } from "./ours.js";
import { transposed } from "./transposed.js";

/** A batch norm with known statistics is a multiplication and an addition, as converters fold it. */
function affine(p, shape) {
  const { mean, variance } = running(p.dims[1]);
  const scale = p.bnWeight.map((weight, c) => weight / Math.sqrt(variance[c] + EPS));
  const shift = p.bnBias.map((bias, c) => bias - mean[c] * scale[c]);
  return {
    nodes: [node("Mul", ["x", "scale"], ["scaled"]), node("Add", ["scaled", "shift"], ["z"])],
    initializers: [tensor("scale", shape, scale), tensor("shift", shape, shift)],
  };
}

const integers = (name, values) => tensor(name, [values.length], BigInt64Array.from(values, BigInt));

const first = (p) => {
  const [samples, channels] = p.dims;
  return { shape: [samples, channels, p.x.length / samples / channels], to: (x) => x, from: (y) => y };
};

/** The group part by the textbook; what is not tensor-sized comes first, so that few ops touch tensors. */
function decomposed(p, { shape, channel, grouped, group, axes }) {
  const { nodes, initializers } = affine(p, channel);
  return model(
    [
      ...nodes,
      node("Reshape", ["z", "grouped"], ["zg"]),
      node("ReduceMean", ["zg"], ["mu"], { axes, keepdims: 1 }),
      node("Sub", ["zg", "mu"], ["d"]),
      node("Mul", ["d", "d"], ["dd"]),
      node("ReduceMean", ["dd"], ["v"], { axes, keepdims: 1 }),
      node("Add", ["v", "eps"], ["ve"]),
      node("Sqrt", ["ve"], ["s"]),
      node("Div", ["weight", "s"], ["factor"]),
      node("Mul", ["d", "factor"], ["yw"]),
      node("Add", ["yw", "bias"], ["yg"]),
      node("Reshape", ["yg", "whole"], ["y"]),
    ],
    [
      ...initializers,
      integers("grouped", grouped),
      integers("whole", shape),
      tensor("eps", [1], Float32Array.of(EPS)),
      tensor("weight", group, p.weight),
      tensor("bias", group, p.bias),
    ],
    shape,
  );
}

/** By name: the model of a problem (see reference.js), its tensors' shape, and the way to its layout and back. */
export const MODELS = {
  decomposed(p) {
    const layout = first(p);
    const [samples, channels, len] = layout.shape;
    const per = (channels / p.groups) * len;
    const how = { ...layout, channel: [1, channels, 1], grouped: [samples, p.groups, per], group: [1, p.groups, 1], axes: [2] };
    return { ...layout, bytes: decomposed(p, how) };
  },

  decomposedLast(p) {
    const [samples, channels, len] = first(p).shape;
    const layout = {
      shape: [samples, len, channels],
      to: (x) => transposed(x, samples, channels, len),
      from: (y) => transposed(y, samples, len, channels),
    };
    const grouped = [samples, len, p.groups, channels / p.groups];
    const how = { ...layout, channel: [channels], grouped, group: [1, 1, p.groups, 1], axes: [1, 3] };
    return { ...layout, bytes: decomposed(p, how) };
  },

  /** The group part as a layer norm over the group, then the affine of groups. */
  layer(p) {
    const layout = first(p);
    const [samples, channels, len] = layout.shape;
    const per = (channels / p.groups) * len;
    const { nodes, initializers } = affine(p, [1, channels, 1]);
    const bytes = model(
      [
        ...nodes,
        node("Reshape", ["z", "grouped"], ["zg"]),
        node("LayerNormalization", ["zg", "ones"], ["hat"], { axis: -1, epsilon: EPS }),
        node("Mul", ["hat", "weight"], ["yw"]),
        node("Add", ["yw", "bias"], ["yg"]),
        node("Reshape", ["yg", "whole"], ["y"]),
      ],
      [
        ...initializers,
        integers("grouped", [samples, p.groups, per]),
        integers("whole", layout.shape),
        tensor("ones", [per], new Float32Array(per).fill(1)),
        tensor("weight", [1, p.groups, 1], p.weight),
        tensor("bias", [1, p.groups, 1], p.bias),
      ],
      layout.shape,
    );
    return { ...layout, bytes };
  },

  /** The group part as an instance norm of groups as channels. */
  instance(p) {
    // Four dimensions, as the layout-sensitive kernels want them.
    const layout = { ...first(p), shape: p.dims };
    const [samples, channels] = p.dims;
    const { mean, variance } = running(channels);
    const per = p.x.length / samples / p.groups;
    const bytes = model(
      [
        node("BatchNormalization", ["x", "bn_weight", "bn_bias", "mean", "var"], ["z"], { epsilon: EPS }),
        node("Reshape", ["z", "grouped"], ["zg"]),
        node("InstanceNormalization", ["zg", "weight", "bias"], ["yg"], { epsilon: EPS }),
        node("Reshape", ["yg", "whole"], ["y"]),
      ],
      [
        integers("grouped", [samples, p.groups, per]),
        integers("whole", p.dims),
        tensor("bn_weight", [channels], p.bnWeight),
        tensor("bn_bias", [channels], p.bnBias),
        tensor("mean", [channels], mean),
        tensor("var", [channels], variance),
        tensor("weight", [p.groups], p.weight),
        tensor("bias", [p.groups], p.bias),
      ],
      p.dims,
    );
    return { ...layout, bytes };
  },
};

// A user's types in tf.js.
import * as core from "@tensorflow/tfjs-core";
import * as layers from "@tensorflow/tfjs-layers";
import { attach, type Bcnorm, type NormLayer } from "bcnorm/tfjs";

export async function model(): Promise<core.Tensor> {
  const bcnorm: Bcnorm = await attach({ ...core, ...layers });
  // @ts-expect-error: groups are a number
  bcnorm.layers.bcNorm({ groups: "2" });
  const layer: NormLayer = bcnorm.layers.groupNorm({ groups: 2, activation: "relu" });
  // @ts-expect-error: x is a tensor
  bcnorm.groupNorm([1, 2], { groups: 2 });
  const x: core.Tensor = core.zeros([2, 3, 4]);
  return core.add(layer.apply(x) as core.Tensor, bcnorm.groupNorm(x, { groups: 2 }));
}

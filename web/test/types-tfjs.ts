// Compiled, never run: bcnorm/tfjs as a strict program meets it.
import * as core from "@tensorflow/tfjs-core";
import * as keras from "@tensorflow/tfjs-layers";
import "@tensorflow/tfjs-backend-webgpu";
import { attach, type Bcnorm, type NormLayer } from "bcnorm/tfjs";

/** As @tensorflow/tfjs has them, beside what is of no interest here. */
const tf = { ...core, ...keras };

export async function program(images: core.Tensor, labels: core.Tensor): Promise<void> {
  await tf.setBackend("webgpu");
  const bcnorm: Bcnorm = await attach(tf);
  const model = tf.sequential();
  model.add(tf.layers.conv2d({ inputShape: [28, 28, 1], filters: 32, kernelSize: 3, useBias: false }));
  model.add(bcnorm.layers.bcNorm({ groups: 8, activation: "relu" }));
  model.add(tf.layers.flatten());
  model.add(tf.layers.dense({ units: 10 }));
  model.compile({ optimizer: "adam", loss: tf.losses.softmaxCrossEntropy });
  await bcnorm.prepare(model, 64);
  await model.fit(images, labels, { batchSize: 64, epochs: 1 });

  const layer: NormLayer = bcnorm.layers.batchNorm({ name: "bn", momentum: 0.9, trainable: true, inputShape: [28, 28, 32] });
  await layer.prepare([64, 28, 28, 32], { residual: true });
  const merged = layer.apply([tf.input({ shape: [4] }), tf.input({ shape: [4] })]) as keras.SymbolicTensor;
  const [mean, variance] = [tf.variable(tf.zeros([32])), tf.variable(tf.ones([32]))];
  const y: core.Tensor = bcnorm.batchNorm(images, { movingMean: mean, movingVariance: variance, training: true });
  const filters: core.Tensor = bcnorm.weightStandardization(tf.ones([3, 3, 32, 64]), { epsilon: 1e-5 });
  await attach(tf, { wasm: new URL("planner.wasm", "https://example.org") });
  await attach(core);
  // @ts-expect-error a batch norm has no groups
  bcnorm.batchNorm(images, { groups: 2 });
  // @ts-expect-error nor has its layer
  bcnorm.layers.batchNorm({ groups: 2 });
  // @ts-expect-error estimates have a moving speed
  bcnorm.layers.estBn({});
  // @ts-expect-error running statistics are variables
  bcnorm.batchNorm(images, { movingMean: tf.zeros([32]) });
  // @ts-expect-error there is no such activation
  bcnorm.layers.groupNorm({ activation: "gelu" });
  // @ts-expect-error tf.js is wanted
  await attach({});
  console.log(merged, y, filters);
}

// bcnorm in tf.js beside the same norms composed of tf.js's own operations.

/** Values that are not centred, the same in every run. */
const random = (shape, seed, mean = 0, deviation = 1) => tf.randomNormal(shape, mean, deviation, "float32", seed);

/** Over some axes: (x - mean) / sqrt(variance + epsilon). */
function standardized(x, axes, epsilon) {
  const { mean, variance } = tf.moments(x, axes, true);
  return tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, epsilon)));
}

const affine = (x, gamma, beta) => tf.add(gamma === undefined ? x : tf.mul(x, gamma), beta ?? 0);
const allBut = (x, ...kept) => x.shape.map((_, axis) => axis).filter((axis) => !kept.includes(axis));

/** By groups of channels in each sample. */
function grouped(x, groups, epsilon) {
  const [samples, channels] = [x.shape[0], x.shape.at(-1)];
  const split = tf.reshape(x, [samples, -1, groups, channels / groups]);
  return tf.reshape(standardized(split, [1, 3], epsilon), x.shape);
}

const ACTIVATIONS = { none: (x) => x, relu: tf.relu, silu: (x) => tf.mul(x, tf.sigmoid(x)) };

/** What a number per group is for each channel. */
const perChannel = (values, channels) =>
  values === undefined || values.shape[0] === channels
    ? values
    : tf.reshape(tf.tile(tf.expandDims(values, 1), [1, channels / values.shape[0]]), [channels]);

/** The family by tf.js's operations, of the arguments that bcnorm's functions take; running statistics stay as they are. */
const COMPOSED = {
  batchNorm: (x, { gamma, beta, epsilon = 1e-3 }) => affine(standardized(x, allBut(x, x.rank - 1), epsilon), gamma, beta),
  groupNorm: (x, { gamma, beta, epsilon = 1e-3, groups }) => affine(grouped(x, groups, epsilon), gamma, beta),
  instanceNorm: (x, { gamma, beta, epsilon = 1e-3 }) => affine(standardized(x, allBut(x, 0, x.rank - 1), epsilon), gamma, beta),
  layerNorm: (x, { gamma, beta, epsilon = 1e-3 }) => affine(standardized(x, [x.rank - 1], epsilon), gamma, beta),
  bcNorm: (x, { gamma, beta, channelGamma, channelBeta, epsilon = 1e-3, groups }) => {
    const channels = x.shape.at(-1);
    const z = affine(standardized(x, allBut(x, x.rank - 1), 1e-5), channelGamma, channelBeta);
    return affine(grouped(z, groups, epsilon), perChannel(gamma, channels), perChannel(beta, channels));
  },
  weightStandardization: (x, { epsilon = 1e-5 }) => {
    const axes = allBut(x, x.rank - 1);
    const count = x.size / x.shape.at(-1);
    const centred = tf.sub(x, tf.mean(x, axes, true));
    const variance = tf.div(tf.sum(tf.square(centred), axes, true), count - 1);
    return tf.div(centred, tf.sqrt(tf.add(variance, epsilon)));
  },
};

function composed(name, x, { residual, activation = "none", ...args }) {
  // tf.js's WebGPU backend fails to broadcast to 5 dimensions.
  const flat = x.rank > 4 ? tf.reshape(x, [x.shape[0], -1, x.shape.at(-1)]) : x;
  const y = tf.reshape(COMPOSED[name](flat, args), x.shape);
  return ACTIVATIONS[activation](residual === undefined ? y : tf.add(y, residual));
}

/** How far tensors are apart, relative to the largest value. */
async function apart(one, other) {
  const [a, b] = [await one.data(), await other.data()];
  const scale = b.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
  return a.reduce((most, value, i) => Math.max(most, Number.isNaN(value) ? Infinity : Math.abs(value - b[i])), 0) / scale;
}

/** How far apart values are found that are apart, or not there. */
export async function apartWhere() {
  const of = (...values) => tf.tensor1d(values);
  const pairs = [[of(1, 2), of(1, 2)], [of(1, 2), of(1, 2.001)], [of(1, NaN), of(1, 2)], [of(1, 2), of(1, NaN)]];
  return Promise.all(pairs.map(([one, other]) => apart(one, other)));
}

/**
 * How far y and the gradient of each tensor are from the composition's. `tensors`: the shapes of those that are given
 * beside x, by name.
 */
export async function compare(name, shape, { tensors = {}, ...options }) {
  const given = Object.entries(tensors).map(([key, size], i) => [key, random(size, 3 + i, /gamma/i.test(key) ? 1 : 0, 0.3)]);
  const names = given.map(([key]) => key);
  const inputs = [random(shape, 1, 3, 2), ...given.map(([, tensor]) => tensor)];
  const target = random(shape, 2);
  const call = (norm) => (x, ...rest) => norm(x, { ...options, ...Object.fromEntries(names.map((key, i) => [key, rest[i]])) });
  const both = [call(bcnorm[name]), call((x, args) => composed(name, x, args))];
  const ys = both.map((norm) => norm(...inputs));
  const gradients = both.map((norm) => tf.grads((...all) => tf.sum(tf.mul(norm(...all), target)))(inputs));
  const found = { y: await apart(...ys) };
  for (const [i, key] of ["x", ...names].entries()) {
    found[key] = await apart(gradients[0][i], gradients[1][i]);
  }
  tf.dispose([inputs, target, ys, gradients]);
  return found;
}

/** Some steps of training, then evaluation, of a norm that keeps statistics: how far y, dx and these are from the formulas. */
export async function statistics(name, options, steps) {
  const [mean, variance] = [tf.variable(tf.tensor1d([0.5, -1, 2])), tf.variable(tf.tensor1d([1, 2, 0.5]))];
  const gamma = tf.tensor1d([1, 1.5, -0.5]);
  const epsilon = 1e-3;
  let [expectedMean, expectedVariance] = [mean.clone(), variance.clone()];
  // What shares the variables' first values keeps them.
  const kept = mean.clone();
  const args = { gamma, movingMean: mean, movingVariance: variance, ...options };
  const found = { statistics: 0, y: 0, x: 0 };
  const note = async (what, one, other) => (found[what] = Math.max(found[what], await apart(one, other)));
  for (let step = 0; step <= steps; step++) {
    const training = step < steps;
    const x = random([4, 5, 3], 10 + step, 2, 3);
    let normalize = (x) => tf.mul(tf.div(tf.sub(x, expectedMean), tf.sqrt(tf.add(expectedVariance, epsilon))), gamma);
    if (training) {
      const batch = tf.moments(x, [0, 1]);
      const delta = tf.sub(batch.mean, expectedMean);
      const share = options.movingSpeed ?? 1 - options.momentum;
      const second =
        options.movingSpeed === undefined
          ? tf.mul(batch.variance, 20 / 19)
          : tf.add(batch.variance, tf.square(delta)); // about the old mean
      expectedMean = tf.add(expectedMean, tf.mul(share, delta));
      expectedVariance = tf.add(tf.mul(expectedVariance, 1 - share), tf.mul(share, second));
      if (options.movingSpeed === undefined) {
        normalize = (x) => composed("batchNorm", x, { gamma, epsilon });
      }
    }
    const ours = (x) => bcnorm[name](x, { ...args, training });
    const dy = random(x.shape, 20 + step);
    const [one, other] = [ours, normalize].map((norm) => tf.valueAndGrads(norm)([x], dy));
    await note("y", one.value, other.value);
    await note("x", one.grads[0], other.grads[0]);
    await note("statistics", mean, expectedMean);
    await note("statistics", variance, expectedVariance);
  }
  found.kept = [...(await kept.data())];
  return found;
}

/**
 * Running means of two steps, and between them one that tf.js is told to compile alone: the batch's, and those read before the
 * last step, read while it runs, read after it, and computed with after it.
 */
export async function readWhileMoving() {
  const args = { movingMean: tf.variable(tf.zeros([3])), movingVariance: tf.variable(tf.ones([3])), training: true };
  const x = random([4, 5, 3], 15, 2, 3);
  const step = () => tf.dispose(bcnorm.batchNorm(x, args));
  step();
  tf.env().set("WEBGPU_ENGINE_COMPILE_ONLY", true);
  step();
  tf.env().set("WEBGPU_ENGINE_COMPILE_ONLY", false);
  const copied = tf.add(args.movingMean, 0);
  const reading = args.movingMean.data();
  step();
  const before = await copied.data();
  const batch = await tf.mean(x, [0, 1]).data();
  const means = [batch, before, await reading, await args.movingMean.data(), await tf.add(args.movingMean, 0).data()];
  return means.map((mean) => [...mean]);
}

/** Every tensor that lives, and the bytes that tf.js uses of the GPU's memory. */
function memory() {
  const { numTensors, numBytesInGPU } = tf.memory();
  return { numTensors, numBytesInGPU };
}

/** A small network with a layer of bcnorm's beside one with tf.js's own: their losses, and the memory after each step. */
export async function train(steps) {
  const shape = [8, 8, 3];
  const make = (norm) => {
    const model = tf.sequential();
    const seeds = tf.initializers.glorotNormal({ seed: 5 });
    model.add(tf.layers.conv2d({ inputShape: shape, filters: 8, kernelSize: 3, useBias: false, kernelInitializer: seeds }));
    model.add(norm());
    model.add(tf.layers.reLU());
    model.add(tf.layers.conv2d({ filters: 8, kernelSize: 3, useBias: false, kernelInitializer: seeds }));
    model.add(norm());
    model.add(tf.layers.globalAveragePooling2d({}));
    model.add(tf.layers.dense({ units: 4, activation: "softmax", kernelInitializer: seeds }));
    model.compile({ optimizer: tf.train.adam(0.01), loss: "categoricalCrossentropy" });
    return model;
  };
  const settings = { momentum: 0.9, epsilon: 1e-3 };
  const models = [make(() => bcnorm.layers.batchNorm(settings)), make(() => tf.layers.batchNormalization(settings))];
  const x = random([16, ...shape], 21, 1, 2);
  const labels = tf.oneHot(tf.tensor1d(Array.from({ length: 16 }, (_, i) => i % 4), "int32"), 4);
  const [losses, memories] = [[[], []], [[], []]];
  for (const [i, model] of models.entries()) {
    for (let step = 0; step < steps; step++) {
      losses[i].push(await model.trainOnBatch(x, labels));
      memories[i].push(memory());
    }
  }
  const weights = models.map((model) => model.weights.map(({ name, trainable }) => `${name.split("/").at(-1)} ${trainable}`));
  // The one takes the other's weights.
  models[0].setWeights(models[1].getWeights());
  const predictions = models.map((model) => model.predict(x));
  models.forEach((model) => model.dispose());
  return { losses, memories, weights, apart: await apart(...predictions) };
}

/** One BcNorm layer that stands twice in a network, trained by tf.js's optimizer, beside its composition. */
export async function trainTwice(steps) {
  const layer = bcnorm.layers.bcNorm({ groups: 2, activation: "relu" });
  const x = random([4, 3, 3, 8], 31, 1, 2);
  const target = random([4, 3, 3, 8], 32);
  layer.build(x.shape);
  const [gamma, beta, channelGamma, channelBeta] = layer.trainableWeights.map((weight) => tf.variable(weight.read().clone()));
  const args = { gamma, beta, channelGamma, channelBeta, groups: 2, activation: "relu" };
  const network = (norm) => norm(norm(x, undefined), x);
  const forms = [
    {
      norm: (x, residual) => layer.apply(residual === undefined ? x : [x, residual], { training: true }),
      variables: layer.trainableWeights.map((weight) => weight.read()),
    },
    { norm: (x, residual) => composed("bcNorm", x, { ...args, residual }), variables: Object.values(args).slice(0, 4) },
  ];
  const [losses, memories] = [[[], []], []];
  for (const [i, { norm, variables }] of forms.entries()) {
    const optimizer = tf.train.sgd(0.05);
    for (let step = 0; step < steps; step++) {
      const cost = optimizer.minimize(() => tf.losses.meanSquaredError(target, network(norm)), true, variables);
      losses[i].push((await cost.data())[0]);
      cost.dispose();
      if (i === 0) memories.push(memory());
    }
  }
  const moved = [...(await layer.nonTrainableWeights[0].read().data())];
  return { losses, memories, moved };
}

/** Models with each layer, saved and loaded: how far the predictions are apart, and what the files say. */
export async function roundTrip() {
  const { layers } = bcnorm;
  const found = {};
  const all = {
    batchNorm: layers.batchNorm({
      momentum: 0.8,
      epsilon: 1e-2,
      activation: "silu",
      gammaInitializer: "zeros",
      movingVarianceInitializer: tf.initializers.constant({ value: 4 }),
      betaRegularizer: tf.regularizers.l2({ l2: 0.5 }),
      gammaConstraint: "nonNeg",
    }),
    estBn: layers.estBn({ movingSpeed: 0.25 }),
    groupNorm: layers.groupNorm({ groups: 4, center: false }),
    instanceNorm: layers.instanceNorm({ scale: false }),
    layerNorm: layers.layerNorm({ name: "last" }),
    bcNorm: layers.bcNorm({ groups: 4, channelScale: false, perChannelAffine: true, movingSpeed: 0.5 }),
  };
  for (const [name, layer] of Object.entries(all)) {
    const input = tf.input({ shape: [5, 8] });
    const model = tf.model({ inputs: input, outputs: layer.apply([input, tf.layers.reLU().apply(input)]) });
    const begin = await Promise.all(model.weights.map(async (weight) => (await weight.read().data())[0]));
    model.setWeights(model.weights.map((weight, i) => random(weight.shape, 40 + i, 1, 0.1)));
    let files;
    const handler = tf.io.withSaveHandler(async (artifacts) => {
      files = artifacts;
      return { modelArtifactsInfo: { dateSaved: new Date() } };
    });
    await model.save(handler);
    const topology = JSON.parse(JSON.stringify(files.modelTopology));
    const loaded = await tf.loadLayersModel(tf.io.fromMemory({ ...files, modelTopology: topology }));
    const x = random([3, 5, 8], 50, 2, 2);
    const { class_name: className, config } = topology.config.layers.at(-1);
    found[name] = {
      apart: await apart(loaded.predict(x), model.predict(x)),
      className,
      config,
      begin,
      losses: loaded.layers.at(-1).losses.length,
      weights: files.weightSpecs.map(({ name }) => name.split("/").at(-1)),
    };
  }
  return found;
}

/**
 * What steps and evaluations record, once everything was made: commands that copy, kernels that are compiled, buffers that are
 * made; and the tensors that they leave.
 */
export async function recorded() {
  const device = tf.backend().device;
  const layers = [bcnorm.layers.batchNorm({}), bcnorm.layers.bcNorm({ groups: 4 }), bcnorm.layers.groupNorm({ groups: 4 })];
  const model = tf.sequential({ layers: [tf.layers.inputLayer({ inputShape: [6, 7, 8] }), ...layers] });
  await bcnorm.prepare(model, 4);
  const counts = { copies: 0, compiled: 0, buffers: 0 };
  const counted = (object, name, key) => {
    const real = object[name];
    object[name] = function (...args) {
      // tf.js's own kernels are called by their classes.
      if (key !== "compiled" || args[0].label?.includes("_")) counts[key] += 1;
      return real.apply(this, args);
    };
    return () => (object[name] = real);
  };
  const [x, dy] = [random([4, 6, 7, 8], 61, 1, 1), random([4, 6, 7, 8], 62)];
  const step = () => tf.dispose(tf.grads((x) => model.apply(x, { training: true }))([x], dy));
  const restore = [counted(device, "createComputePipeline", "compiled")];
  for (let i = 0; i < 2; i++) {
    step();
    tf.dispose(model.predict(x));
    tf.dispose(tf.grads((x) => (model.apply(x, { training: true }), tf.relu(x)))([x], dy));
  }
  restore.push(counted(GPUCommandEncoder.prototype, "copyBufferToBuffer", "copies"), counted(device, "createBuffer", "buffers"));
  const before = memory();
  for (let i = 0; i < 5; i++) {
    step();
    // Of what no gradient is asked, also on a tape.
    tf.dispose(model.predict(x));
    tf.dispose(tf.grads((x) => (model.apply(x, { training: true }), tf.relu(x)))([x], dy));
  }
  counts.tensors = memory().numTensors - before.numTensors;
  restore.forEach((undo) => undo());
  return counts;
}

/** Runs a program of the documentation, which has images and labels. */
export async function program(text) {
  const images = random([128, 28, 28, 1], 81);
  const labels = tf.oneHot(tf.zeros([128], "int32"), 10);
  const body = text.replace(/^import .*$/gm, "");
  await new (async () => {}).constructor("tf", "attach", "images", "labels", body)(tf, attach, images, labels);
  return "it ran";
}

/** What is wrong, as errors say it. */
export async function refused() {
  const { layers } = bcnorm;
  const thrown = async (run) => {
    try {
      await run();
      return "nothing";
    } catch (error) {
      return `${error.name} ${error.code}: ${error.message}`;
    }
  };
  const x = random([2, 4, 4, 6], 71);
  const [mean, variance] = [tf.variable(tf.zeros([6])), tf.variable(tf.ones([6]))];
  const cases = {
    groups: () => bcnorm.groupNorm(x, { groups: 4 }),
    "default groups": () => bcnorm.groupNorm(x),
    gamma: () => bcnorm.batchNorm(x, { gamma: tf.ones([5]) }),
    "group gamma": () => bcnorm.bcNorm(x, { groups: 3, gamma: tf.ones([2]) }),
    rank: () => bcnorm.batchNorm(tf.ones([6])),
    empty: () => bcnorm.batchNorm(tf.ones([0, 4, 6])),
    integers: () => bcnorm.batchNorm(tf.ones([2, 4, 6], "int32")),
    "no arguments": () => bcnorm.batchNorm(x, null),
    "no residual": () => bcnorm.batchNorm(x, { residual: 3 }),
    "no model": () => bcnorm.prepare({}, 3),
    "no tensor": () => bcnorm.batchNorm([1, 2, 3]),
    option: () => bcnorm.batchNorm(x, { groups: 2 }),
    activation: () => bcnorm.batchNorm(x, { activation: "gelu" }),
    residual: () => bcnorm.batchNorm(x, { residual: tf.ones([2, 4, 4, 5]) }),
    "one of two": () => bcnorm.batchNorm(x, { movingMean: mean }),
    "no variable": () => bcnorm.batchNorm(x, { movingMean: tf.zeros([6]), movingVariance: variance }),
    "one value": () => bcnorm.batchNorm(tf.ones([1, 6]), { training: true }),
    "no estimates": () => bcnorm.estBn(x, { movingSpeed: 0.5 }),
    "no speed": () => bcnorm.estBn(x, { movingMean: mean, movingVariance: variance }),
    filters: () => bcnorm.weightStandardization(tf.ones([1, 1, 1, 8])),
    config: () => layers.batchNorm({ axis: 1 }),
    initializer: () => layers.batchNorm({ gammaInitializer: "sevens" }),
    channels: () => layers.batchNorm().apply(tf.input({ shape: [4, null] })),
    inputs: () => layers.batchNorm().apply([x, x, x]),
    "second derivative": () => tf.grad((x) => tf.sum(tf.square(tf.grad((x) => tf.sum(bcnorm.instanceNorm(x)))(x))))(x),
    sizes: () => bcnorm.prepare(tf.sequential({ layers: [layers.batchNorm({ inputShape: [null, 6] })] }), 2),
    "not tf.js": () => attach({}),
    "no layers": async () => (await attach({ ...tf, layers: undefined })).layers,
    version: () => attach({ ...tf, backend: () => ({}) }),
    backend: async () => {
      await tf.setBackend("cpu");
      await attach(tf);
    },
    "backend by now": () => bcnorm.batchNorm(tf.ones([2, 6])),
  };
  const found = {};
  for (const [what, run] of Object.entries(cases)) {
    found[what] = await thrown(run);
  }
  await tf.setBackend("webgpu");
  // After all of it, it works; a tensor that another backend made is moved.
  found.last = await thrown(() => tf.dispose(bcnorm.batchNorm(x)));
  return found;
}

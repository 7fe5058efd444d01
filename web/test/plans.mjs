// Plans of everything that there is: norms, modes, fusions, types, layouts, shapes, tunings.
import { readFileSync } from "node:fs";
import { ROOT } from "./chromium.mjs";
import * as planner from "../dist/planner/bcnorm_planner.js";

planner.initSync({ module: readFileSync(`${ROOT}web/dist/planner/bcnorm_planner_bg.wasm`) });

export { planner };

/** WebGPU's default limits. */
export const LIMITS = new planner.Limits(
  Float64Array.of(2 ** 27, 2 ** 28, 256, 256, 65535, 8, 16384, 256, 1, 0, 0),
);

const KINDS = [
  ["bc_norm", { groups: true, estimate: true, momentum: true }],
  ["batch_norm", { momentum: true }],
  ["est_bn", { estimate: true }],
  ["group_norm", { groups: true }],
  ["instance_norm", { momentum: true }],
  ["layer_norm", {}],
  ["weight_standardization", {}],
];

const TUNINGS = [
  "class=gpu",
  "class=gpu\nlimits.subgroup_size=8\nfold.lanes=4",
  "class=gpu\nlimits.native_unpack=1\nlimits.native_pack=1",
  "class=software",
  "class=software\nshort_rows.max_row=0\nshort_rows.max_batch_row=0\nfold.lanes=4",
];

/** Long rows, odd ones, short ones; few and many samples; one channel and 6. */
const SHAPES = [
  [2, 6, 64, 66],
  [3, 6, 7, 7],
  [600, 6, 3],
  [2, 64, 2, 2],
  [2, 64, 5, 7],
  [700, 12],
];

function norms() {
  const all = [];
  for (const [kind, { groups, estimate, momentum }] of KINDS) {
    for (const affine of [true, false]) {
      const make = (change) => (channels) => {
        const norm = new planner.Norm(kind, channels, groups ? channels / 2 : undefined);
        for (const flag of ["weight", "bias", "bnWeight", "bnBias"]) {
          norm.setFlag(flag, affine);
        }
        change?.(norm);
        return norm;
      };
      all.push([kind, make()]);
      all.push([kind, make((norm) => norm.setFlag("trackRunningStats", kind === "instance_norm"))]);
      if (momentum) {
        all.push([kind, make((norm) => norm.setMomentum(undefined))]);
      }
      if (estimate) {
        all.push([kind, make((norm) => norm.setMovingSpeed(0.5))]);
      }
      if (kind === "bc_norm") {
        all.push([kind, make((norm) => norm.setFlag("perChannelAffine", true))]);
      }
    }
  }
  return all;
}

/** Plans, or none where PyTorch has no such call: instances of one element. */
function planned(makers) {
  try {
    return makers.map((make) => make());
  } catch (error) {
    if (/more than 1 value per/.test(error.message)) return [];
    throw error;
  }
}

/** Every plan: what it is called, and itself. */
export function* plans() {
  const tunings = TUNINGS.map((text) => planner.Tuning.parse(text));
  const fusions = [
    ["none", false],
    ["relu", true],
    ["silu", false],
    ["none", true],
    ["silu", true],
  ];
  let turn = 0;
  for (const [kind, make] of norms()) {
    for (const dims of SHAPES) {
      const filters = kind === "weight_standardization";
      const norm = make(filters ? 1 : dims[1]);
      for (const dtype of ["f32", "f16", "bf16"]) {
        for (const layout of ["channels_first", "channels_last"]) {
          const sizes = Uint32Array.from(dims);
          const tensor = filters
            ? planner.TensorShape.filters(sizes, dtype, layout)
            : new planner.TensorShape(sizes, dtype, layout);
          for (const training of [true, false]) {
            for (const tuning of tunings) {
              // Each in turn has another fusion.
              const [activation, residual] = fusions[turn++ % fusions.length];
              const options = new planner.Options(training, activation, residual);
              const what = `${kind} [${dims}] ${dtype} ${layout} ${training} ${activation} ${residual}`;
              const forward = (inPlace, inference) => () =>
                planner.Plan.forward(norm, tensor, options, inPlace, inference, tuning);
              const backward = () => planner.Plan.backward(norm, tensor, options, true, tuning);
              const made = planned([forward(false, false), forward(!training, true), backward]);
              yield* made.map((plan, i) => [`${what} ${["forward", "inference", "backward"][i]}`, plan]);
            }
          }
        }
      }
    }
  }
}

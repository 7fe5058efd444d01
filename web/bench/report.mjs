// What a run of the benchmark says: a table, and whether the targets are met.

const MB = 1e6;
const bytes = ({ dims }) => 4 * dims.reduce((a, b) => a * b, 1);
const name = ({ dims }) => `(${dims.join(", ")})`;

const ms = (value) => (value === undefined ? "-" : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0));
/** What is missing is NaN. */
const times = (value) => (Number.isFinite(value) ? value.toFixed(2) : "-");

/** A peer's fastest form, and its ratio to the bcnorm that took turns with it. */
function best(forms) {
  const timed = Object.entries(forms ?? {}).filter(([, { ms }]) => ms !== undefined);
  const ratios = timed.map(([form, { ms, oursMs }]) => ({ form, ms, ratio: ms / oursMs }));
  return ratios.sort((a, b) => a.ms - b.ms)[0];
}

/** Time in the browser by the native run's of the same shape. */
const ofNative = ({ browser, native }, direction) => browser?.[`${direction}Ms`] / native?.[direction];

const peer = (forms) => {
  const found = best(forms);
  return found === undefined ? "-" : `${times(found.ratio)} x (${ms(found.ms)} ms, ${found.form})`;
};

/** One row a shape. */
function row(result) {
  const { browser = {}, native } = result;
  const { forwardMs, backwardMs, copyMs, compositionForwardMs, compositionBackwardMs } = browser;
  const copies = [forwardMs / copyMs, backwardMs / copyMs];
  const byOp = [compositionForwardMs / forwardMs, compositionBackwardMs / backwardMs];
  const pair = (values) => values.map(times).join(" / ");
  return {
    shape: `${name(result)}, ${(bytes(result) / MB).toFixed(1)} MB`,
    forward: ms(forwardMs),
    backward: ms(backwardMs),
    eval: ms(browser.evalMs),
    copies: pair(copies),
    "of native": pair([ofNative(result, "forward"), ofNative(result, "backward")]),
    "copy of native's": times(copyMs / native?.copy),
    "op by op": `${pair(byOp)} x`,
  };
}

/** Whether some ratios meet a bar; the worst is the one with the largest `off`. */
function target(text, found, met) {
  const known = found.filter(({ ratio }) => Number.isFinite(ratio));
  if (known.length === 0) return `not measured: ${text}`;
  const worst = known.reduce((a, b) => (b.off > a.off ? b : a));
  const count = known.filter(({ ratio }) => met(ratio)).length;
  const verdict = count === known.length ? "met" : `met ${count} times of ${known.length}`;
  return `${verdict}: ${text}; worst ${times(worst.ratio)} at ${worst.at}`;
}

const atMost = (bar, text, found) =>
  target(text, found.map((one) => ({ ...one, off: one.ratio / bar })), (ratio) => ratio <= bar);
const atLeast = (bar, text, found) =>
  target(text, found.map((one) => ({ ...one, off: bar / one.ratio })), (ratio) => ratio >= bar);

function targets(results) {
  const large = results.filter((result) => bytes(result) >= 6 * MB);
  const native = (direction) => large.map((result) => ({ at: name(result), ratio: ofNative(result, direction) }));
  const peers = (key) => results.map((result) => ({ at: name(result), ratio: best(result[key])?.ratio ?? Number.NaN }));
  return [
    atMost(1.5, "forward within 1.5 x of native, tensors of 6 MB and more", native("forward")),
    atMost(1.5, "backward within 1.5 x of native, tensors of 6 MB and more", native("backward")),
    atLeast(10, "training 10 x faster than tf.js", peers("tensorflow")),
    atLeast(10, "training with bcnorm/tfjs 10 x faster than with tf.js's operations", peers("tfjs")),
    atLeast(4, "evaluation 4 x faster than onnxruntime-web", peers("onnxruntime")),
  ];
}

/** Prints it; returns whether everything could be timed. */
export function report(results, groups) {
  console.log(`BCNorm, f32, channels first, ${groups} groups; ms by the wall clock. Of two: forward / backward. x: times slower than bcnorm.`);
  console.table(results.map(row));
  const beside = results.filter(({ tensorflow, tfjs, onnxruntime }) => tensorflow ?? tfjs ?? onnxruntime);
  if (beside.length > 0) {
    console.table(beside.map((result) => ({
      shape: name(result),
      "tf.js, training": peer(result.tensorflow),
      "tf.js beside bcnorm/tfjs": peer(result.tfjs),
      "onnxruntime-web, evaluation": peer(result.onnxruntime),
    })));
  }
  for (const line of targets(results)) console.log(line);
  const failures = results.flatMap((result) => [
    ...Object.entries(result.failed ?? {}).map(([what, why]) => `${name(result)}, ${what}: ${why}`),
    ...["tensorflow", "tfjs", "onnxruntime"].flatMap((key) =>
      Object.entries(result[key] ?? {})
        .filter(([, { failed }]) => failed !== undefined)
        .map(([form, { failed }]) => `${name(result)}, ${key}, ${form}: ${failed}`),
    ),
  ]);
  if (failures.length > 0) console.log(`Not timed:\n${failures.map((line) => `  ${line}`).join("\n")}`);
  return failures.length === 0;
}

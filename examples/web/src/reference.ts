/** BCNorm by the textbook in f64: what a benchmark checks before it times. */

export interface Problem {
  readonly dims: readonly number[];
  readonly groups: number;
  readonly x: Float32Array;
  readonly gradY: Float32Array;
  readonly bnWeight: Float32Array;
  readonly bnBias: Float32Array;
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/** A result, and what its error is divided by. */
export type Reference = Record<string, { values: Float64Array; scale: number }>;

/** Numbers of a normal-like distribution, the same each time. */
export function draw(count: number, seed: number, mean = 0, deviation = 1): Float32Array {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  // The sum of three uniforms has variance 1/4.
  return Float32Array.from({ length: count }, () => mean + 2 * deviation * (uniform() + uniform() + uniform() - 1.5));
}

export function problem(dims: readonly number[], groups: number): Problem {
  const [, channels = 1] = dims;
  const count = dims.reduce((a, b) => a * b, 1);
  return {
    dims,
    groups,
    x: draw(count, 1, 0.5, 2),
    gradY: draw(count, 2),
    bnWeight: draw(channels, 3, 1, 0.2),
    bnBias: draw(channels, 4, 0, 0.2),
    weight: draw(groups, 5, 1, 0.2),
    bias: draw(groups, 6, 0, 0.2),
  };
}

export const EPS = 1e-5;

/** Sums over index sets: of a channel (`by` is C), or of a (sample, group) (`by` is N G). */
interface Sets {
  readonly count: number;
  readonly of: (element: number) => number;
}

function means(sets: Sets, elements: number, values: (i: number) => number): Float64Array {
  const sums = new Float64Array(sets.count);
  for (let i = 0; i < elements; i++) {
    const set = sets.of(i);
    sums[set] = (sums[set] ?? 0) + values(i);
  }
  return sums.map((sum) => (sum * sets.count) / elements);
}

/** (v - mean) / sqrt(variance + eps), and the reciprocal deviations. */
function standardize(sets: Sets, values: Float64Array): { hat: Float64Array; rstd: Float64Array } {
  const at = (table: Float64Array, i: number): number => table[sets.of(i)] ?? 0;
  const mean = means(sets, values.length, (i) => values[i] ?? 0);
  const hat = values.map((value, i) => value - at(mean, i));
  const rstd = means(sets, values.length, (i) => (hat[i] ?? 0) ** 2).map((variance) => 1 / Math.sqrt(variance + EPS));
  return { hat: hat.map((value, i) => value * at(rstd, i)), rstd };
}

/** Its gradient: dv = rstd (d - mean d - hat mean(d hat)). */
function standardizeBackward(
  sets: Sets,
  { hat, rstd }: { hat: Float64Array; rstd: Float64Array },
  d: Float64Array,
): Float64Array {
  const at = (table: Float64Array, i: number): number => table[sets.of(i)] ?? 0;
  const mean = means(sets, d.length, (i) => d[i] ?? 0);
  const along = means(sets, d.length, (i) => (d[i] ?? 0) * (hat[i] ?? 0));
  return d.map((value, i) => at(rstd, i) * (value - at(mean, i) - (hat[i] ?? 0) * at(along, i)));
}

/** Training forward and backward. */
export function reference(p: Problem): Reference {
  const [samples = 1, channels = 1] = p.dims;
  const elements = p.x.length;
  const len = elements / samples / channels;
  const perGroup = channels / p.groups;
  const channel = (i: number): number => Math.floor(i / len) % channels;
  const row = (i: number): number => Math.floor(i / len / perGroup);
  const group = (i: number): number => row(i) % p.groups;
  const byChannel: Sets = { count: channels, of: channel };
  const byGroup: Sets = { count: samples * p.groups, of: row };
  const first = standardize(byChannel, Float64Array.from(p.x));
  const z = first.hat.map((value, i) => value * (p.bnWeight[channel(i)] ?? 0) + (p.bnBias[channel(i)] ?? 0));
  const second = standardize(byGroup, z);
  const y = second.hat.map((value, i) => value * (p.weight[group(i)] ?? 0) + (p.bias[group(i)] ?? 0));
  const gradY = Float64Array.from(p.gradY);
  const results: Reference = {};
  const put = (name: string, values: Float64Array, scale?: number): void => {
    results[name] = { values, scale: scale ?? values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) };
  };
  // A parameter's gradient: sums that may cancel, so that their error is relative to the terms.
  const sums = (name: string, count: number, of: (i: number) => number, term: (i: number) => number): void => {
    const values = new Float64Array(count);
    const sizes = new Float64Array(count);
    for (let i = 0; i < elements; i++) {
      const [at, one] = [of(i), term(i)];
      values[at] = (values[at] ?? 0) + one;
      sizes[at] = (sizes[at] ?? 0) + Math.abs(one);
    }
    put(name, values, Math.max(...sizes));
  };
  sums("grad_bias", p.groups, group, (i) => gradY[i] ?? 0);
  sums("grad_weight", p.groups, group, (i) => (gradY[i] ?? 0) * (second.hat[i] ?? 0));
  const dHat = gradY.map((value, i) => value * (p.weight[group(i)] ?? 0));
  const dz = standardizeBackward(byGroup, second, dHat);
  sums("grad_bn.bias", channels, channel, (i) => dz[i] ?? 0);
  sums("grad_bn.weight", channels, channel, (i) => (dz[i] ?? 0) * (first.hat[i] ?? 0));
  const dFirst = dz.map((value, i) => value * (p.bnWeight[channel(i)] ?? 0));
  put("y", y);
  put("grad_x", standardizeBackward(byChannel, first, dFirst));
  return results;
}

/** The largest error of some outputs, in the metric of the golden vectors; NaN counts as infinite. */
export function worst(expected: Reference, got: Record<string, Float32Array>): number {
  let most = 0;
  for (const [name, values] of Object.entries(got)) {
    const { values: right, scale } = expected[name] ?? { values: new Float64Array(0), scale: 1 };
    if (right.length !== values.length) {
      return Number.POSITIVE_INFINITY;
    }
    for (let i = 0; i < values.length; i++) {
      const off = Math.abs((values[i] ?? Number.NaN) - (right[i] ?? 0)) / scale;
      if (!(off <= most)) {
        most = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off;
      }
    }
  }
  return most;
}

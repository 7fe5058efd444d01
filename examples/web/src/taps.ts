/** One-dimensional filters, the same as those of `bcnorm demo` (cli/src/demo/filters.rs). */
export type Taps = readonly number[];

const bell = (x: number, sigma: number): number => Math.exp((-x * x) / (2 * sigma * sigma));
const sum = (taps: Taps): number => taps.reduce((a, b) => a + b, 0);

export const scaled = (taps: Taps, factor: number): Taps => taps.map((tap) => tap * factor);

function sample(sigma: number, f: (x: number) => number): Taps {
  const radius = Math.ceil(3 * sigma);
  return Array.from({ length: 2 * radius + 1 }, (_, i) => f(i - radius));
}

/** With sum 1. */
export function gaussian(sigma: number): Taps {
  const taps = sample(sigma, (x) => bell(x, sigma));
  return scaled(taps, 1 / sum(taps));
}

/** A filter of two dimensions: rows filtered, then columns. */
export interface Term {
  readonly row: Taps;
  readonly column: Taps;
}

/** Sobel's derivative, turned to any angle. */
export function sobel(degrees: number): Term[] {
  const angle = (degrees * Math.PI) / 180;
  const [derivative, smooth] = [[-1, 0, 1], [1, 2, 1]];
  return [
    { row: scaled(derivative, Math.cos(angle)), column: smooth },
    { row: smooth, column: scaled(derivative, Math.sin(angle)) },
  ];
}

/** A wave of a length under a Gaussian of half that length: lines (a cosine) or edges (a sine). */
export function gabor(wavelength: number, degrees: number, phase: "line" | "edge"): Term[] {
  const sigma = 0.5 * wavelength;
  const angle = (degrees * Math.PI) / 180;
  const frequency = (2 * Math.PI) / wavelength;
  const norm = 2 / sum(sample(sigma, (x) => bell(x, sigma))) ** 2;
  const wave = (f: (x: number) => number, along: number): Taps =>
    sample(sigma, (x) => bell(x, sigma) * f(frequency * along * x));
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  if (phase === "edge") {
    // sin(a + b) = sin a cos b + cos a sin b, which sums to 0.
    return [
      { row: scaled(wave(Math.sin, cos), norm), column: wave(Math.cos, sin) },
      { row: scaled(wave(Math.cos, cos), norm), column: wave(Math.sin, sin) },
    ];
  }
  // cos(a + b) = cos a cos b - sin a sin b, less its mean.
  const [row, column] = [wave(Math.cos, cos), wave(Math.cos, sin)];
  const mean = norm * sum(row) * sum(column);
  const envelope = gaussian(sigma);
  return [
    { row: scaled(row, norm), column },
    { row: scaled(wave(Math.sin, cos), -norm), column: wave(Math.sin, sin) },
    { row: scaled(envelope, -mean), column: envelope },
  ];
}

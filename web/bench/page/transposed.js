/** Of each sample, rows become columns. */
export function transposed(values, samples, rows, columns) {
  const out = new Float32Array(values.length);
  for (let sample = 0; sample < samples; sample++) {
    const base = sample * rows * columns;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        out[base + column * rows + row] = values[base + row * columns + column];
      }
    }
  }
  return out;
}

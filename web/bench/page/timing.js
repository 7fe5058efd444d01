// Medians of candidates that take turns on one page, so that what disturbs one disturbs all.
import { median } from "/app/measure.js";

/** What a batch should take at least: a browser's clock is coarse, and waiting for a device takes a while itself. */
const BATCH_MS = 60;
const MAX_RUNS = 100;

async function batch(run, count) {
  const start = performance.now();
  await run(count);
  return (performance.now() - start) / count;
}

/** Milliseconds of one run of each: `run(count)` resolves when so many are done. */
export async function inTurn(candidates, rounds) {
  const counts = [];
  for (const run of candidates) {
    // The first run compiles.
    await run(1);
    const once = await batch(run, 1);
    counts.push(Math.max(1, Math.min(MAX_RUNS, Math.ceil(BATCH_MS / Math.max(once, 0.1)))));
  }
  const times = candidates.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, run] of candidates.entries()) {
      times[i].push(await batch(run, counts[i]));
    }
  }
  return times.map(median);
}

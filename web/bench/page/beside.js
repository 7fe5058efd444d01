// A peer in each of its forms beside bcnorm: checked, then timed in turn with it.
import { worst } from "/app/reference.js";
import { inTurn } from "./timing.js";

/** What a peer may be off by. */
const BAR = 1e-3;

/**
 * By form, `{ ms, oursMs }`, or `{ failed }`: a form that throws or is off is not timed.
 * `make(form)` resolves to `{ outputs, run, dispose }`: what it computed, by the names of reference.js, and more of it.
 */
export async function beside(bcnorm, expected, forms, make, rounds) {
  const results = {};
  for (const form of forms) {
    try {
      const { outputs, run, dispose } = await make(form);
      try {
        const error = worst(expected, outputs);
        if (!(error <= BAR)) throw new Error(`off by ${error.toExponential(1)}`);
        const [ms, oursMs] = await inTurn([run, bcnorm.run], rounds);
        results[form] = { ms, oursMs, error };
      } finally {
        await dispose();
      }
    } catch (error) {
      results[form] = { failed: String(error?.message ?? error) };
    }
  }
  bcnorm.destroy();
  return results;
}

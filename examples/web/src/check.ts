/** The tab "Check & measure": verification and benchmark, on what the page has. */
import { environment } from "./adapter.js";
import { benchmark } from "./benchmark.js";
import { copies } from "./copy.js";
import { button, html } from "./dom.js";
import type { Engine, Work } from "./engine.js";
import { exclusively } from "./see.js";
import { guarded, reveal, say, tracked } from "./status.js";
import { verify } from "./verify.js";

/** What a run says. */
export interface Report {
  readonly headline: string;
  readonly details: string;
  /** In the bar. */
  readonly status: string;
  /** To copy, for an issue. */
  readonly text: string;
}

/** A button that runs something: its results come into view, and can be copied. */
function runs(id: "verify" | "benchmark", results: string, run: (engine: Engine, work: Work) => Promise<Report>): void {
  let text = "";
  button(id).addEventListener(
    "click",
    guarded(async () => {
      if (button(id).ariaDisabled === "true") {
        return;
      }
      const buttons = [button("verify"), button("benchmark")];
      const enabled = buttons.filter((one) => one.ariaDisabled !== "true");
      // Disabled by ARIA alone: the focus stays on them.
      enabled.forEach((one) => (one.ariaDisabled = "true"));
      try {
        const report = await exclusively(async (engine, controller) => {
          say("Starting…");
          const found = await tracked(controller, "Stop", (work) => run(engine, work), `${results}-title`);
          return { ...found, text: `${found.text}\n\n${environment(engine.device)}\n` };
        });
        if (report !== undefined) {
          text = report.text;
          html(`${results}-title`).textContent = report.headline;
          html(`${results}-details`).textContent = report.details;
          html(results).hidden = false;
          say(report.status);
          reveal(`${results}-title`, button(id));
        }
      } finally {
        enabled.forEach((one) => (one.ariaDisabled = "false"));
      }
    }),
  );
  copies(`copy-${results}`, () => text, "Result");
}

export function check(): void {
  runs("verify", "verified", verify);
  runs("benchmark", "measured", benchmark);
}

/** What can be done with an engine. */
export function able(engine: Engine): void {
  const gpu = engine.device !== undefined;
  html("verify-cpu").hidden = gpu;
  html("benchmark-cpu").hidden = gpu;
  button("benchmark").ariaDisabled = String(!gpu);
}

import { showAdapter } from "./adapter.js";
import { able, check } from "./check.js";
import { CpuEngine } from "./cpu.js";
import { button, html } from "./dom.js";
import type { Engine } from "./engine.js";
import { GpuEngine } from "./gpu.js";
import { links } from "./links.js";
import { isSoftware } from "./measure.js";
import { see, seen, use } from "./see.js";
import { bar, guarded, problem, say, sentence, state, tell } from "./status.js";
import { tabs } from "./tabs.js";
import { theme } from "./theme.js";
import { training } from "./training.js";

/** A GPU; without one the CPU, and that is said. */
async function engine(): Promise<Engine> {
  try {
    const gpu = await GpuEngine.create();
    gpu.device.addEventListener("uncapturederror", ({ error }) => tell(error));
    void gpu.device.lost.then(({ message }) => {
      use(undefined, 0);
      state("lost");
      say("The GPU was lost.");
      problem("The GPU was lost", sentence(message || "the browser or the driver has taken the device away"), true);
    });
    return gpu;
  } catch (error) {
    const cpu = await CpuEngine.create();
    html("cpu-why").textContent = sentence(error);
    html("cpu").hidden = false;
    return cpu;
  }
}

/** Takes an engine; again, after one was lost. */
async function begin(): Promise<void> {
  html("problem").hidden = true;
  html("cpu").hidden = true;
  state("starting");
  say("Starting…");
  try {
    const found = await engine();
    showAdapter(found.device);
    able(found);
    // Larger photographs take software seconds.
    const slow = found.device === undefined || isSoftware(found.device);
    use(found, slow ? 96 : 256);
  } catch (error) {
    state("unsupported");
    say("");
    problem("That did not work", sentence(error), true);
  }
}

theme();
bar();
links();
see();
check();
tabs({
  see: () => seen(true),
  train: (panel) => {
    seen(false);
    training(panel);
  },
  check: () => seen(false),
});
button("restart").addEventListener(
  "click",
  guarded(async () => {
    // The button goes, and takes the focus with it.
    html("maps").focus({ preventScroll: true });
    await begin();
  }),
);
void begin();

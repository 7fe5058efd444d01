/** The tab "Train": two networks that differ in their norms, trained side by side. */
import { BcNormError, requestDevice } from "bcnorm";
import type { Bcnorm } from "bcnorm/tfjs";
import { button, canvas, html, input, select } from "../dom.js";
import { isSoftware } from "../measure.js";
import { sentence } from "../status.js";
import { fetchDigits, pixelsOf, type Digits } from "./digits.js";
import type { Architecture, NormName } from "./network.js";
import { choices, Pad } from "./pad.js";
import type { Race, Settings } from "./race.js";
import { answer, HTML, nameOf, prepare, problem, say, show, SIDES } from "./view.js";

/** Test digits that can be chosen. */
const CHOICES = 12;
/** Test digits that a software adapter reads. */
const SLOW_TESTS = 100;
const FOLDER = new URL("../digits/", import.meta.url);

/** What lives and dies with a device. */
interface Engine {
  readonly bcnorm: Bcnorm;
  readonly train: Digits;
  readonly test: Digits;
  readonly Race: typeof Race;
}

type State = "starting" | "ready" | "running" | "paused" | "done" | "lost" | "unsupported";

let panel: HTMLElement;
let engine: Engine | undefined;
let race: Race | undefined;
/** The run that is going on, and what ends it. */
let going: { readonly ended: Promise<void>; readonly stop: AbortController } | undefined;
/** What was drawn. */
let pixels: Uint8Array | undefined;
/** Readings of it: the one that is going on, whether another follows, whether its result is to be said. */
const reading: { now: Promise<void> | undefined; again: boolean; aloud: boolean } = { now: undefined, again: false, aloud: false };

function state(value: State): void {
  panel.dataset["state"] = value;
  const begun = race !== undefined && race.step > 0;
  const start = button("train-start");
  start.textContent = value === "running" ? "Pause" : value === "done" ? "Train again" : begun ? "Resume" : "Start training";
  html("train-run").hidden = value === "unsupported";
  const able = ["ready", "running", "paused", "done"].includes(value);
  for (const one of ["start", "reset", "left-save", "right-save"]) {
    button(`train-${one}`).disabled = !able;
  }
  const locked = begun || value === "running";
  for (const one of html("train-run").querySelectorAll<HTMLSelectElement | HTMLInputElement>("select, input")) {
    one.disabled = locked;
  }
  html("train-locked").hidden = !locked;
}

/** Runs what a control starts; what it throws is told. */
function guarded(run: () => Promise<void> | void): () => void {
  return () => {
    void (async () => run())().catch(failed);
  };
}

function failed(error: unknown): void {
  if (engine === undefined) {
    // The loss of the device is told already; what it makes fail says no more.
    return;
  }
  state(race?.step === 0 ? "ready" : "paused");
  say("Training stopped.");
  problem("That did not work", sentence(error), true);
}

function settings(): Settings {
  const architecture = (name: string): Architecture => ({
    norm: select(`train-${name}-norm`).value as NormName,
    ws: input(`train-${name}-ws`).checked,
  });
  const number = (id: string): number => Number(select(`train-${id}`).value);
  return {
    sides: [architecture("left"), architecture("right")],
    batch: number("batch"),
    lr: number("lr"),
    epochs: number("epochs"),
    seed: number("seed"),
  };
}

/** Two new networks for the settings. */
async function renew(): Promise<void> {
  going?.stop.abort();
  await going?.ended;
  if (engine === undefined) {
    return;
  }
  race?.dispose();
  const { bcnorm, train, test } = engine;
  const now = settings();
  race = new engine.Race(bcnorm, now, train, test);
  html("train-chosen").textContent =
    `batch ${now.batch}, learning rate ${now.lr}, each digit ${now.epochs === 1 ? "once" : `${now.epochs} times`}, seed ${now.seed}`;
  html("train-problem").hidden = true;
  state("ready");
  say("Ready. Neither has learned anything yet.");
  show(race);
  void ask();
}

const hidden = (): boolean => document.hidden || panel.closest("[hidden]") !== null;

/** Trains until it is done, or stopped. */
async function run(race: Race, signal: AbortSignal): Promise<void> {
  const training = (): void => say(race.step === 0 ? "Training: the first step compiles the GPU’s programs…" : "Training…");
  state("running");
  training();
  while (!signal.aborted && !(race.done && !race.due)) {
    if (hidden()) {
      say("Paused while this tab is hidden.");
      await new Promise((resolve) => setTimeout(resolve, 200));
      continue;
    }
    if (race.due) {
      if (race.done) {
        say("Testing…");
      }
      await race.evaluate(signal);
    } else {
      training();
      await race.turn();
    }
    show(race);
    // What it takes is no part of a turn.
    await ask();
    if (race.sides.some(({ losses }) => Number.isNaN(losses.at(-1)?.[1]))) {
      break;
    }
  }
}

async function go(): Promise<void> {
  if (going !== undefined) {
    say("Pausing…");
    going.stop.abort();
    return;
  }
  if (race?.done === true) {
    await renew();
  }
  const current = race;
  if (current === undefined) {
    return;
  }
  const stop = new AbortController();
  const ended = run(current, stop.signal)
    .then(() => finished(current))
    .catch(failed)
    .finally(() => (going = undefined));
  going = { ended, stop };
  await ended;
}

/** Says how a run ended. */
function finished(race: Race): void {
  const lost = race.sides.findIndex(({ losses }) => Number.isNaN(losses.at(-1)?.[1]));
  if (lost >= 0) {
    problem(
      `${nameOf(race, lost)} has diverged`,
      `Its loss is no number any more: a learning rate of ${race.settings.lr} is too high for it. Reset, and choose a smaller one.`,
      false,
    );
  }
  if (!race.done) {
    state("paused");
    say(`Paused after ${race.step.toLocaleString("en")} steps.`);
    return;
  }
  state("done");
  const results = race.sides.map(({ accuracies }, i) => `${nameOf(race, i)} ${(100 * (accuracies.at(-1)?.[1] ?? NaN)).toFixed(1)} %`);
  say(`Done. Of the test digits they read rightly: ${results.join(", ")}.`);
}

/** Has both networks read what was drawn, one reading at a time; `aloud`: says what they found. */
function ask(aloud = false): Promise<void> {
  reading.again = true;
  reading.aloud ||= aloud;
  reading.now ??= read()
    .catch(failed)
    .finally(() => (reading.now = undefined));
  return reading.now;
}

async function read(): Promise<void> {
  while (reading.again && race !== undefined) {
    reading.again = false;
    const [current, drawn]: [Race, Uint8Array | undefined] = [race, pixels];
    const found = drawn === undefined ? [] : await Promise.all(current.sides.map(({ learner }) => learner.probabilities(drawn)));
    if (current === race && drawn === pixels) {
      const said = current.sides.map((_, i) => answer(i, found[i]));
      if (reading.aloud && drawn !== undefined) {
        reading.aloud = false;
        html("train-heard").textContent = said.map((text, i) => `${nameOf(current, i)}: ${text}`).join("; ");
      }
    }
  }
}

/** Saves a side's weights as a file. */
async function save(index: 0 | 1): Promise<void> {
  const learner = race?.sides[index].learner;
  if (learner === undefined) {
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([new Uint8Array(await learner.file())], { type: "application/octet-stream" }));
  link.download = `bcnorm-digits-${learner.architecture.norm}.safetensors`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Takes a device; again, after one was lost. */
async function begin(): Promise<void> {
  going?.stop.abort();
  await going?.ended;
  engine = undefined;
  race?.dispose();
  race = undefined;
  state("starting");
  say("Loading TensorFlow.js and the digits…");
  html("train-problem").hidden = true;
  let device: GPUDevice;
  try {
    device = await requestDevice({ powerPreference: "high-performance", limits: "adapter" });
  } catch (error) {
    state("unsupported");
    say("");
    const missing = error instanceof BcNormError && (error.code === "no-webgpu" || error.code === "no-adapter");
    problem(missing ? "No WebGPU here" : "That did not work", `${sentence(error)}${missing ? ` ${WITHOUT}` : ""}`, !missing);
    return;
  }
  try {
    const [{ open }, { Race }, train, test] = await Promise.all([
      import("./backend.js"),
      import("./race.js"),
      fetchDigits(FOLDER, "train"),
      fetchDigits(FOLDER, "test"),
    ]);
    const slow = isSoftware(device);
    const made = { bcnorm: await open(device), train, test: slow ? { ...test, count: SLOW_TESTS } : test, Race };
    engine = made;
    html("train-slow").hidden = !slow;
    html("train-slow").textContent = slow ? SLOW : "";
    html("train-tested").textContent = made.test.count.toLocaleString("en");
    device.addEventListener("uncapturederror", ({ error }) => {
      going?.stop.abort();
      const memory = error instanceof GPUOutOfMemoryError;
      problem(
        memory ? "The GPU is out of memory" : "The GPU reports an error",
        memory ? "Close other tabs that use it, and start again." : sentence(error.message),
        true,
      );
    });
    void device.lost.then(({ message }) => {
      if (engine === made) {
        lose(message);
      }
    });
    choices(html("train-choices"), test, CHOICES, (index) => pad.put(pixelsOf(test, index)));
    await renew();
  } catch (error) {
    state("lost");
    say("");
    problem("Training cannot start", `${sentence(error)} If it does not start again, either, reload the page.`, true);
  }
}

function lose(message: string): void {
  engine = undefined;
  going?.stop.abort();
  state("lost");
  say("The GPU was lost, and the networks with it.");
  problem("The GPU was lost", sentence(message || "the browser or the driver has taken the device away"), true);
}

const WITHOUT =
  "Training in the page needs it. On Linux, Chrome may want chrome://flags/#enable-unsafe-webgpu; Firefox may want " +
  "dom.webgpu.enabled in about:config. Natively, cargo xtask train in the repository trains the same networks.";
const SLOW =
  "There is no graphics card at hand: the processor computes, by a software adapter. It takes some tenths of a second for a step of both, " +
  `and tests read ${SLOW_TESTS} of the 1,000 test digits. Hardware acceleration, in the browser’s settings, may help.`;

let pad: Pad;

/** Fills the tab's panel. */
export async function mount(root: HTMLElement): Promise<void> {
  panel = root;
  panel.innerHTML = HTML;
  prepare();
  pad = new Pad(canvas("train-pad"), canvas("train-seen"), (seen, done) => {
    pixels = seen;
    void ask(done);
  });
  button("train-start").addEventListener("click", guarded(go));
  button("train-reset").addEventListener("click", guarded(renew));
  button("train-restart").addEventListener(
    "click",
    guarded(async () => {
      await begin();
      // The button has gone, and the focus with it.
      button("train-start").focus();
    }),
  );
  button("train-clear").addEventListener("click", () => pad.clear());
  SIDES.forEach((name, index) => button(`train-${name}-save`).addEventListener("click", guarded(() => save(index as 0 | 1))));
  html("train-run").addEventListener("change", guarded(renew));
  new ResizeObserver(() => race !== undefined && !panel.hidden && show(race)).observe(html("train-loss"));
  await begin();
}

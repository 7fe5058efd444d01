/** What the tab shows. Elements are found by their ids, which begin with train-. */
import { element, html, make } from "../dom.js";
import { draw, swatch } from "./chart.js";
import type { NormName } from "./network.js";
import type { Race } from "./race.js";

export const SIDES = ["left", "right"] as const;

export const NAMES: Readonly<Record<NormName, string>> = {
  bn: "BatchNorm",
  gn: "GroupNorm",
  bcn: "BCNorm",
  "bcn-est": "BCNorm (estimates)",
};

const options = (values: readonly (readonly [value: string, text: string])[], chosen: string): string =>
  values.map(([value, text]) => `<option value="${value}"${value === chosen ? " selected" : ""}>${text}</option>`).join("");

const same = (...values: number[]): [string, string][] => values.map((value) => [String(value), String(value)]);

const side = (name: string, norm: NormName, ws: boolean): string => `
  <section class="panel" aria-label="The ${name} network">
    <div class="head"><span id="train-${name}-swatch"></span>
      <select id="train-${name}-norm" aria-label="Norm of the ${name} network">${options(Object.entries(NAMES), norm)}</select></div>
    <label class="check"><input id="train-${name}-ws" type="checkbox"${ws ? " checked" : ""}>Weight Standardization</label>
    <dl>
      <div><dt>Test accuracy</dt><dd id="train-${name}-accuracy">–</dd></div>
      <div><dt>Loss</dt><dd id="train-${name}-loss">–</dd></div>
      <div><dt>Images a second</dt><dd id="train-${name}-rate">–</dd></div>
    </dl>
  </section>`;

const setting = (id: string, label: string, content: string): string =>
  `<label for="train-${id}">${label}<select id="train-${id}">${content}</select></label>`;

export const HTML = `
<div class="lead">
  <p><b>Two networks learn to read handwritten digits</b>, here, on this device’s GPU. They begin with the same weights and see the same
  digits in the same order, a few at a time. Only their normalization differs.</p>
</div>
<div id="train-problem" class="box bad" role="alert" hidden>
  <h2></h2>
  <p></p>
  <button id="train-restart" type="button" hidden>Start again</button>
</div>
<p id="train-slow" class="box" hidden></p>
<div id="train-run">
  <div class="go">
    <button id="train-start" class="main" type="button">Start training</button>
    <button id="train-reset" type="button">Reset</button>
    <p id="train-status" role="status"></p>
  </div>
  <div class="at"><progress id="train-progress" max="1" value="0" aria-label="Steps done"></progress><span id="train-steps" class="numbers"></span></div>
  <div class="sides">${side("left", "bn", false)}${side("right", "bcn-est", true)}</div>
  <div class="charts">
    <section class="panel" aria-labelledby="train-loss-title">
      <h2 id="train-loss-title">Loss</h2>
      <div id="train-loss"></div>
      <p class="hint">How far the networks are from the right answers for the digits that they train with, over the last hundred steps:
      lower is better, and guessing gives 2.3.</p>
    </section>
    <section class="panel" aria-labelledby="train-accuracy-title">
      <h2 id="train-accuracy-title">Test accuracy</h2>
      <div id="train-accuracy"></div>
      <p class="hint">The share that they read rightly of <span id="train-tested">1,000</span> digits that they are not trained with:
      higher is better, and guessing gives 10 %.</p>
    </section>
  </div>
  <details>
    <summary>Settings<span id="train-chosen" class="numbers"></span></summary>
    <div class="settings">
      ${setting("batch", "Digits a step (batch)", options(same(1, 2, 3, 4, 5, 6, 7, 8), "2"))}
      ${setting("lr", "Learning rate", options(same(0.005, 0.01, 0.02, 0.05, 0.1), "0.02"))}
      ${setting("epochs", "Times each digit is seen", options(same(1, 2, 3, 5), "3"))}
      ${setting("seed", "Seed", options(same(0, 1, 2, 3, 4), "0"))}
    </div>
    <p class="hint" id="train-locked" hidden>They belong to the run that has begun: Reset makes a new one.</p>
  </details>
  <section class="panel" aria-labelledby="train-draw-title">
    <h2 id="train-draw-title">Let them read yours</h2>
    <div class="reading">
      <div class="drawing">
        <p id="train-pad-hint">Draw a digit with mouse, finger or pen, or choose one of the test digits.</p>
        <div class="pads">
          <canvas id="train-pad" role="img" aria-label="Your digit; test digits can be chosen by keyboard below" aria-describedby="train-pad-hint"></canvas>
          <div class="beside">
            <figure><canvas id="train-seen" role="img" aria-label="Your digit as the networks see it"></canvas>
              <figcaption>What they see: 28 × 28 pixels, centred</figcaption></figure>
            <button id="train-clear" type="button">Clear</button>
          </div>
        </div>
        <div id="train-choices" role="toolbar" aria-label="Test digits"></div>
        <p id="train-heard" class="visually-hidden" role="status"></p>
      </div>
      <div class="answers">${SIDES.map((name) => `
        <div>
          <h3><span id="train-${name}-answer-swatch"></span><span id="train-${name}-answer-name"></span></h3>
          <p id="train-${name}-says"></p>
          <ol id="train-${name}-bars" role="img"></ol>
          <button id="train-${name}-save" type="button">Download its weights</button>
        </div>`).join("")}
      </div>
    </div>
  </section>
</div>
<section class="panel" aria-labelledby="train-why-title">
  <h2 id="train-why-title">What is to be seen here</h2>
  <dl class="why">
    <dt>What is trained?</dt>
    <dd>A residual network of six convolutions (PyTorch’s twin of it is in the repository) on 4,000 digits of MNIST, by gradient descent with
    a learning rate that falls to 0. TensorFlow.js does convolutions and gradients, bcnorm the norms, in its buffers on the same GPU.</dd>
    <dt>Why BCNorm rather than BatchNorm, at batch 2?</dt>
    <dd>BatchNorm takes mean and variance of the batch. Those of two digits say little of all digits, so each step normalizes
    differently, and what is remembered for reading fits no step. BCNorm by estimates takes running averages in training, too, and then
    normalizes groups of channels within each digit, which no batch shakes. Weight Standardization normalizes the filters, too.</dd>
    <dt>What do the curves show?</dt>
    <dd>Loss falls and accuracy rises as they learn. At batch 2, with a learning rate of 0.02 and each digit seen three times, the twin in
    PyTorch ends at 88 % with BatchNorm, 83 % with GroupNorm, 91 % with BCNorm and 94 % with BCNorm by estimates, the last two with Weight
    Standardization (means of three seeds).</dd>
  </dl>
  <p class="hint">The digits are MNIST’s (LeCun, Cortes, Burges; <a href="digits/README.md">CC BY-SA 3.0</a>). TensorFlow.js is Google’s
  (<a href="tfjs/NOTICE">Apache 2.0</a>). Weights are safetensors files by PyTorch’s names.</p>
</section>`;

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const rounded = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(2));
const count = (value: number): string => value.toLocaleString("en");

/** The name of a side's norm. */
export function nameOf(race: Race, index: number): string {
  const { norm, ws } = race.sides[index as 0 | 1].learner.architecture;
  return `${NAMES[norm]}${ws ? " + WS" : ""}`;
}

/** The static parts that are made, not written. */
export function prepare(): void {
  SIDES.forEach((name, index) => {
    html(`train-${name}-swatch`).replaceChildren(swatch(index));
    html(`train-${name}-answer-swatch`).replaceChildren(swatch(index));
    html(`train-${name}-bars`).replaceChildren(
      ...Array.from({ length: 10 }, (_, digit) => {
        const bar = make("li");
        bar.append(make("b", String(digit)), make("i"), make("span"));
        return bar;
      }),
    );
  });
}

/** Where the axis of steps may end, before it ends where the run does. */
const ENDS = [50, 100, 200, 500, 1000, 2000, 4000, 10_000, 20_000];

/** Numbers and curves of a run. */
export function show(race: Race): void {
  element("train-progress", HTMLProgressElement).value = race.step / race.total;
  html("train-steps").textContent = `${count(race.step)} of ${count(race.total)} steps`;
  race.sides.forEach(({ losses, accuracies, rate }, index) => {
    const at = (what: string, value: number | undefined, format: (value: number) => string): void => {
      html(`train-${SIDES[index]}-${what}`).textContent = value === undefined || Number.isNaN(value) ? "–" : format(value);
    };
    at("loss", losses.at(-1)?.[1], (value) => value.toFixed(3));
    at("accuracy", accuracies.at(-1)?.[1], percent);
    at("rate", rate, rounded);
    html(`train-${SIDES[index]}-answer-name`).textContent = nameOf(race, index);
  });
  const told = (points: "losses" | "accuracies", format: (value: number) => string): string =>
    race.sides.map((side, i) => `${nameOf(race, i)} ${format(side[points].at(-1)?.[1] ?? NaN)}`).join(", ");
  const all = race.sides.flatMap(({ accuracies }) => accuracies.map(([, value]) => value));
  // Above the half where all is, so that the difference is to be seen.
  const low = all.length > 0 && Math.min(...all) >= 0.5 ? 0.5 : 0;
  const whole = (value: number): string => `${Math.round(100 * value)} %`;
  // As far as they have come, so that there is something to see from the beginning.
  const end = Math.min(race.total, ENDS.find((step) => step >= race.step) ?? race.total);
  draw(html("train-loss"), {
    label: race.step === 0 ? "Loss: no steps yet" : `Loss after ${race.step} steps: ${told("losses", (value) => value.toFixed(2))}`,
    end,
    range: [0, 2.75],
    ticks: [0, 0.5, 1, 1.5, 2, 2.5],
    format: (value) => value.toFixed(1),
    lines: race.sides.map(({ losses }) => losses),
  });
  draw(html("train-accuracy"), {
    label: all.length === 0 ? "Test accuracy: no tests yet" : `Test accuracy: ${told("accuracies", percent)}`,
    end,
    range: [low, 1],
    ticks: low === 0 ? [0, 0.25, 0.5, 0.75, 1] : [0.5, 0.6, 0.7, 0.8, 0.9, 1],
    format: whole,
    lines: race.sides.map(({ accuracies }) => accuracies),
  });
}

/** A network's answer; none where nothing was drawn. */
export function answer(index: number, probabilities: Float32Array | undefined): string {
  const name = SIDES[index] ?? "";
  const best = probabilities?.indexOf(Math.max(...probabilities)) ?? -1;
  const text = probabilities === undefined ? "Nothing to read yet" : `${best}, ${Math.round(100 * (probabilities[best] ?? NaN))} % sure`;
  html(`train-${name}-says`).textContent = text;
  const bars = html(`train-${name}-bars`);
  bars.ariaLabel = [...(probabilities ?? [])].map((share, digit) => `${digit}: ${Math.round(100 * share)} %`).join(", ") || text;
  [...bars.children].forEach((bar, digit) => {
    const share = probabilities?.[digit] ?? 0;
    bar.classList.toggle("best", digit === best);
    (bar.children[1] as HTMLElement).style.setProperty("--share", String(share));
    (bar.children[2] as HTMLElement).textContent = probabilities === undefined ? "" : `${Math.round(100 * share)} %`;
  });
  return text;
}

/** Says what is going on; the same is not said twice. */
export function say(text: string): void {
  const status = html("train-status");
  if (status.textContent !== text) {
    status.textContent = text;
  }
}

/** Shows what went wrong, and whether there is a way to start again. */
export function problem(title: string, text: string, restart: boolean): void {
  const box = html("train-problem");
  const [head, body] = [box.querySelector("h2"), box.querySelector("p")];
  if (head !== null && body !== null) {
    [head.textContent, body.textContent] = [title, text];
  }
  html("train-restart").hidden = !restart;
  box.hidden = false;
}

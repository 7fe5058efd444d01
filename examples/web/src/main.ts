import { BcNormError, init, Norm, requestDevice, Tensor, type NormKind, type NormOptions } from "bcnorm";
import { showAdapter } from "./adapter.js";
import { benchmark } from "./benchmark.js";
import { button, canvas, digits, html, input, make, select } from "./dom.js";
import { Drawer } from "./draw.js";
import { CHANNELS, Features, NAMES } from "./features.js";
import { histogram } from "./histogram.js";
import { isSoftware } from "./measure.js";
import { mosaics } from "./mosaic.js";
import { camera, fetched, opened, OWN, square, type Photo } from "./photos.js";
import { Stats, type MapStats } from "./stats.js";
import { theme } from "./theme.js";
import { verify } from "./verify.js";

/** The range of drawn outputs: a normalized map lies within. */
const AFTER: readonly [number, number] = [-3, 3];
const MAX_PHOTOS = 4;

/** What is chosen on the page. */
interface Settings {
  readonly kind: NormKind;
  readonly options: NormOptions;
  readonly training: boolean;
  readonly samples: number;
  readonly size: number;
}

/** What a forward left. */
interface Result {
  readonly x: Tensor;
  readonly y: Tensor;
  readonly before: readonly MapStats[];
  readonly beforeAll: readonly MapStats[];
  readonly after: readonly MapStats[];
  readonly range: readonly [number, number];
}

/** Everything that lives and dies with a device. */
interface Gpu {
  readonly device: GPUDevice;
  readonly drawer: Drawer;
  readonly stats: Stats;
  features?: Features;
  norm?: { key: string; norm: Norm };
  y?: Tensor;
}

let gpu: Gpu | undefined;
let result: Result | undefined;
let chosen = NAMES.indexOf("line 6 px 0°");
let shownPhoto = 0;
let photos: Photo[] = [];
let live: { video: HTMLVideoElement; stop: () => void } | undefined;
let running = false;
let again = false;
let task: AbortController | undefined;

const state = (value: string): void => {
  document.body.dataset["state"] = value;
};
const status = (text: string): void => {
  html("status").textContent = text;
};

/** Shows what went wrong where it cannot be overlooked. */
function problem(title: string, text: string, restart = false): void {
  const box = html("problem");
  const [head, body] = [box.querySelector("h2"), box.querySelector("p")];
  if (head !== null && body !== null) {
    head.textContent = title;
    body.textContent = text.charAt(0).toUpperCase() + text.slice(1);
  }
  button("restart").hidden = !restart;
  box.hidden = false;
}

function tell(error: unknown): void {
  status(error instanceof Error ? error.message : String(error));
}

/** Runs what a control starts; what it throws is told. */
function guarded(run: () => Promise<void> | void): () => void {
  return () => {
    void (async () => run())().catch(tell);
  };
}

function settings(): Settings {
  const chosenNorm = select("norm").value;
  const estimate = chosenNorm === "bc_norm_estimate";
  const kind = (estimate ? "bc_norm" : chosenNorm) as NormKind;
  const options: NormOptions = { numChannels: CHANNELS, eps: 10 ** Number(input("eps").value) };
  if (kind !== "batch_norm") {
    options.numGroups = 2 ** Number(input("groups").value);
  }
  if (estimate) {
    options.movingSpeed = Number(input("speed").value);
  }
  return {
    kind,
    options,
    training: select("mode").value === "train",
    samples: Math.min(Number(input("batch").value), Math.max(1, live === undefined ? photos.length : MAX_PHOTOS)),
    size: Number(select("size").value),
  };
}

/** What the settings mean, beside them. */
function describe({ kind, options, training, samples }: Settings): void {
  const estimate = options.movingSpeed !== undefined;
  html("batch-value").textContent = String(samples);
  html("groups-value").textContent = String(2 ** Number(input("groups").value));
  html("eps-value").textContent = digits(options.eps ?? 0, 2);
  html("speed-value").textContent = Number(input("speed").value).toFixed(2);
  input("groups").disabled = kind === "batch_norm";
  input("speed").disabled = !estimate;
  const texts: Record<string, string> = {
    bc_norm: "Each channel over the batch and space, then groups of channels within each photograph.",
    batch_norm: "Each channel over the batch and space.",
    group_norm: "Groups of channels within each photograph; the batch does not matter.",
  };
  const statistics = kind === "group_norm" ? "" : estimate
    ? " Channels by running estimates, which each training step moves."
    : training ? " By the batch's statistics." : " By running statistics, which training steps have gathered.";
  html("norm-hint").textContent = `${texts[kind] ?? ""}${statistics}`;
}

/** The layer for the settings; its running statistics live as long as kind, groups and eps stay. */
async function layer(gpu: Gpu, { kind, options, training }: Settings): Promise<Norm> {
  const { movingSpeed, ...fixed } = options;
  const key = JSON.stringify([kind, movingSpeed !== undefined, fixed]);
  if (gpu.norm?.key !== key) {
    gpu.norm?.norm.destroy();
    gpu.norm = { key, norm: await Norm.create(gpu.device, kind, options) };
  }
  const { norm } = gpu.norm;
  if (movingSpeed !== undefined) {
    norm.setStats({ movingSpeed });
  }
  if (training) {
    norm.train();
  } else {
    norm.eval();
  }
  norm.setGradEnabled(false);
  return norm;
}

/** Photographs to maps, maps through the norm, all of it onto the page. */
async function compute(): Promise<void> {
  if (gpu === undefined || (photos.length === 0 && live === undefined)) {
    return;
  }
  const now = settings();
  describe(now);
  const { device, drawer, stats } = gpu;
  const { samples, size } = now;
  if (gpu.features?.samples !== samples || gpu.features.size !== size) {
    gpu.features?.destroy();
    gpu.y?.destroy();
    gpu.features = await Features.create(device, samples, size);
    gpu.y = Tensor.zeros(device, gpu.features.x.dims);
  }
  const { features, y } = gpu;
  if (y === undefined) {
    return;
  }
  const { x } = features;
  const norm = await layer(gpu, now);
  await norm.prepare(x);
  for (let n = 0; n < samples; n++) {
    // The camera gives one picture; a batch of it is four looks, each a little later.
    const source = live === undefined ? photos[n]?.source : live.video;
    if (source !== undefined && (live === undefined || n === shownPhoto || !live.video.paused)) {
      features.load(n, square(source, size));
    }
  }
  const maps = device.createCommandEncoder();
  features.encode(maps, Array(samples).keys());
  device.queue.submit([maps.finish()]);
  await device.queue.onSubmittedWorkDone();
  const start = performance.now();
  const encoder = device.createCommandEncoder();
  norm.recordForward(encoder, { x, y });
  device.queue.submit([encoder.finish()]);
  await device.queue.onSubmittedWorkDone();
  const took = performance.now() - start;
  // One scale for all maps, which is what makes most of them flat.
  const own = await stats.measure(x);
  const range = [Math.min(...own.map(({ min }) => min)), Math.max(...own.map(({ max }) => max))] as const;
  const beforeAll = await stats.measure(x, range);
  const after = await stats.measure(y, AFTER);
  shownPhoto = Math.min(shownPhoto, samples - 1);
  result = { x, y, before: own, beforeAll, after, range };
  html("timing").textContent =
    `${(x.byteLength / 2 ** 20).toFixed(1)} MiB of maps, (${x.dims.join(", ")}); forward ${took.toFixed(took < 10 ? 2 : 0)} ms`;
  const shown = select("shown");
  if (shown.options.length !== samples) {
    shown.replaceChildren(
      ...Array.from({ length: samples }, (_, n) => {
        const option = make("option", live === undefined ? (photos[n]?.name ?? "") : `look ${n + 1}`);
        option.value = String(n);
        return option;
      }),
    );
  }
  html("shown-row").hidden = samples < 2;
  shown.value = String(shownPhoto);
  await draw(drawer);
}

async function draw(drawer: Drawer): Promise<void> {
  if (result === undefined) {
    return;
  }
  const { x, y, before, beforeAll, after, range } = result;
  const of = (maps: Tensor, range: readonly [number, number]) => ({ maps, photo: shownPhoto, range });
  const drawn = drawer.draw([
    { canvas: canvas("before"), ...of(x, range) },
    { canvas: canvas("after"), ...of(y, AFTER) },
    { canvas: canvas("map-before"), ...of(x, range), only: chosen },
    { canvas: canvas("map-after"), ...of(y, AFTER), only: chosen },
  ]);
  const name = NAMES[chosen] ?? "";
  html("map-title").textContent = `Map: ${name}`;
  const numbers = (stats: MapStats | undefined): string =>
    stats === undefined ? "" : `mean ${digits(stats.mean)}, variance ${digits(stats.variance)}`;
  html("numbers-before").textContent = numbers(before[chosen]);
  html("numbers-after").textContent = numbers(after[chosen]);
  html("histogram-before").replaceChildren(histogram(beforeAll, chosen, range, `${name}, before`));
  html("histogram-after").replaceChildren(histogram(after, chosen, AFTER, `${name}, after`));
  await drawn;
}

/** Draws what there is once more. */
const redraw = guarded(() => (gpu === undefined ? undefined : draw(gpu.drawer)));

/** Computes once more; where that is going on already, once it is done. */
function update(): void {
  again = true;
  if (gpu === undefined || task !== undefined) {
    return;
  }
  state("working");
  if (running) {
    return;
  }
  running = true;
  void (async () => {
    try {
      while (again && task === undefined) {
        again = false;
        await compute();
        if (live !== undefined) {
          again = true;
          await new Promise((resolve) => requestAnimationFrame(resolve));
        }
      }
      status("Ready.");
    } catch (error) {
      tell(error);
    } finally {
      running = false;
      if (gpu !== undefined && task === undefined) {
        state("ready");
      }
    }
  })();
}

/** Runs verification or benchmark: progress, a stop button, nothing else meanwhile. */
function start(
  run: (device: GPUDevice, progress: (done: number, what: string) => void, signal: AbortSignal) => Promise<string>,
  what: string,
): () => void {
  return guarded(async () => {
    if (gpu === undefined || task !== undefined) {
      return;
    }
    const { device } = gpu;
    const controller = new AbortController();
    task = controller;
    state("working");
    const progress = document.querySelector("progress");
    const buttons = [button("verify"), button("benchmark")];
    buttons.forEach((one) => (one.disabled = true));
    button("stop").hidden = false;
    if (progress !== null) {
      progress.hidden = false;
    }
    try {
      const said = await run(
        device,
        (done, name) => {
          if (progress !== null) {
            progress.value = done;
          }
          status(`${what}: ${name}…`);
        },
        controller.signal,
      );
      status(`${what}: ${said}`);
    } finally {
      task = undefined;
      buttons.forEach((one) => (one.disabled = false));
      button("stop").hidden = true;
      if (progress !== null) {
        progress.hidden = true;
      }
      if (document.body.dataset["state"] === "working") {
        state("ready");
      }
    }
  });
}

function stopCamera(): void {
  live?.stop();
  live = undefined;
  button("camera").setAttribute("aria-pressed", "false");
  select("shown").replaceChildren();
}

/** Shows the chosen pictures; those of the page's own that are among them are pressed. */
function show(next: readonly Photo[]): void {
  stopCamera();
  photos = next.slice(-MAX_PHOTOS);
  input("batch").max = String(Math.max(1, photos.length));
  input("batch").value = String(photos.length);
  for (const name of OWN) {
    const pressed = photos.some((photo) => photo.name === name);
    button(`photo-${name}`).setAttribute("aria-pressed", String(pressed));
  }
  update();
}

async function files(list: FileList | null | undefined): Promise<void> {
  const pictures = [...(list ?? [])].slice(0, MAX_PHOTOS);
  if (pictures.length > 0) {
    show(await Promise.all(pictures.map(opened)));
  }
}

function controls(): void {
  const list = html("photos");
  for (const name of OWN) {
    const choose = make("button");
    choose.type = "button";
    choose.id = `photo-${name}`;
    choose.ariaPressed = "false";
    const picture = make("img");
    picture.src = `photos/${name}.jpg`;
    picture.alt = name;
    choose.append(picture);
    choose.addEventListener(
      "click",
      guarded(async () => {
        const without = photos.filter((photo) => photo.name !== name);
        // The last one stays: there is always something to see.
        if (without.length === photos.length) {
          show([...photos, await fetched(name)]);
        } else if (without.length > 0) {
          show(without);
        }
      }),
    );
    list.append(choose);
  }
  input("file").addEventListener("change", guarded(() => files(input("file").files)));
  const drop = list.closest("fieldset");
  for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]] as const) {
    drop?.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", over);
      if (type === "drop") {
        guarded(() => files((event as DragEvent).dataTransfer?.files))();
      }
    });
  }
  button("camera").addEventListener(
    "click",
    guarded(async () => {
      if (live !== undefined) {
        stopCamera();
        update();
        return;
      }
      live = await camera();
      select("shown").replaceChildren();
      input("batch").max = String(MAX_PHOTOS);
      button("camera").setAttribute("aria-pressed", "true");
      update();
    }),
  );
  for (const id of ["batch", "groups", "eps", "speed"]) {
    input(id).addEventListener("input", update);
  }
  for (const id of ["norm", "mode", "size"]) {
    select(id).addEventListener("change", update);
  }
  select("shown").addEventListener("change", () => {
    shownPhoto = Number(select("shown").value);
    redraw();
  });
  const mark = mosaics(["cells-before", "cells-after"], (map) => {
    chosen = map;
    mark(map);
    redraw();
  });
  mark(chosen);
  html("controls").addEventListener("submit", (event) => event.preventDefault());
  button("verify").addEventListener("click", start(verify, "Verification"));
  button("benchmark").addEventListener("click", start(benchmark, "Benchmark"));
  button("stop").addEventListener("click", () => task?.abort());
  button("restart").addEventListener("click", guarded(begin));
  addEventListener("resize", redraw);
}

/** Takes a device; again, after one was lost. */
async function begin(): Promise<void> {
  html("problem").hidden = true;
  state("starting");
  status("Starting…");
  try {
    await init();
    const device = await requestDevice({ powerPreference: "high-performance", limits: "adapter" });
    device.addEventListener("uncapturederror", ({ error }) => tell(error));
    gpu = { device, drawer: await Drawer.create(device), stats: await Stats.create(device) };
    void device.lost.then(({ message }) => {
      gpu = undefined;
      result = undefined;
      task?.abort();
      state("lost");
      problem("The GPU was lost", message || "The browser or the driver has taken the device away.", true);
    });
    showAdapter(device);
    if (select("size").dataset["chosen"] === undefined) {
      select("size").dataset["chosen"] = "true";
      select("size").value = isSoftware(device) ? "96" : "256";
    }
    if (photos.length === 0) {
      status("Loading photographs…");
      show(await Promise.all(["chelsea", "rocket"].map(fetched)));
    } else {
      update();
    }
  } catch (error) {
    state("unsupported");
    status("");
    const code = error instanceof BcNormError ? error.code : "";
    const missing = code === "no-webgpu" || code === "no-adapter";
    problem(
      missing ? "No WebGPU here" : "That did not work",
      `${error instanceof Error ? error.message : String(error)}${missing ? WHERE : ""}`,
      !missing,
    );
  }
}

const WHERE = `

Recent versions of Chrome, Edge, Safari and Firefox have it. On Linux, Chrome may want chrome://flags/#enable-unsafe-webgpu; Firefox may want dom.webgpu.enabled in about:config.`;

theme();
controls();
void begin();

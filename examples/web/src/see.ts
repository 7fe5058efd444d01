/** The tab "See": from what is chosen to what is shown. */
import { codeOf, run } from "./code.js";
import { controls, display } from "./controls.js";
import { copies } from "./copy.js";
import { button, html } from "./dom.js";
import { part, type Engine, type Picture, type Work } from "./engine.js";
import { camera, square } from "./photos.js";
import { DEFAULTS, fromAddress, layerOf, normsOf, toAddress, type Settings } from "./settings.js";
import { AFTER, draw, type Shown } from "./show.js";
import { ASKED, guarded, offer, say, sentence, state, tracked } from "./status.js";
import { tabProblems } from "./tabs.js";

/** A change waits for what is being computed for so long at most, in milliseconds; then that is given up. */
const PATIENCE = 300;

/** The camera, playing: four looks at most, each a little later. */
interface Live {
  readonly video: HTMLVideoElement;
  readonly stop: () => void;
  readonly looks: object[];
  frame: number;
}

let defaults: Settings = DEFAULTS;
let settings: Settings = DEFAULTS;
/** Whether the size was asked for, rather than what suits the engine. */
let sized = false;
let engine: Engine | undefined;
let shown: Shown | undefined;
let live: Live | undefined;
/** Whether something was chosen that is not computed yet. */
let pending = false;
/** What is going on: a computation, since when; or something that needs the engine alone. */
let computing: { readonly controller: AbortController; readonly since: number; readonly done: Promise<void> } | undefined;
let alone: AbortController | undefined;

/** What only changes how it is drawn. */
const VIEW = ["scale", "map", "shown"] as const;
const view = ({ scale, map, shown }: Settings): Partial<Settings> => ({ scale, map, shown });

function refresh(): void {
  display(settings, live !== undefined);
  html("code").textContent = codeOf(settings, engine === undefined || engine.device !== undefined);
  const address = new URL(location.href);
  const tab = address.searchParams.get("tab");
  const parameters = toAddress(settings, sized ? { ...defaults, size: 0 } : defaults);
  if (tab !== null) {
    parameters.set("tab", tab);
  }
  address.search = parameters.toString();
  history.replaceState(null, "", address);
}

/** Changes settings, at once; what follows from it is computed or drawn as soon as may be. */
function change(patch: (now: Settings) => Partial<Settings>): void {
  const before = settings;
  const wanted = patch(settings);
  sized ||= wanted.size !== undefined;
  if (live !== undefined && wanted.photos !== undefined) {
    stopCamera();
  }
  settings = { ...settings, ...wanted };
  settings = { ...settings, shown: Math.min(settings.shown, settings.batch - 1) };
  html("notice").hidden = true;
  html("ran").textContent = "";
  refresh();
  const same = (Object.keys(settings) as (keyof Settings)[]).every(
    (name) => VIEW.some((one) => one === name) || settings[name] === before[name],
  );
  if (same && wanted.photos === undefined) {
    redraw();
  } else {
    update();
  }
}

const redraw = guarded(async () => {
  if (engine !== undefined && shown !== undefined) {
    await draw(engine, shown, settings);
  }
});

/** Computes what is chosen; where something is going on, after it. */
function update(): void {
  pending = true;
  // What nobody sees is computed once it is.
  if (engine === undefined || html("see").hidden) {
    return;
  }
  state("working");
  if (alone !== undefined) {
    return;
  }
  if (computing === undefined) {
    void loop(engine);
  } else if (performance.now() - computing.since > PATIENCE) {
    computing.controller.abort();
  }
}

async function loop(on: Engine): Promise<void> {
  html("maps").ariaBusy = "true";
  let said = "Ready.";
  const again = (): boolean => pending && alone === undefined && engine === on;
  do {
    pending = false;
    const wanted = settings;
    const controller = new AbortController();
    let finished = (): void => {};
    computing = { controller, since: performance.now(), done: new Promise((resolve) => (finished = resolve)) };
    try {
      if (live === undefined) {
        say("Computing…");
        shown = await tracked(controller, "Cancel", (work) => compute(on, wanted, work));
      } else {
        say("The camera is on.");
        shown = await compute(on, wanted, { signal: controller.signal, at: () => {} });
      }
      await draw(on, shown, settings);
      said = "Ready.";
      if (live !== undefined) {
        pending = true;
        await new Promise((resolve) => requestAnimationFrame(resolve));
      }
    } catch (error) {
      if (!pending || controller.signal.reason === ASKED) {
        pending = false;
        said = back(controller.signal.reason === ASKED ? "Cancelled." : sentence(error));
      }
    } finally {
      computing = undefined;
      finished();
    }
  } while (again());
  html("maps").ariaBusy = "false";
  if (engine !== on) {
    return;
  }
  if (alone === undefined) {
    say(said);
    state("ready");
    if (shown === undefined) {
      offer("Compute", update);
    }
  }
}

/** Goes back to the settings of what is shown, since what was wanted is not. */
function back(why: string): string {
  stopCamera();
  if (shown === undefined) {
    return why;
  }
  settings = { ...shown.settings, ...view(settings), shown: Math.min(settings.shown, shown.settings.batch - 1) };
  refresh();
  return `${why} The settings are those of the picture again.`;
}

/** Photographs to maps, maps through the norms, and what there is to say of them. */
async function compute(on: Engine, wanted: Settings, work: Work): Promise<Shown> {
  const { size } = wanted;
  const pictures = await looks(wanted);
  work.signal.throwIfAborted();
  const layers = normsOf(wanted).map((name) => layerOf(wanted, name));
  const ms = await on.compute(pictures, size, layers, part(work, 0, 0.9));
  work.at("Drawing", 0.9);
  const own = await on.measure("before");
  // One scale for all maps, which is what makes most of them flat.
  const range = [Math.min(...own.map(({ min }) => min)), Math.max(...own.map(({ max }) => max))] as const;
  const all = await on.measure("before", range);
  const after = [await on.measure("after", AFTER), ...(layers.length > 1 ? [await on.measure("second", AFTER)] : [])];
  const names = pictures.map(({ name }) => name);
  return { settings: wanted, dims: [pictures.length, own.length, size, size], names, ms, own, all, range, after };
}

/** The pictures of the batch: photographs, or the camera's looks, of which one is taken anew each time. */
async function looks({ photos, batch }: Settings): Promise<Picture[]> {
  if (live === undefined) {
    const load = photos.slice(0, batch).map(async (photo): Promise<Picture> => {
      const source = await photo.load();
      return { key: photo, name: photo.name, pixels: (size) => square(source, size) };
    });
    return Promise.all(load);
  }
  const { video, looks } = live;
  looks[live.frame++ % batch] = {};
  return Array.from({ length: batch }, (_, n) => ({
    key: (looks[n] ??= {}),
    name: `look ${n + 1}`,
    pixels: (size: number) => square(video, size),
  }));
}

function stopCamera(): void {
  live?.stop();
  live = undefined;
}

/** Runs something that needs the engine alone; what is chosen meanwhile is computed afterwards. */
export async function exclusively<T>(
  run: (engine: Engine, controller: AbortController) => Promise<T>,
): Promise<T | undefined> {
  if (engine === undefined || alone !== undefined) {
    return undefined;
  }
  const on = engine;
  const controller = new AbortController();
  alone = controller;
  state("working");
  try {
    await computing?.done;
    return await run(on, controller);
  } finally {
    alone = undefined;
    if (engine === on) {
      state("ready");
      if (pending) {
        update();
      }
    }
  }
}

/** Takes an engine, with the size that suits it where none was asked for; none: the one there was is lost. */
export function use(next: Engine | undefined, size: number): void {
  engine = next;
  shown = undefined;
  computing?.controller.abort();
  alone?.abort();
  if (next !== undefined) {
    defaults = { ...defaults, size };
    settings = sized ? settings : { ...settings, size };
    refresh();
    state("ready");
    say("Ready.");
    update();
  }
}

/** What the address asks for, and the controls. */
export function see(): void {
  const found = fromAddress(new URLSearchParams(location.search), defaults);
  settings = found.settings;
  sized = found.given.has("size");
  const problems = [...tabProblems(), ...found.problems];
  const list = html("notice");
  list.hidden = problems.length === 0;
  list.querySelector("ul")?.replaceChildren(
    ...problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  controls(change, () => live !== undefined);
  refresh();
  button("camera").addEventListener(
    "click",
    guarded(async () => {
      if (live === undefined) {
        live = { ...(await camera()), looks: [], frame: 0 };
      } else {
        stopCamera();
        settings = { ...settings, batch: Math.min(settings.batch, settings.photos.length) };
      }
      refresh();
      update();
    }),
  );
  copies("copy-code", () => html("code").textContent ?? "", "Code");
  button("run-code").addEventListener(
    "click",
    guarded(async () => {
      const said = await exclusively((on) => {
        say("Running the code…");
        return run(html("code").textContent ?? "", on);
      });
      if (said !== undefined) {
        html("ran").textContent = said;
        say("Ready.");
      }
    }),
  );
  addEventListener("resize", redraw);
}

/** The tab is opened, or another one. */
export function seen(visible: boolean): void {
  if (!visible && live !== undefined) {
    stopCamera();
    settings = { ...settings, batch: Math.min(settings.batch, settings.photos.length) };
    refresh();
    pending = true;
  } else if (visible && pending) {
    update();
  } else if (visible) {
    redraw();
  }
}

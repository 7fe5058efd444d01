/** The tab "See": from what is chosen to what is shown. */
import { codeOf, run } from "./code.js";
import { compute, looks, measured, type Live } from "./compute.js";
import { controls, display } from "./controls.js";
import { copies } from "./copy.js";
import { button, html } from "./dom.js";
import type { Engine, Work } from "./engine.js";
import { camera } from "./photos.js";
import { DEFAULTS, fromAddress, toAddress, type Settings } from "./settings.js";
import { draw, type Shown } from "./show.js";
import { ASKED, guarded, offer, say, sentence, state, tracked } from "./status.js";
import { tabOf, tabProblems } from "./tabs.js";

/** A change waits for what is being computed for so long at most, in milliseconds; then that is given up. */
const PATIENCE = 300;

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
let writing = 0;

/** What only changes how it is drawn. */
const VIEW = ["scale", "map", "shown"] as const;

/** Without the camera a batch is of photographs that there are; one of the batch is shown. */
function within(chosen: Settings): Settings {
  const batch = live === undefined ? Math.min(chosen.batch, chosen.photos.length) : chosen.batch;
  return { ...chosen, batch, shown: Math.min(chosen.shown, batch - 1) };
}

/** Shows what is chosen, on the page and in its address. */
function refresh(): void {
  display(settings, live !== undefined);
  html("code").textContent = codeOf(settings, engine === undefined || engine.device !== undefined);
  // Browsers refuse a page that changes its address too often: Safari 100 times in 30 seconds, which a held key reaches.
  clearTimeout(writing);
  writing = setTimeout(writeAddress, 200);
}

function writeAddress(): void {
  const address = new URL(location.href);
  const parameters = toAddress(settings, sized ? { ...defaults, size: 0 } : defaults);
  if (tabOf() !== "see") {
    parameters.set("tab", tabOf());
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
  settings = within({ ...settings, ...wanted });
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
  let said = "Ready.";
  const again = (): boolean => pending && alone === undefined && engine === on;
  do {
    pending = false;
    html("maps").ariaBusy = String(live === undefined);
    const wanted = settings;
    const controller = new AbortController();
    let finished = (): void => {};
    computing = { controller, since: performance.now(), done: new Promise((resolve) => (finished = resolve)) };
    const from = live;
    const step = async (work: Work): Promise<Shown> => {
      work.at("Loading photographs", 0);
      const pictures = await looks(wanted, from);
      work.at("Computing", 0);
      const ms = await compute(on, pictures, wanted, work);
      // The engine's maps are others now: nothing is drawn of them before they are measured.
      shown = undefined;
      return measured(on, pictures, wanted, ms);
    };
    try {
      if (from === undefined) {
        shown = await tracked(controller, "Cancel", step);
      } else {
        say("The camera is on.");
        shown = await step({ signal: controller.signal, at: () => {} });
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
    // Another one has come meanwhile, or none.
    if (pending) {
      update();
    }
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
  const { scale, map, shown: photo } = settings;
  settings = within({ ...shown.settings, scale, map, shown: photo });
  refresh();
  return `${why} The settings are those of the picture again.`;
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
        settings = within(settings);
      }
      refresh();
      update();
    }),
  );
  copies("copy-code", () => html("code").textContent ?? "", "Code");
  button("run-code").addEventListener(
    "click",
    guarded(async () => {
      const text = html("code").textContent ?? "";
      const said = await exclusively((on) => {
        say("Running the code…");
        return run(text, on);
      });
      // Where another setting was chosen meanwhile, it was another setting's.
      if (said !== undefined && text === html("code").textContent) {
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
    settings = within(settings);
    refresh();
    pending = true;
  } else if (visible && pending) {
    update();
  } else if (visible) {
    redraw();
  }
}

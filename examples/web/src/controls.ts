/** The settings' controls: what they show is what is chosen, and what they change is told. */
import { CHANNELS } from "./bank.js";
import { button, digits, html, input, make, select } from "./dom.js";
import { MAX_PHOTOS, type Which } from "./engine.js";
import { mosaics } from "./mosaic.js";
import { opened, OWN, own, type OwnName, type Photo } from "./photos.js";
import { epsilon, groupCount, layerOf, NORMS, normsOf, SIZES, STEPS } from "./settings.js";
import { usesGroups, usesSpeed, usesSteps, type NormName, type Settings } from "./settings.js";
import { guarded } from "./status.js";

/** What changes settings: of those in force, since two clicks may come before anything is computed. */
export type Change = (patch: (now: Settings) => Partial<Settings>) => void;

const MEANING: Readonly<Record<NormName, string>> = {
  bc_norm: "each channel by the batch's statistics, then groups of channels within each photograph",
  bc_norm_estimate:
    "each channel by running estimates, which training steps move, then groups of channels within each photograph",
  batch_norm: "each channel over the batch and space",
  group_norm: "groups of channels within each photograph; the batch does not matter",
};

let mark: (map: number) => void = () => {};

const options = (id: string, entries: readonly (readonly [string, string])[]): void => {
  select(id).replaceChildren(
    ...entries.map(([value, text]) => {
      const option = make("option", text);
      option.value = value;
      return option;
    }),
  );
};

const note = (text: string): void => {
  html("batch-note").textContent = text;
};

/** As many photographs as go together; the earliest make room. */
function limited(photos: readonly Photo[]): Partial<Settings> {
  const kept = photos.slice(-MAX_PHOTOS);
  if (kept.length < photos.length) {
    const gone = photos.slice(0, -MAX_PHOTOS).map(({ name }) => name);
    note(`${MAX_PHOTOS} photographs at a time: ${gone.join(", ")} made room.`);
  }
  return { photos: kept, batch: kept.length };
}

/** Shows settings. */
export function display(settings: Settings, live: boolean): void {
  const { photos, batch } = settings;
  for (const name of OWN) {
    button(`photo-${name}`).ariaPressed = String(!live && photos.includes(own(name)));
  }
  button("camera").ariaPressed = String(live);
  const available = live ? MAX_PHOTOS : photos.length;
  input("batch").value = String(batch);
  html("batch-value").textContent = `${batch} of ${available}`;
  for (const id of ["size", "norm", "compare", "mode", "steps"] as const) {
    select(id).value = String(settings[id]);
  }
  input("groups").value = String(settings.groups);
  input("eps").value = String(settings.eps);
  input("speed").value = String(settings.speed);
  html("groups-value").textContent = `${groupCount(settings)} of ${CHANNELS / groupCount(settings)} channels`;
  html("eps-value").textContent = digits(epsilon(settings), 2);
  html("speed-value").textContent = settings.speed.toFixed(2);
  html("groups-row").hidden = !usesGroups(settings);
  html("groups-none").hidden = usesGroups(settings);
  html("speed-row").hidden = !usesSpeed(settings);
  html("steps-row").hidden = !usesSteps(settings);
  button("scale").ariaPressed = String(settings.scale === "own");
  const norms = normsOf(settings);
  html("norm-hint").replaceChildren(
    ...norms.map((name) => {
      const line = make("li", `: ${MEANING[name]}${how(settings, name)}.`);
      line.prepend(make("b", NORMS[name]));
      return line;
    }),
  );
  mark(settings.map);
  if (norms.length < 2 && html("pair").dataset["view"] === "second") {
    look("after");
  }
}

/** Where there is room for one picture only: which. */
function look(which: Which): void {
  html("pair").dataset["view"] = which;
  input(`view-${which}-input`).checked = true;
}

/** What training and evaluation make of a norm. */
function how(settings: Settings, name: NormName): string {
  const { kind, before, training } = layerOf(settings, name);
  if (training || kind === "group_norm") {
    return before > 0 ? `. Shown: training step ${before + 1} of a new layer` : "";
  }
  const steps = before === 1 ? "a training step" : `${before} training steps`;
  return `. Evaluation: by what a new layer remembers of ${steps}`;
}

async function files(list: FileList | null | undefined, change: Change): Promise<void> {
  const pictures = [...(list ?? [])];
  const photos = await Promise.all(pictures.slice(0, MAX_PHOTOS).map(opened));
  if (photos.length > 0) {
    change(() => limited(photos));
  }
  if (pictures.length > MAX_PHOTOS) {
    note(`${MAX_PHOTOS} photographs at a time: the first ${MAX_PHOTOS} of ${pictures.length} are taken.`);
  }
}

/** Clicks a photograph: chosen or not, in the order of the clicks. */
function toggle(name: OwnName, now: Settings, live: boolean): Partial<Settings> {
  note("");
  const photo = own(name);
  if (live || !now.photos.includes(photo)) {
    return limited(live ? [photo] : [...now.photos, photo]);
  }
  const photos = now.photos.filter((one) => one !== photo);
  if (photos.length === 0) {
    note("One photograph stays: choose another one first.");
    return {};
  }
  return { photos, batch: photos.length };
}

/** Makes the controls; `live` says whether the camera is on. */
export function controls(change: Change, live: () => boolean): void {
  options("norm", Object.entries(NORMS));
  options("compare", [["none", "nothing"], ...Object.entries(NORMS)]);
  options("size", SIZES.map((size) => [String(size), String(size)]));
  options("steps", STEPS.map((steps) => [String(steps), String(steps)]));
  const list = html("photos");
  for (const name of OWN) {
    const choose = make("button");
    choose.type = "button";
    choose.id = `photo-${name}`;
    const picture = make("img");
    picture.src = `photos/${name}.jpg`;
    picture.alt = name;
    choose.append(picture);
    choose.addEventListener("click", () => change((now) => toggle(name, now, live())));
    list.append(choose);
  }
  const file = input("file");
  file.addEventListener(
    "change",
    guarded(async () => {
      await files(file.files, change).finally(() => (file.value = ""));
    }),
  );
  const drop = list.closest("fieldset");
  for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]] as const) {
    drop?.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", over);
      if (type === "drop") {
        guarded(() => files((event as DragEvent).dataTransfer?.files, change))();
      }
    });
  }
  input("batch").addEventListener("input", () => {
    const wanted = Number(input("batch").value);
    change(({ photos }) => {
      const most = live() ? MAX_PHOTOS : photos.length;
      const chosen = most === 1 ? "1 photograph is" : `${most} photographs are`;
      note(wanted > most ? `Only ${chosen} chosen: choose more for a larger batch.` : "");
      return { batch: Math.min(wanted, most) };
    });
  });
  for (const id of ["groups", "eps", "speed"] as const) {
    input(id).addEventListener("input", () => change(() => ({ [id]: Number(input(id).value) })));
  }
  for (const id of ["size", "steps", "shown"] as const) {
    select(id).addEventListener("change", () => change(() => ({ [id]: Number(select(id).value) })));
  }
  for (const id of ["norm", "compare", "mode"] as const) {
    select(id).addEventListener("change", () => change(() => ({ [id]: select(id).value })));
  }
  button("scale").addEventListener("click", () => change(({ scale }) => ({ scale: scale === "own" ? "one" : "own" })));
  for (const which of ["before", "after", "second"] as const) {
    input(`view-${which}-input`).addEventListener("change", () => {
      look(which);
      // What was hidden has nothing drawn.
      change(() => ({}));
    });
  }
  mark = mosaics(["cells-before", "cells-after", "cells-second"], (map) => change(() => ({ map })));
  html("controls").addEventListener("submit", (event) => event.preventDefault());
}

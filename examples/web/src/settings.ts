/** What is chosen on the page: values that never change, so that those of the picture shown are known. */
import type { NormKind, NormOptions } from "bcnorm";
import { CHANNELS, NAMES } from "./bank.js";
import { MAX_PHOTOS, type Layer } from "./engine.js";
import { OWN, own, type Photo } from "./photos.js";

/** The norms to choose from, by their names in the address. */
export const NORMS = {
  bc_norm: "BCNorm, batch statistics",
  bc_norm_estimate: "BCNorm, estimates",
  batch_norm: "BatchNorm",
  group_norm: "GroupNorm",
} as const;
export type NormName = keyof typeof NORMS;

export const SIZES = [64, 96, 128, 192, 256, 384] as const;
export const STEPS = [1, 5, 20, 50, 100] as const;

export interface Settings {
  readonly photos: readonly Photo[];
  /** How many of the photographs are normalized together: at most all. */
  readonly batch: number;
  readonly size: number;
  readonly norm: NormName;
  /** A second norm beside the first. */
  readonly compare: NormName | "none";
  readonly mode: "train" | "eval";
  /** Powers: of 2, of 10. */
  readonly groups: number;
  readonly eps: number;
  readonly speed: number;
  /** Training steps that a new layer takes, where its output depends on them. */
  readonly steps: number;
  /** Before: all maps on one scale, or each on its own. */
  readonly scale: "one" | "own";
  /** The map that is looked at closely. */
  readonly map: number;
  /** The photograph that is shown of the batch. */
  readonly shown: number;
}

export const DEFAULTS: Settings = {
  photos: (["chelsea", "rocket"] as const).map(own),
  batch: 2,
  size: 96,
  norm: "bc_norm",
  compare: "none",
  mode: "train",
  groups: 3,
  eps: -5,
  speed: 0.25,
  steps: 50,
  scale: "one",
  map: NAMES.indexOf("line 6 px 0°"),
  shown: 0,
};

export const epsilon = ({ eps }: Settings): number => Number((10 ** eps).toPrecision(3));
export const groupCount = ({ groups }: Settings): number => 2 ** groups;

/** The norms that are shown: one or two. */
export function normsOf({ norm, compare }: Settings): NormName[] {
  return compare === "none" ? [norm] : [norm, compare];
}

/** Whether a norm keeps statistics of its channels. */
const tracks = (name: NormName): boolean => name !== "group_norm";

export const usesGroups = (settings: Settings): boolean => normsOf(settings).some((name) => name !== "batch_norm");
export const usesSpeed = (settings: Settings): boolean => normsOf(settings).includes("bc_norm_estimate");
export const usesSteps = (settings: Settings): boolean =>
  normsOf(settings).some((name) => name === "bc_norm_estimate" || layerOf(settings, name).before > 0);

/** The layer that a norm of the page is. */
export function layerOf(settings: Settings, name: NormName): Layer {
  const estimate = name === "bc_norm_estimate";
  const kind: NormKind = estimate ? "bc_norm" : name;
  const options: NormOptions = { numChannels: CHANNELS };
  if (kind !== "batch_norm") {
    options.numGroups = groupCount(settings);
  }
  options.eps = epsilon(settings);
  if (estimate) {
    options.movingSpeed = settings.speed;
  }
  const training = settings.mode === "train";
  // Training by the batch's statistics leaves the same whatever came before. The output of a training step is shown, too.
  const before = training ? (estimate ? settings.steps - 1 : 0) : tracks(name) ? settings.steps : 0;
  return { kind, options, before, training };
}

/** A setting in the address: how it is written, and what it may be. */
interface Field<K extends keyof Settings> {
  readonly write: (settings: Settings) => string;
  /** Undefined where it is none. */
  readonly read: (text: string) => Settings[K] | undefined;
  readonly may: string;
}

function choice<T extends string | number>(
  values: readonly T[],
): { read: (text: string) => T | undefined; may: string } {
  return { read: (text) => values.find((value) => String(value) === text), may: `one of ${values.join(", ")}` };
}

/** A number in steps, as a slider has it. */
const number =
  (low: number, high: number, step: number, to = (value: number): number => value) =>
  (text: string): number | undefined => {
    const value = text.trim() === "" ? Number.NaN : to(Number(text));
    const near = Math.round(value / step) * step;
    return near >= low && near <= high && Math.abs(near - value) < step / 50 ? Number(near.toFixed(2)) : undefined;
  };

const NAMES_OF_NORMS = Object.keys(NORMS) as NormName[];

const FIELDS: { readonly [K in keyof Settings]?: Field<K> } = {
  photos: {
    // Pictures of the visitor's stay on the visitor's device.
    write: ({ photos }) => photos.flatMap(({ own, name }) => (own ? [name] : [])).join(","),
    read: (text) => {
      const names = text.split(",").filter((name, index, all) => all.indexOf(name) === index);
      const found = names.flatMap((name) => OWN.find((one) => one === name) ?? []);
      return found.length === names.length && names.length <= MAX_PHOTOS ? found.map(own) : undefined;
    },
    may: `up to ${MAX_PHOTOS} of ${OWN.join(", ")}, with commas`,
  },
  batch: { write: ({ batch }) => String(batch), read: number(1, MAX_PHOTOS, 1), may: `a whole number from 1 to ${MAX_PHOTOS}` },
  size: { write: ({ size }) => String(size), ...choice(SIZES) },
  norm: { write: ({ norm }) => norm, ...choice(NAMES_OF_NORMS) },
  compare: { write: ({ compare }) => compare, ...choice(["none", ...NAMES_OF_NORMS] as const) },
  mode: { write: ({ mode }) => mode, ...choice(["train", "eval"] as const) },
  groups: {
    write: (settings) => String(groupCount(settings)),
    read: (text) => [0, 1, 2, 3, 4, 5].find((power) => String(2 ** power) === text),
    may: "one of 1, 2, 4, 8, 16, 32",
  },
  eps: {
    write: (settings) => String(epsilon(settings)),
    read: number(-8, 1, 0.5, (value) => (value > 0 ? Math.log10(value) : Number.NaN)),
    may: "a power of 10 in half steps from 1e-8 to 10, such as 1e-5 or 3.16e-5",
  },
  speed: { write: ({ speed }) => String(speed), read: number(0, 1, 0.05), may: "a number from 0 to 1 in steps of 0.05" },
  steps: { write: ({ steps }) => String(steps), ...choice(STEPS) },
  scale: { write: ({ scale }) => scale, ...choice(["one", "own"] as const) },
  map: {
    write: ({ map }) => NAMES[map] ?? "",
    read: (text) => [...NAMES.keys()].find((map) => NAMES[map] === text),
    may: "the name of a map, such as luma",
  },
};

/** Settings from an address; what it asks for in vain is told. */
export function fromAddress(
  parameters: URLSearchParams,
  defaults: Settings,
): { settings: Settings; given: ReadonlySet<string>; problems: string[] } {
  const problems: string[] = [];
  const given = new Set<string>();
  let settings = defaults;
  for (const [name, field] of Object.entries(FIELDS)) {
    const text = parameters.get(name);
    if (text === null) {
      continue;
    }
    const value = field.read(text);
    if (value === undefined) {
      problems.push(`${name}=${text}: it must be ${field.may}. The default is used.`);
    } else {
      settings = { ...settings, [name]: value };
      given.add(name);
    }
  }
  const { photos } = settings;
  const most = photos.length;
  if (!given.has("batch")) {
    settings = { ...settings, batch: most };
  } else if (settings.batch > most) {
    problems.push(`batch=${settings.batch}: it must be at most the number of photographs, ${most}. ${most} is used.`);
    settings = { ...settings, batch: most };
  }
  return { settings, given, problems };
}

/** The settings that are not the defaults, for the address. */
export function toAddress(settings: Settings, defaults: Settings): URLSearchParams {
  const parameters = new URLSearchParams();
  const usual: Settings = { ...defaults, batch: settings.photos.length };
  for (const [name, field] of Object.entries(FIELDS)) {
    const text = field.write(settings);
    if (text !== "" && text !== field.write(usual)) {
      parameters.set(name, text);
    }
  }
  return parameters;
}

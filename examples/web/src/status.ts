/** The bar at the page's foot: what is going on, how far it is, and how to stop it. */
import { button, element, html } from "./dom.js";
import type { Work } from "./engine.js";

type State = "starting" | "ready" | "working" | "lost" | "unsupported";

export function state(value: State): void {
  document.body.dataset["state"] = value;
}

export function say(text: string): void {
  const status = html("status");
  // A screen reader is not told the same twice.
  if (status.textContent !== text) {
    status.textContent = text;
  }
}

export const sentence = (error: unknown): string => {
  const text = error instanceof Error ? error.message : String(error);
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
};

export const tell = (error: unknown): void => say(sentence(error));

/** Runs what a control starts; what it throws is told. */
export function guarded(run: () => Promise<void> | void): () => void {
  return () => {
    void (async () => run())().catch(tell);
  };
}

/** What the bar's button does at present. */
let pressed: (() => void) | undefined;

/** Offers something by the bar's button; nothing: hides it. Focus that it had goes to `instead`. */
export function offer(text: string, press?: () => void, instead = "maps"): void {
  const stop = button("stop");
  pressed = press;
  stop.textContent = text;
  if (press === undefined && document.activeElement === stop) {
    html(instead).focus({ preventScroll: true });
  }
  stop.hidden = press === undefined;
}

/** Why work was aborted. */
export const ASKED = new DOMException("stopped", "AbortError");

/** Runs work: the bar shows how far it is, and its button stops it. */
export async function tracked<T>(
  controller: AbortController,
  verb: string,
  run: (work: Work) => Promise<T>,
  instead?: string,
): Promise<T> {
  const [progress, percent] = [element("progress", HTMLProgressElement), html("percent")];
  const at = (what: string, done: number): void => {
    say(controller.signal.aborted ? "Stopping…" : `${what}…`);
    progress.value = done;
    percent.textContent = `${Math.floor(100 * done)} %`;
  };
  progress.value = 0;
  percent.textContent = "";
  progress.hidden = false;
  offer(verb, () => {
    say("Stopping…");
    controller.abort(ASKED);
  });
  try {
    return await run({ signal: controller.signal, at });
  } finally {
    progress.hidden = true;
    percent.textContent = "";
    offer(verb, undefined, instead);
  }
}

/** Shows what went wrong where it cannot be overlooked. */
export function problem(title: string, text: string, restart = false): void {
  const box = html("problem");
  const [head, body] = [box.querySelector("h2"), box.querySelector("p")];
  if (head !== null && body !== null) {
    head.textContent = title;
    body.textContent = text;
  }
  button("restart").hidden = !restart;
  box.hidden = false;
}

/** Brings results into view, and the focus with them, unless it has left the button that asked for them. */
export function reveal(id: string, asked: HTMLButtonElement): void {
  const target = html(id);
  const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const here = document.activeElement;
  if (here === null || here === document.body || here === asked) {
    target.focus({ preventScroll: true });
  }
  target.scrollIntoView({ behavior: reduced ? "auto" : "smooth", block: "start" });
}

export function bar(): void {
  button("stop").addEventListener("click", () => pressed?.());
}

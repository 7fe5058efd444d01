import { make } from "./dom.js";
import { sentence } from "./status.js";

/** The tab "Train" is a module of its own, which loads a framework: it is fetched when it is opened first. */
const MODULE = "./train/main.js";

let opened = false;

async function mount(panel: HTMLElement): Promise<void> {
  const style = make("link");
  style.rel = "stylesheet";
  style.href = "train.css";
  document.head.append(style);
  const { mount }: { mount: (panel: HTMLElement) => Promise<void> } = await import(MODULE);
  panel.replaceChildren();
  await mount(panel);
}

/** Opens it, once; where it cannot be loaded it says so. */
export function training(panel: HTMLElement): void {
  if (opened) {
    return;
  }
  opened = true;
  panel.replaceChildren(make("p", "Loading…"));
  mount(panel).catch((error: unknown) => {
    panel.replaceChildren(make("p", `Training cannot be loaded: ${sentence(error)} Reload the page to try again.`));
  });
}

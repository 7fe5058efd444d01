import { NAMES } from "./bank.js";
import { html } from "./dom.js";
import { COLUMNS } from "./engine.js";

const STEPS: Readonly<Record<string, number>> = {
  ArrowLeft: -1,
  ArrowRight: 1,
  ArrowUp: -COLUMNS,
  ArrowDown: COLUMNS,
};

/**
 * The cells over the mosaics: a map is chosen by a click, or by arrow keys within a mosaic, of which one cell at a
 * time is in the tab order.
 */
export function mosaics(ids: readonly string[], choose: (map: number) => void): (map: number) => void {
  const cells = ids.map((id) => {
    const list = html(id);
    const options = NAMES.map((name, map) => {
      const option = document.createElement("div");
      option.role = "option";
      option.title = name;
      option.ariaLabel = name;
      option.addEventListener("click", () => choose(map));
      return option;
    });
    list.append(...options);
    list.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      const now = options.indexOf(document.activeElement as HTMLDivElement);
      if (step === undefined || now < 0) {
        return;
      }
      event.preventDefault();
      const next = now + step;
      if (next >= 0 && next < options.length) {
        choose(next);
        options[next]?.focus();
      }
    });
    return options;
  });
  return (chosen) => {
    for (const options of cells) {
      options.forEach((option, map) => {
        option.ariaSelected = String(map === chosen);
        option.tabIndex = map === chosen ? 0 : -1;
      });
    }
  };
}

/** The page's tabs, in the manner of WAI-ARIA: arrow keys move between them, Enter or Space opens. */
import { element, html } from "./dom.js";

const TABS = ["see", "train", "check"] as const;
type Tab = (typeof TABS)[number];

const tab = (name: Tab): HTMLButtonElement => element(`tab-${name}`, HTMLButtonElement);
const asked = (): string | null => new URLSearchParams(location.search).get("tab");

/** The tab that the address asks for. */
export function tabOf(): Tab {
  return TABS.find((name) => name === asked()) ?? "see";
}

/** What is wrong with the address's tab. */
export function tabProblems(): string[] {
  const text = asked();
  return text === null || TABS.some((name) => name === text)
    ? []
    : [`tab=${text}: it must be one of ${TABS.join(", ")}. The default is used.`];
}

/** Opens tabs, and calls what a tab does when it is opened. */
export function tabs(opened: Readonly<Record<Tab, (panel: HTMLElement) => void>>): void {
  const show = (chosen: Tab): void => {
    for (const name of TABS) {
      const current = name === chosen;
      tab(name).ariaSelected = String(current);
      tab(name).tabIndex = current ? 0 : -1;
      html(name).hidden = !current;
    }
    opened[chosen](html(chosen));
  };
  TABS.forEach((name, index) => {
    tab(name).addEventListener("click", () => {
      if (name !== tabOf()) {
        const address = new URL(location.href);
        if (name === "see") {
          address.searchParams.delete("tab");
        } else {
          address.searchParams.set("tab", name);
        }
        history.pushState(null, "", address);
      }
      show(name);
    });
    tab(name).addEventListener("keydown", (event) => {
      const { key } = event;
      const last = TABS.length - 1;
      const steps: Record<string, number> = {
        ArrowRight: index === last ? 0 : index + 1,
        ArrowLeft: index === 0 ? last : index - 1,
        Home: 0,
        End: last,
      };
      const to = TABS[steps[key] ?? -1];
      if (to !== undefined) {
        event.preventDefault();
        tab(to).focus();
      }
    });
  });
  addEventListener("popstate", () => show(tabOf()));
  show(tabOf());
}

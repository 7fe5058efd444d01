import { button } from "./dom.js";

/** Light or dark: the system's, until the button says otherwise. */
export function theme(): void {
  const root = document.documentElement;
  button("theme").addEventListener("click", () => {
    const dark = root.dataset["theme"] ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset["theme"] = dark === "dark" ? "light" : "dark";
  });
}

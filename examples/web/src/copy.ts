import { button } from "./dom.js";
import { say } from "./status.js";

/** A button that copies a text, and says whether it could. */
export function copies(id: string, text: () => string, what: string): void {
  const copy = button(id);
  const label = copy.textContent ?? "";
  let timer = 0;
  copy.addEventListener("click", async () => {
    let said = `${what} copied.`;
    try {
      await navigator.clipboard.writeText(text());
      copy.textContent = "Copied";
    } catch {
      said = `${what} not copied: the browser keeps the clipboard from this page. Select the text instead.`;
    }
    say(said);
    clearTimeout(timer);
    timer = setTimeout(() => (copy.textContent = label), 2000);
  });
}

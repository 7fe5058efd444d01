import { html, make } from "./dom.js";

/** Every address that the page links to. The repository's and npm's join them here once they are public. */
const LINKS: readonly { readonly text: string; readonly href: string }[] = [
  {
    text: "The paper: Qiao et al., Rethinking Normalization and Elimination Singularity in Neural Networks (2019)",
    href: "https://arxiv.org/abs/1911.09738",
  },
];

export function links(): void {
  html("links").replaceChildren(
    ...LINKS.map(({ text, href }) => {
      const link = make("a", text);
      link.href = href;
      const item = make("li");
      item.append(link);
      return item;
    }),
  );
}

import { make } from "./dom.js";

/** A cell: its text, what it sorts by, whether it is a failure. */
export interface Cell {
  readonly text: string;
  readonly key?: number | string;
  readonly fail?: boolean;
}

/** Fills a table; its heads sort it. */
export function fill(table: HTMLTableElement, heads: readonly string[], rows: readonly (readonly Cell[])[]): void {
  const body = make("tbody");
  const show = (sorted: readonly (readonly Cell[])[]): void => {
    body.replaceChildren(
      ...sorted.map((cells) => {
        const row = make("tr");
        row.append(
          ...cells.map(({ text, fail }) => {
            const cell = make("td", text);
            cell.classList.toggle("fail", fail === true);
            return cell;
          }),
        );
        return row;
      }),
    );
  };
  const key = (cells: readonly Cell[], column: number): number | string => {
    const cell = cells[column];
    return cell?.key ?? cell?.text ?? "";
  };
  const head = make("tr");
  heads.forEach((text, column) => {
    const th = make("th");
    th.scope = "col";
    const sort = make("button", text);
    sort.type = "button";
    sort.addEventListener("click", () => {
      const down = th.ariaSort === "ascending";
      for (const other of head.querySelectorAll("th")) {
        other.ariaSort = null;
      }
      th.ariaSort = down ? "descending" : "ascending";
      const sign = down ? -1 : 1;
      const compare = (a: number | string, b: number | string): number => (a < b ? -sign : a > b ? sign : 0);
      show(rows.toSorted((a, b) => compare(key(a, column), key(b, column))));
    });
    th.append(sort);
    head.append(th);
  });
  const top = make("thead");
  top.append(head);
  table.replaceChildren(top, body);
  show(rows);
}

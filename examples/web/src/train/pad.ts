/** Where a visitor draws a digit, or chooses one. */
import { make } from "../dom.js";
import { centred } from "./centre.js";
import { pixelsOf, SIZE, type Digits } from "./digits.js";

/** Pixels across, and of the pen: a stroke of MNIST's is a tenth as wide as its digits are high. */
const [ACROSS, PEN] = [280, 22];

export class Pad {
  private readonly canvas: HTMLCanvasElement;
  private readonly seen: HTMLCanvasElement;
  private readonly changed: (pixels: Uint8Array | undefined, done: boolean) => void;
  /** Whether a digit was put here, which a stroke replaces. */
  private given = false;

  /**
   * @param canvas What is drawn on.
   * @param seen Shows what the networks see of it.
   * @param changed Is told the 28 x 28 pixels, none where all is clear; `done` once a stroke is.
   */
  constructor(canvas: HTMLCanvasElement, seen: HTMLCanvasElement, changed: Pad["changed"]) {
    [canvas.width, canvas.height] = [ACROSS, ACROSS];
    [seen.width, seen.height] = [SIZE, SIZE];
    this.canvas = canvas;
    this.seen = seen;
    this.changed = changed;
    this.wipe();
    this.paint(undefined);
    this.listen();
  }

  clear(): void {
    this.wipe();
    this.show(undefined, true);
  }

  /** Puts a digit of MNIST's there, pixel by pixel. */
  put(pixels: Uint8Array): void {
    this.wipe();
    const pen = this.pen();
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image(pixels), 0, 0, ACROSS, ACROSS);
    this.show(pixels, true);
  }

  private pen(): CanvasRenderingContext2D {
    const pen = this.canvas.getContext("2d", { willReadFrequently: true });
    if (pen === null) {
      throw new Error("this browser gives no 2D canvas to draw on");
    }
    return pen;
  }

  private wipe(): void {
    const pen = this.pen();
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, ACROSS, ACROSS);
  }

  private listen(): void {
    const { canvas } = this;
    let last: readonly [number, number] | undefined;
    const at = ({ clientX, clientY }: PointerEvent): readonly [number, number] => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [((clientX - left) / width) * ACROSS, ((clientY - top) / height) * ACROSS];
    };
    const line = (to: readonly [number, number]): void => {
      const pen = this.pen();
      [pen.lineWidth, pen.lineCap, pen.lineJoin, pen.strokeStyle] = [PEN, "round", "round", "#fff"];
      pen.beginPath();
      pen.moveTo(...(last ?? to));
      pen.lineTo(...to);
      pen.stroke();
      last = to;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || last !== undefined) {
        return;
      }
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      if (this.given) {
        this.wipe();
      }
      line(at(event));
      this.read(false);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (last !== undefined && canvas.hasPointerCapture(event.pointerId)) {
        const all = event.getCoalescedEvents?.() ?? [];
        (all.length > 0 ? all : [event]).forEach((one) => line(at(one)));
        this.read(false);
      }
    });
    for (const end of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(end, () => {
        if (last !== undefined) {
          last = undefined;
          this.read(true);
        }
      });
    }
  }

  private read(done: boolean): void {
    const { data } = this.pen().getImageData(0, 0, ACROSS, ACROSS);
    const ink = Uint8Array.from({ length: ACROSS * ACROSS }, (_, i) => data[4 * i] as number);
    this.show(centred(ink, ACROSS), done, false);
  }

  private show(pixels: Uint8Array | undefined, done: boolean, given = pixels !== undefined): void {
    this.given = given;
    this.paint(pixels);
    this.changed(pixels, done);
  }

  private paint(pixels: Uint8Array | undefined): void {
    this.seen.getContext("2d")?.drawImage(image(pixels ?? new Uint8Array(SIZE * SIZE)), 0, 0);
  }
}

/** Pixels as a picture, white ink on black. */
function image(pixels: Uint8Array): HTMLCanvasElement {
  const made = make("canvas");
  [made.width, made.height] = [SIZE, SIZE];
  const gray = Uint8ClampedArray.from({ length: 4 * pixels.length }, (_, i) => (i % 4 === 3 ? 255 : (pixels[i >> 2] as number)));
  made.getContext("2d")?.putImageData(new ImageData(gray, SIZE, SIZE), 0, 0);
  return made;
}

/** Steps of arrow keys among buttons in a row. */
const STEPS: Readonly<Record<string, number>> = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };

/** Buttons for some test digits, of which one at a time is in the tab order; arrow keys choose the next. */
export function choices(list: HTMLElement, digits: Digits, count: number, choose: (index: number) => void): void {
  const buttons = Array.from({ length: count }, (_, index) => {
    const made = make("button");
    made.type = "button";
    made.tabIndex = index === 0 ? 0 : -1;
    made.ariaLabel = `Test digit ${index + 1} of ${count}`;
    made.append(image(pixelsOf(digits, index)));
    const chosen = (): void => {
      buttons.forEach((one) => (one.tabIndex = one === made ? 0 : -1));
      choose(index);
    };
    made.addEventListener("click", chosen);
    made.addEventListener("keydown", ({ key }) => {
      const next = buttons[index + (STEPS[key] ?? NaN)];
      if (next !== undefined) {
        next.focus();
        next.click();
      }
    });
    return made;
  });
  list.addEventListener("keydown", (event) => {
    if (event.key in STEPS) {
      event.preventDefault();
    }
  });
  list.replaceChildren(...buttons);
}

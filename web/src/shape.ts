import { check, checkOptions, oneOf, SIZES } from "./check.js";
import { BcNormError, guarded } from "./errors.js";
import type { Module } from "./planner.js";
import type { TensorShape } from "./planner/bcnorm_planner.js";

/** How values are stored; arithmetic is f32 whatever it is. */
export type DType = "f32" | "f16" | "bf16";
/** The order in memory; shapes are (N, C, *spatial) in either. */
export type Layout = "channels_first" | "channels_last";

export interface TensorOptions {
  /** Default: f32. */
  readonly dtype?: DType;
  /** Default: channels_first. */
  readonly layout?: Layout;
}

/** A tensor but for its buffer. @internal */
export interface Shape {
  readonly dims: readonly number[];
  readonly dtype: DType;
  readonly layout: Layout;
}

/** What {@link TensorOptions} must be. @internal */
export const TENSOR_OPTIONS = { dtype: oneOf("f32", "f16", "bf16"), layout: oneOf("channels_first", "channels_last") };

/** Refuses what is no shape. @internal */
export function checkDims(dims: readonly number[]): void {
  check("dims", dims, SIZES);
  for (const size of dims) {
    if (!Number.isInteger(size) || size < 0 || size > 0xffffffff) {
      throw new BcNormError(
        "tensor",
        `a tensor of shape [${dims.join(", ")}]: ${size} is no size, which is a whole number up to 4294967295`,
      );
    }
  }
}

/** A shape as the planner takes it. `filters`: those of a convolution, (O, *rest). @internal */
export function shapeOf(
  { TensorShape }: Pick<Module, "TensorShape">,
  dims: readonly number[],
  options: TensorOptions,
  filters: boolean,
): TensorShape {
  checkDims(dims);
  const dtype = options.dtype ?? "f32";
  const layout = options.layout ?? "channels_first";
  const sizes = Uint32Array.from(dims);
  return guarded(() =>
    filters ? TensorShape.filters(sizes, dtype, layout) : new TensorShape(sizes, dtype, layout),
  );
}

/** Refuses what is no shape with options; what was left out gets its default. @internal */
export function shapeLike(name: string, value: { readonly dims: readonly number[] } & TensorOptions): Shape {
  checkOptions(name, value, { dims: SIZES, ...TENSOR_OPTIONS });
  checkDims(value.dims);
  return { dims: [...value.dims], dtype: value.dtype ?? "f32", layout: value.layout ?? "channels_first" };
}

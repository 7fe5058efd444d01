/** What tf.layers makes a layer's weights with: initializers, regularizers, constraints. */
import type { serialization } from "@tensorflow/tfjs-core";
import type * as keras from "@tensorflow/tfjs-layers";
import { BcNormError } from "../errors.js";
import type { Tf } from "./bridge.js";

export type Initializer = ReturnType<typeof keras.initializers.ones>;
export type Regularizer = ReturnType<typeof keras.regularizers.l2>;
export type Constraint = ReturnType<typeof keras.constraints.nonNeg>;

/** As tf.layers takes it: an object, its name in tf's namespace, or what a saved model says of it. */
type Given<T> = T | string | { className: string; config: serialization.ConfigDict } | null;

/** How weights begin. */
export type Initialized<Weights extends string> = { [Name in `${Weights}Initializer`]?: Given<Initializer> };
/** How trainable weights are kept small, and within bounds. */
export type Regularized<Weights extends string> = { [Name in `${Weights}Regularizer`]?: Given<Regularizer> } & {
  [Name in `${Weights}Constraint`]?: Given<Constraint>;
};

/** By the ends of options' names, where tf.js makes them. */
const SPACES = { Initializer: "initializers", Regularizer: "regularizers", Constraint: "constraints" } as const;
type Kind = keyof typeof SPACES;

/** Any of them. @internal */
export type Part = serialization.Serializable;

/** The options of a weight. @internal */
export function optionsOf(weight: string, trainable: boolean): string[] {
  const kinds: readonly Kind[] = trainable ? ["Initializer", "Regularizer", "Constraint"] : ["Initializer"];
  return kinds.map((kind) => `${weight}${kind}`);
}

/** What an option gives; undefined for none. @internal */
export function partOf(tf: Tf, name: string, value: unknown): Part | undefined {
  if (value === undefined || value === null) {
    return undefined;
  }
  if (typeof (value as Partial<Part>).getClassName === "function") {
    return value as Part;
  }
  const kind = (Object.keys(SPACES) as Kind[]).find((end) => name.endsWith(end)) as Kind;
  const space = tf[SPACES[kind]] as Readonly<Record<string, (args: object) => Part>> | undefined;
  if (typeof value === "string" && space !== undefined && Object.hasOwn(space, value)) {
    return space[value]?.({});
  }
  const { className = "", config = {} } = value as { className?: string; config?: serialization.ConfigDict };
  const known = tf.serialization.SerializationMap.getMap().classNameMap[className];
  if (known === undefined) {
    const shown = typeof value === "string" ? value : className;
    throw new BcNormError(
      "argument",
      `${name} is ${JSON.stringify(shown)}, expected one of tf.${SPACES[kind]} (${Object.keys(space ?? {}).join(", ")})`,
    );
  }
  const [cls, fromConfig] = known;
  return fromConfig(cls, config);
}

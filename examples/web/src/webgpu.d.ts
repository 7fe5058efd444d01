// WebGPU's flags, which TypeScript's DOM library has no names for yet.
declare const GPUBufferUsage: Readonly<
  Record<"MAP_READ" | "COPY_SRC" | "COPY_DST" | "UNIFORM" | "STORAGE", number>
>;
declare const GPUShaderStage: { readonly COMPUTE: number };
declare const GPUMapMode: { readonly READ: number };

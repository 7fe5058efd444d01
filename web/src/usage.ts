// The flags' numbers are the specification's; the globals that name them are missing outside of browsers.
export const STORAGE = 0x80;
export const COPY_SRC = 0x4;
export const COPY_DST = 0x8;
export const UNIFORM = 0x40;
export const MAP_READ = 0x1;
/** `GPUMapMode.READ`. */
export const READ_MODE = 0x1;
export const COMPUTE_STAGE = 0x4;

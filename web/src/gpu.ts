import { BcNormError, guarded, text } from "./errors.js";
import { checkAlive } from "./lost.js";
import { planner, type StepData } from "./planner.js";
import type { Limits, Plan, Tuning } from "./planner/bcnorm_planner.js";
import { nativeF16, subgroupSize } from "./probes.js";
import { COMPUTE_STAGE } from "./usage.js";

/** A compiled kernel, or one that is being compiled. */
interface Kernel {
  readonly layout: GPUBindGroupLayout;
  pipeline: GPUComputePipeline | undefined;
  pending: Promise<GPUComputePipeline> | undefined;
}

/** What WGSL leaves to devices, as it was found. */
interface Found {
  subgroupSize: number;
  unpack: boolean;
  pack: boolean;
}

function limitsOf(device: GPUDevice, found: Found): Limits {
  const { limits } = device;
  return new (planner().Limits)(
    Float64Array.of(
      limits.maxStorageBufferBindingSize,
      limits.maxBufferSize,
      limits.maxComputeInvocationsPerWorkgroup,
      limits.maxComputeWorkgroupSizeX,
      limits.maxComputeWorkgroupsPerDimension,
      limits.maxStorageBuffersPerShaderStage,
      limits.maxComputeWorkgroupStorageSize,
      limits.minStorageBufferOffsetAlignment,
      found.subgroupSize,
      Number(found.unpack),
      Number(found.pack),
    ),
  );
}

function tuningOf(device: GPUDevice, limits: Limits): Tuning {
  // Older browsers have no adapterInfo at the device; they get the tuning for GPUs.
  const info: Partial<GPUAdapterInfo> = device.adapterInfo ?? {};
  const name = [info.vendor, info.architecture, info.device, info.description].join(" ");
  const software = info.isFallbackAdapter === true;
  return planner().Tuning.forName(name, software, limits);
}

/** What all layers of a device share: kernels, limits, the tuning. */
export class Context {
  readonly device: GPUDevice;
  limits: Limits;
  tuning: Tuning;
  private looking: Promise<void> | undefined;
  private readonly kernels = new Map<string, Kernel>();

  private static readonly all = new WeakMap<GPUDevice, Context>();

  /** The one of a device. */
  static of(device: GPUDevice): Context {
    let context = Context.all.get(device);
    if (context === undefined) {
      context = new Context(device);
      Context.all.set(device, context);
    }
    return context;
  }

  /** The one of a device, once it was looked at: what subgroups it has, how it converts f16. */
  static async ready(device: GPUDevice): Promise<Context> {
    const context = Context.of(device);
    context.check();
    context.looking ??= Promise.all([subgroupSize(device), nativeF16(device)]).then(([subgroupSize, f16]) => {
      context.limits = limitsOf(device, { subgroupSize, ...f16 });
      context.tuning = tuningOf(device, context.limits);
    });
    await context.looking;
    return context;
  }

  private constructor(device: GPUDevice) {
    this.device = device;
    this.limits = limitsOf(device, { subgroupSize: 1, unpack: false, pack: false });
    this.tuning = tuningOf(device, this.limits);
  }

  /** Throws where the device is lost. */
  check(): void {
    checkAlive(this.device);
  }

  /** Checks a plan against the device's limits. */
  checkLimits(plan: Plan): void {
    guarded(() => plan.checkLimits(this.limits));
  }

  private kernel(step: StepData): Kernel {
    let kernel = this.kernels.get(step.key);
    if (kernel === undefined) {
      const storage = step.bindings.map(({ binding, write, minBytes }) => ({
        binding,
        visibility: COMPUTE_STAGE,
        buffer: {
          type: write ? ("storage" as const) : ("read-only-storage" as const),
          minBindingSize: minBytes,
        },
      }));
      const uniform = { binding: 0, visibility: COMPUTE_STAGE, buffer: { type: "uniform" as const } };
      const layout = this.device.createBindGroupLayout({
        label: step.kernel,
        entries: [uniform, ...storage],
      });
      kernel = { layout, pipeline: undefined, pending: undefined };
      this.kernels.set(step.key, kernel);
    }
    return kernel;
  }

  private descriptor(step: StepData, kernel: Kernel, wgsl: string): GPUComputePipelineDescriptor {
    const device = this.device;
    const label = step.kernel;
    const layout = device.createPipelineLayout({ label, bindGroupLayouts: [kernel.layout] });
    const module = device.createShaderModule({ label, code: wgsl });
    return { label, layout, compute: { module, entryPoint: step.kernel } };
  }

  /** Compiles the kernel of a step without holding up the page. */
  async compile(step: StepData, wgsl: () => string): Promise<void> {
    this.check();
    const kernel = this.kernel(step);
    if (kernel.pipeline !== undefined) {
      return;
    }
    kernel.pending ??= this.device.createComputePipelineAsync(
      this.descriptor(step, kernel, wgsl()),
    );
    try {
      kernel.pipeline = await kernel.pending;
    } catch (cause) {
      this.check();
      throw new BcNormError("device", `${step.kernel} does not compile: ${text(cause)}`, { cause });
    } finally {
      kernel.pending = undefined;
    }
  }

  /** The kernel of a step; compiled here and now where it is not yet. */
  compiled(step: StepData, wgsl: () => string): { pipeline: GPUComputePipeline; layout: GPUBindGroupLayout } {
    const kernel = this.kernel(step);
    kernel.pipeline ??= this.device.createComputePipeline(this.descriptor(step, kernel, wgsl()));
    return { pipeline: kernel.pipeline, layout: kernel.layout };
  }
}

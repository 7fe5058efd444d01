//! RADV's null device: Mesa's driver for AMD GPUs, which compiles for a family that is not there and runs nothing.

use anyhow::{Context, Result, bail};
use ash::{Device, Entry, Instance, khr, vk};
use bcnorm::kernels::Spec;
use bcnorm_backends::{Kernel, spirv::spirv};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// With this variable RADV offers a device of a family, whatever there is. It is read once, when an instance asks for devices.
pub const FORCE_FAMILY: &str = "RADV_FORCE_FAMILY";

/// The SPIR-V of Vulkan 1.3, which RADV has.
const SPIRV: (u8, u8) = (1, 6);

/// What a compiler says of a kernel.
#[derive(Debug)]
pub struct Compiled {
    /// Invocations of a subgroup.
    pub subgroup_size: u32,
    /// Numbers by the driver's names for them.
    pub statistics: BTreeMap<String, u64>,
    /// The final code, as text.
    pub assembly: String,
}

impl Compiled {
    /// A number, by the driver's name for it.
    pub fn statistic(&self, name: &str) -> Result<u64> {
        let found = self.statistics.get(name).copied();
        found.with_context(|| format!("this Mesa has no statistic \"{name}\""))
    }
}

/// A device that compiles.
pub struct Compiler {
    /// Its driver's name for it, such as "Null hardware (RADV NAVI21)".
    pub name: String,
    /// Mesa's version.
    pub driver: String,
    properties: khr::pipeline_executable_properties::Device,
    device: Device,
    instance: Instance,
    // The loader's library: last, so that it is open for as long as its functions are called.
    _entry: Entry,
}

impl Compiler {
    /// The device of the family that [`FORCE_FAMILY`] names.
    ///
    /// # Errors
    /// Where there is no Vulkan loader, no RADV, or where RADV does not know the family.
    pub fn new() -> Result<Self> {
        // SAFETY: the library is Vulkan's loader, and it is kept.
        let entry = unsafe { Entry::load() }.context("no Vulkan loader (libvulkan.so.1)")?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: here and below, what is passed lives as long as the call.
        let instance =
            unsafe { entry.create_instance(&create, None) }.context("no Vulkan instance")?;
        let physical = unsafe { instance.enumerate_physical_devices() }?;
        let null = physical.into_iter().find_map(|physical| {
            let properties = unsafe { instance.get_physical_device_properties(physical) };
            let name = text(properties.device_name_as_c_str().ok()?);
            name.starts_with("Null hardware")
                .then_some((physical, name))
        });
        let Some((physical, name)) = null else {
            bail!(
                "no null device of RADV: Mesa's driver for AMD (Debian: mesa-vulkan-drivers) is not here, or \
                 does not know the family that {FORCE_FAMILY} names"
            );
        };
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let driver = driver.driver_info_as_c_str().map(text).unwrap_or_default();

        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let extensions = [
            khr::pipeline_executable_properties::NAME.as_ptr(),
            ash::ext::robustness2::NAME.as_ptr(),
        ];
        // As wgpu asks: reads and writes beyond a binding are the hardware's to refuse.
        let features = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
            .robust_buffer_access2(true)
            .robust_image_access2(true);
        let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default()
            .subgroup_size_control(true)
            .shader_zero_initialize_workgroup_memory(true);
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .enabled_features(&features)
            .push_next(&mut robustness)
            .push_next(&mut executables)
            .push_next(&mut vulkan13);
        let device = unsafe { instance.create_device(physical, &create, None) }
            .with_context(|| format!("{name} makes no device"))?;
        Ok(Self {
            name,
            driver,
            properties: khr::pipeline_executable_properties::Device::new(&instance, &device),
            device,
            instance,
            _entry: entry,
        })
    }

    /// Compiles a kernel.
    ///
    /// # Errors
    /// Where naga or the driver refuses it.
    pub fn compile(&self, spec: &Spec) -> Result<Compiled> {
        let code = spirv(&Kernel::new(*spec)?, SPIRV, true)?;
        let mut bindings = vec![storage(0, vk::DescriptorType::UNIFORM_BUFFER)];
        bindings.extend(
            spec.bindings()
                .map(|(number, _)| storage(number, vk::DescriptorType::STORAGE_BUFFER)),
        );
        let device = &self.device;
        let entry_point = CString::new(spec.kernel.name())?;
        // As wgpu has it on a device with subgroups.
        let flags = match spec.subgroup_size {
            1 => vk::PipelineShaderStageCreateFlags::empty(),
            _ => vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE,
        };
        // SAFETY: what is made here is destroyed below, after its use; the SPIR-V is valid.
        unsafe {
            let module = device
                .create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&code), None)?;
            let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [device.create_descriptor_set_layout(&set, None)?];
            let layout = device.create_pipeline_layout(
                &vk::PipelineLayoutCreateInfo::default().set_layouts(&sets),
                None,
            )?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(flags)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&entry_point);
            let create = vk::ComputePipelineCreateInfo::default()
                .flags(
                    vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                        | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
                )
                .stage(stage)
                .layout(layout);
            let made = device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None);
            let pipelines = made.map_err(|(_, error)| error);
            let compiled = pipelines
                .as_ref()
                .map(|pipelines| self.describe(pipelines[0]));
            let compiled =
                compiled.map_err(|error| anyhow::anyhow!("the driver refuses it: {error}"));
            for &pipeline in pipelines.iter().flatten() {
                device.destroy_pipeline(pipeline, None);
            }
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(sets[0], None);
            device.destroy_shader_module(module, None);
            compiled?
        }
    }

    /// What the driver says of a pipeline, which has one executable.
    ///
    /// # Safety
    /// The pipeline is of this device, and was made with both flags to capture.
    unsafe fn describe(&self, pipeline: vk::Pipeline) -> Result<Compiled> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: as the caller says.
        let (executables, statistics, representations) = unsafe {
            (
                self.properties.get_pipeline_executable_properties(&info)?,
                self.properties
                    .get_pipeline_executable_statistics(&executable)?,
                self.representations(&executable)?,
            )
        };
        let statistics = statistics.iter().filter_map(|statistic| {
            let name = text(statistic.name_as_c_str().ok()?);
            // SAFETY: the format says which member of the union is there.
            let value = unsafe {
                match statistic.format {
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64,
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => {
                        u64::try_from(statistic.value.i64).ok()?
                    }
                    _ => return None,
                }
            };
            Some((name, value))
        });
        let statistics = statistics.collect();
        let assembly = representations
            .into_iter()
            .find(|(name, _)| name == "Assembly");
        Ok(Compiled {
            subgroup_size: executables
                .first()
                .map_or(0, |executable| executable.subgroup_size),
            statistics,
            assembly: assembly.context("this Mesa shows no assembly")?.1,
        })
    }

    /// The texts that the compiler keeps of an executable. (ash 0.38 asks for their sizes only.)
    ///
    /// # Safety
    /// As for [`Compiler::describe`].
    unsafe fn representations(
        &self,
        executable: &vk::PipelineExecutableInfoKHR<'_>,
    ) -> Result<Vec<(String, String)>> {
        let call = self
            .properties
            .fp()
            .get_pipeline_executable_internal_representations_khr;
        let device = self.properties.device();
        let mut count = 0;
        // SAFETY: first the count is asked for, then the sizes, then the texts, into memory of these sizes.
        unsafe {
            call(device, executable, &mut count, std::ptr::null_mut()).result()?;
            let mut all =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            call(device, executable, &mut count, all.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = all.iter().map(|one| vec![0; one.data_size]).collect();
            for (one, bytes) in all.iter_mut().zip(&mut texts) {
                one.p_data = bytes.as_mut_ptr().cast();
            }
            call(device, executable, &mut count, all.as_mut_ptr()).result()?;
            let named = all.iter().zip(texts).map(|(one, bytes)| {
                let name = one.name_as_c_str().map(text).unwrap_or_default();
                let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
                (name, String::from_utf8_lossy(bytes).into_owned())
            });
            Ok(named.collect())
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // SAFETY: all pipelines are gone.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

fn storage(binding: u32, kind: vk::DescriptorType) -> vk::DescriptorSetLayoutBinding<'static> {
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding)
        .descriptor_type(kind)
        .descriptor_count(1)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

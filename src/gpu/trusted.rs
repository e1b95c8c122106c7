//! The calls into wgpu that are `unsafe`, each with the reason why it is sound here. Nothing else of this folder is.
#![allow(unsafe_code)]

/// Makes a shader module without the counter that wgpu otherwise puts into every loop (up to half of a kernel's time).
///
/// Bounds checks stay on where assertions are on, so that tests run with them.
pub(super) fn shader_module(device: &wgpu::Device, label: &str, wgsl: String) -> wgpu::ShaderModule {
    let checks = wgpu::ShaderRuntimeChecks {
        force_loop_bounding: false,
        bounds_checks: cfg!(debug_assertions),
        ..wgpu::ShaderRuntimeChecks::checked()
    };
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    // SAFETY: the text is one of this crate's own kernels, never a user's. Every loop in them counts to a bound that is
    // fixed when the loop is entered, and every index into a buffer is compared with a length from the parameters, which
    // the host derives from the size of the bound buffer.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}

/// Leave to ask for matrix units.
pub(super) fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: the one experimental feature that is asked for is cooperative matrices. What wgpu does not check of it, that
    // the driver lists the shape, is checked by `adapters::matrix`; the kernels use it in flow that is uniform for each
    // subgroup, within the bounds of buffers that hold whole tiles.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Opens the driver's cache of compiled kernels on what an earlier process left.
pub(super) fn pipeline_cache(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("nearfield.pipelines"), data, fallback: true };
    // SAFETY: the data came from `PipelineCache::get_data`, as read back from our own cache file, whose checksum was
    // compared; wgpu and the driver check its header (vendor, device, driver version) and start empty otherwise.
    unsafe { device.create_pipeline_cache(&descriptor) }
}

/// Bytes of the largest heap of memory that is local to the device, where the backend says (Vulkan).
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "windows"))]
pub(super) fn device_local_bytes(device: &wgpu::Device) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the guard is only read from and dropped before the device is; the raw handles do not leave this function.
    let hal = unsafe { device.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance, and both are alive while `hal` is.
    let memory = unsafe { instance.get_physical_device_memory_properties(hal.raw_physical_device()) };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

/// Bytes of the largest heap of memory that is local to the device: not readable on this system.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "windows")))]
pub(super) fn device_local_bytes(_device: &wgpu::Device) -> Option<u64> {
    None
}

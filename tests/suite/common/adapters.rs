//! The adapters of this machine, by short names: llvmpipe-vulkan, llvmpipe-gl, swiftshader-vulkan,
//! or the adapter's own name and backend.

use bcnorm::gpu::headless::{self, DeviceLimits, Gpu};
use pollster::block_on;

/// The short name that `BCNORM_REQUIRE_ADAPTERS` uses.
pub fn short_name(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    let name = info.name.to_lowercase();
    let known = ["llvmpipe", "swiftshader"];
    let name = known
        .into_iter()
        .find(|known| name.contains(known))
        .unwrap_or(&name)
        .to_owned();
    format!("{name}-{:?}", info.backend).to_lowercase()
}

/// Whether tests take their time (`cargo xtask test --long`): more draws and combinations, all adapters.
pub fn long() -> bool {
    std::env::var_os("BCNORM_LONG").is_some_and(|value| !value.is_empty())
}

/// The adapters, with their names; without those by GL that are there by another API, too, unless tests take
/// their time.
pub fn all() -> Vec<(String, wgpu::Adapter)> {
    let mut found = every();
    if !long() {
        let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
        found.retain(|(name, _)| {
            let twin = |other: &String| {
                let same = name.strip_suffix("-gl");
                other != name && same == other.rsplit_once('-').map(|(same, _)| same)
            };
            !names.iter().any(twin)
        });
    }
    found
}

/// Every adapter, with its name. Fails where there is none, or where one that
/// `BCNORM_REQUIRE_ADAPTERS` lists is missing: a GPU test that did not run must not pass.
/// `BCNORM_ADAPTER` narrows the list to the names that contain it.
pub fn every() -> Vec<(String, wgpu::Adapter)> {
    let mut found: Vec<_> = block_on(headless::adapters())
        .into_iter()
        .map(|adapter| (short_name(&adapter), adapter))
        .collect();
    if let Ok(only) = std::env::var("BCNORM_ADAPTER") {
        found.retain(|(name, _)| name.contains(&only));
    }
    let required = std::env::var("BCNORM_REQUIRE_ADAPTERS").unwrap_or_default();
    for name in required
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        assert!(
            found.iter().any(|(found, _)| found == name),
            "the adapter {name} is required here, found {:?}: run cargo xtask setup",
            found.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
    }
    assert!(
        !found.is_empty(),
        "no GPU adapter: run cargo xtask setup, or install a driver"
    );
    found
}

/// A device on each of [`all`] adapters.
pub fn gpus(limits: DeviceLimits) -> Vec<(String, Gpu)> {
    devices(all(), limits)
}

/// A device on [`every`] adapter: for the tests that look at every kernel.
pub fn every_gpu(limits: DeviceLimits) -> Vec<(String, Gpu)> {
    devices(every(), limits)
}

fn devices(adapters: Vec<(String, wgpu::Adapter)>, limits: DeviceLimits) -> Vec<(String, Gpu)> {
    let devices = adapters.into_iter().map(|(name, adapter)| {
        let gpu =
            block_on(Gpu::on(adapter, limits)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, gpu)
    });
    devices.collect()
}

/// A device on the best adapter, for tests whose subject is not the adapter.
pub fn first() -> Gpu {
    let (name, adapter) = all().swap_remove(0);
    block_on(Gpu::on(adapter, DeviceLimits::Default))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

//! Which adapters there are, and which one to take.
//!
//! The rule is a function of reports, so that it can be tested without a GPU: hardware before software, discrete
//! before integrated, Vulkan before Metal before DX12, then the order in which the system lists them. [`Select::Auto`]
//! never takes a software adapter: a CPU that imitates a GPU is slower than the CPU engine.

use std::fmt;

use crate::ops::search::screened::matrix_memory;

/// What is known of an adapter, and whether nearfield can use it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterReport {
    /// Its place in the list, as in `gpu:N`.
    pub index: usize,
    /// Its name as the driver gives it.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Discrete, integrated, virtual, software or unknown.
    pub kind: Kind,
    /// Driver name and version.
    pub driver: String,
    /// Limits that decide what fits: name and value.
    pub limits: Vec<(&'static str, u64)>,
    /// Optional features that nearfield uses: name and whether the adapter has it.
    pub features: Vec<(&'static str, bool)>,
    /// Smallest and largest subgroup.
    pub subgroup_sizes: (u32, u32),
    /// Whether nearfield can use it.
    pub usable: bool,
    /// Why not, or what is notable about it.
    pub reason: String,
}

impl AdapterReport {
    /// The key of measurements: it tells the adapter and its driver apart from all others.
    pub fn identity(&self) -> String {
        let (low, high) = self.subgroup_sizes;
        format!("{} | {} | {} | {} | subgroups of {low} to {high}", self.name, self.backend, self.kind, self.driver)
    }
}

/// The sort of device that an adapter is, in the order of preference, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A CPU that imitates a GPU.
    Software,
    /// The driver does not say.
    Unknown,
    /// A share of a GPU in a virtual machine.
    Virtual,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU with memory of its own.
    Discrete,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Software => "software",
            Kind::Unknown => "unknown",
            Kind::Virtual => "virtual",
            Kind::Integrated => "integrated",
            Kind::Discrete => "discrete",
        })
    }
}

impl From<wgpu::DeviceType> for Kind {
    fn from(device_type: wgpu::DeviceType) -> Kind {
        match device_type {
            wgpu::DeviceType::Cpu => Kind::Software,
            wgpu::DeviceType::Other => Kind::Unknown,
            wgpu::DeviceType::VirtualGpu => Kind::Virtual,
            wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
            wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
        }
    }
}

/// Which adapter is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Select {
    /// The best hardware adapter; never a software one.
    Auto,
    /// The best adapter, hardware first, else software.
    Gpu,
    /// The adapter at this place of [`adapters`].
    GpuIndex(usize),
    /// The best adapter whose name contains this, upper and lower case being the same.
    Name(String),
}

/// Why no adapter was taken, or why a device could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Nothing that fits the wish is there.
    #[error("no GPU: {reason}")]
    NoAdapter {
        /// What was found instead.
        reason: String,
    },
    /// No adapter has such a name or place.
    #[error("no adapter `{wanted}`; there are: {available}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What exists.
        available: String,
    },
    /// The adapter is there but cannot be used.
    #[error("adapter `{name}` cannot be used: {reason}")]
    Unusable {
        /// Its name.
        name: String,
        /// What it lacks.
        reason: String,
    },
    /// The driver refused to give a device.
    #[error("adapter `{name}` gave no device: {reason}")]
    Refused {
        /// Its name.
        name: String,
        /// What the driver said.
        reason: String,
    },
}

/// All adapters, as reports. Empty where there is none; never fails.
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().enumerate().map(|(i, adapter)| report(i, adapter)).collect()
}

/// Takes an adapter by the rule. The index is into `reports`.
///
/// # Errors
/// [`AdapterError`] that says what there is instead.
pub fn select(reports: &[AdapterReport], wanted: &Select) -> Result<usize, AdapterError> {
    let best = |fits: &dyn Fn(&AdapterReport) -> bool| {
        reports.iter().filter(|r| fits(r)).max_by_key(|r| rank(r)).map(|r| r.index)
    };
    match wanted {
        Select::Auto => best(&|r| r.usable && r.kind != Kind::Software).ok_or_else(|| none_for_auto(reports)),
        Select::Gpu => best(&|r| r.usable).ok_or_else(|| AdapterError::NoAdapter { reason: what_is_there(reports) }),
        Select::GpuIndex(n) => match reports.get(*n) {
            Some(r) => usable(r),
            None => Err(AdapterError::Unknown { wanted: format!("gpu:{n}"), available: listing(reports) }),
        },
        Select::Name(part) => {
            let part_lower = part.to_lowercase();
            let named = |r: &AdapterReport| r.name.to_lowercase().contains(&part_lower);
            match best(&|r| r.usable && named(r)).or_else(|| best(&named)).and_then(|i| reports.get(i)) {
                Some(r) => usable(r),
                None => Err(AdapterError::Unknown { wanted: part.clone(), available: listing(reports) }),
            }
        }
    }
}

/// Larger is better: kind, then backend, then the earlier place.
fn rank(r: &AdapterReport) -> (Kind, u8, std::cmp::Reverse<usize>) {
    let backend = match r.backend.as_str() {
        "vulkan" => 2,
        "metal" => 1,
        _ => 0,
    };
    (r.kind, backend, std::cmp::Reverse(r.index))
}

fn usable(r: &AdapterReport) -> Result<usize, AdapterError> {
    if r.usable {
        return Ok(r.index);
    }
    Err(AdapterError::Unusable { name: r.name.clone(), reason: r.reason.clone() })
}

fn none_for_auto(reports: &[AdapterReport]) -> AdapterError {
    let software = reports.iter().find(|r| r.usable && r.kind == Kind::Software);
    let reason = match software {
        Some(r) => format!("only a software adapter is there ({}), which is slower than the CPU itself", r.name),
        None => what_is_there(reports),
    };
    AdapterError::NoAdapter { reason }
}

fn what_is_there(reports: &[AdapterReport]) -> String {
    if reports.is_empty() {
        return "no Vulkan, Metal or DX12 adapter was found (is a driver installed?)".to_owned();
    }
    let each: Vec<String> = reports.iter().map(|r| format!("{}: {}", r.name, r.reason)).collect();
    format!("no adapter can be used: {}", each.join("; "))
}

fn listing(reports: &[AdapterReport]) -> String {
    if reports.is_empty() {
        return "none".to_owned();
    }
    reports.iter().map(|r| format!("gpu:{} `{}` ({})", r.index, r.name, r.backend)).collect::<Vec<_>>().join(", ")
}

/// The backends that nearfield uses. GLES has no storage buffers worth the name, and no limits to build on.
const BACKENDS: wgpu::Backends = wgpu::Backends::all().difference(wgpu::Backends::GL);

pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = BACKENDS;
    // Nothing is dispatched indirectly here, and that check holds buffers below 4 GiB.
    descriptor.flags =
        wgpu::InstanceFlags::from_build_config().with_env() - wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL;
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(BACKENDS))
}

/// Optional features that nearfield asks for where they are.
pub(super) const OPTIONAL: [(&str, wgpu::Features); 5] = [
    ("subgroups", wgpu::Features::SUBGROUP),
    ("f16", wgpu::Features::SHADER_F16),
    ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
    ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
    ("immediates", wgpu::Features::IMMEDIATES),
];

/// What the kernels for matrix units need.
pub(super) const MATRIX_FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SUBGROUP_BARRIER);

/// The side of the square f16 matrices with sums in f32 that an adapter lists, the larger where it has both, if it has
/// what else the kernels for them need.
pub(super) fn matrix(adapter: &wgpu::Adapter) -> Option<u32> {
    let limits = adapter.limits();
    let threads = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
    if threads < 256 || !adapter.features().contains(MATRIX_FEATURES) {
        return None;
    }
    let info = adapter.get_info();
    let teams_of_32 = (info.subgroup_min_size, info.subgroup_max_size) == (32, 32);
    side(&adapter.cooperative_matrix_properties(), limits.max_compute_workgroup_storage_size, teams_of_32)
}

fn side(listed: &[wgpu::CooperativeMatrixProperties], memory: u32, teams_of_32: bool) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let has = |side: u32| {
        let square = |p: &&wgpu::CooperativeMatrixProperties| [p.m_size, p.n_size, p.k_size] == [side; 3];
        listed.iter().filter(square).any(|p| p.ab_type == F16 && p.cr_type == F32)
    };
    // The kernel for the larger side shares its work out to eight subgroups of 32 threads.
    let fits = |side: u32| memory >= matrix_memory(side) && (side == 8 || teams_of_32);
    [16, 8].into_iter().find(|&side| fits(side) && has(side))
}

pub(super) fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let compute = adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS);
    let mut report = describe(index, adapter.get_info(), &adapter.limits(), adapter.features(), compute);
    let units = matrix(adapter);
    report.features.extend([("f16 matrices 8x8", units == Some(8)), ("f16 matrices 16x16", units == Some(16))]);
    report
}

/// A report of an adapter, or of a device that was opened from one.
pub(super) fn describe(
    index: usize,
    info: wgpu::AdapterInfo,
    limits: &wgpu::Limits,
    features: wgpu::Features,
    compute: bool,
) -> AdapterReport {
    let kind = Kind::from(info.device_type);
    let lacking = lacking(limits, compute);
    AdapterReport {
        index,
        reason: match (&lacking, kind) {
            (Some(lacking), _) => lacking.clone(),
            (None, Kind::Software) => "software: taken only when asked for".to_owned(),
            (None, _) => String::new(),
        },
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        kind,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        limits: vec![
            ("storage binding bytes", limits.max_storage_buffer_binding_size),
            ("buffer bytes", limits.max_buffer_size),
            ("storage buffers per kernel", u64::from(limits.max_storage_buffers_per_shader_stage)),
            ("workgroup memory bytes", u64::from(limits.max_compute_workgroup_storage_size)),
            ("invocations per workgroup", u64::from(limits.max_compute_invocations_per_workgroup)),
            ("workgroups per dimension", u64::from(limits.max_compute_workgroups_per_dimension)),
            ("immediate bytes", u64::from(limits.max_immediate_size)),
        ],
        features: OPTIONAL
            .iter()
            .map(|&(name, f)| (name, features.contains(f)))
            .chain([("mappable buffers", features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS))])
            .collect(),
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
        usable: lacking.is_none(),
    }
}

/// The first default limit of WebGPU that a device lacks; every kernel counts on them.
pub(super) fn lacking(limits: &wgpu::Limits, compute: bool) -> Option<String> {
    if !compute {
        return Some("no compute shaders".to_owned());
    }
    let least = wgpu::Limits::default();
    let checks = [
        (
            "storage buffers per kernel",
            limits.max_storage_buffers_per_shader_stage,
            least.max_storage_buffers_per_shader_stage,
        ),
        (
            "bytes of workgroup memory",
            limits.max_compute_workgroup_storage_size,
            least.max_compute_workgroup_storage_size,
        ),
        (
            "invocations per workgroup",
            limits.max_compute_invocations_per_workgroup,
            least.max_compute_invocations_per_workgroup,
        ),
        (
            "workgroups per dimension",
            limits.max_compute_workgroups_per_dimension,
            least.max_compute_workgroups_per_dimension,
        ),
    ];
    let short = checks.iter().find(|(_, found, wanted)| found < wanted);
    short.map(|(what, found, wanted)| format!("{found} {what}, at least {wanted} are needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(index: usize, name: &str, kind: Kind, backend: &str, usable: bool) -> AdapterReport {
        AdapterReport {
            index,
            name: name.to_owned(),
            backend: backend.to_owned(),
            kind,
            driver: String::new(),
            limits: Vec::new(),
            features: Vec::new(),
            subgroup_sizes: (4, 128),
            usable,
            reason: if usable { String::new() } else { "no compute shaders".to_owned() },
        }
    }

    fn several() -> Vec<AdapterReport> {
        vec![
            fake(0, "llvmpipe", Kind::Software, "vulkan", true),
            fake(1, "Iris Xe", Kind::Integrated, "vulkan", true),
            fake(2, "GeForce", Kind::Discrete, "dx12", true),
            fake(3, "GeForce", Kind::Discrete, "vulkan", true),
            fake(4, "Ancient", Kind::Discrete, "vulkan", false),
        ]
    }

    #[test]
    fn hardware_before_software_discrete_before_integrated() {
        let mut reports = several();
        assert_eq!(select(&reports, &Select::Auto), Ok(3));
        reports.truncate(2);
        assert_eq!(select(&reports, &Select::Auto), Ok(1));
        reports.truncate(1);
        assert_eq!(select(&reports, &Select::Gpu), Ok(0));
        let refused = select(&reports, &Select::Auto).unwrap_err().to_string();
        assert!(refused.contains("software") && refused.contains("llvmpipe"), "{refused}");
    }

    #[test]
    fn names_match_in_any_case_and_unknown_ones_list_what_exists() {
        let reports = several();
        assert_eq!(select(&reports, &Select::Name("iris".into())), Ok(1));
        assert_eq!(select(&reports, &Select::Name("GEFORCE".into())), Ok(3));
        assert_eq!(select(&reports, &Select::GpuIndex(2)), Ok(2));
        for wanted in [Select::Name("radeon".into()), Select::GpuIndex(9)] {
            let error = select(&reports, &wanted).unwrap_err().to_string();
            assert!(error.contains("Iris Xe") && error.contains("llvmpipe"), "{error}");
        }
        assert!(matches!(select(&reports, &Select::Name("ancient".into())), Err(AdapterError::Unusable { .. })));
    }

    #[test]
    fn matrix_units_only_in_listed_shapes_with_sums_in_f32() {
        use wgpu::CooperativeScalarType::{F16, F32};
        let shape = |m_size, n_size, k_size, cr_type| wgpu::CooperativeMatrixProperties {
            m_size,
            n_size,
            k_size,
            ab_type: F16,
            cr_type,
            saturating_accumulation: false,
        };
        let (eight, sixteen) = (shape(8, 8, 8, F32), shape(16, 16, 16, F32));
        assert_eq!(side(&[eight, sixteen], 48 << 10, true), Some(16));
        assert_eq!(side(&[eight, sixteen], 48 << 10, false), Some(8), "subgroups of another size");
        assert_eq!(side(&[sixteen, eight], 32 << 10, true), Some(8), "too little memory for the larger");
        assert_eq!(side(&[sixteen], 32 << 10, true), None);
        let others = [shape(16, 8, 16, F32), shape(16, 16, 8, F32), shape(16, 16, 16, F16)];
        assert_eq!(side(&others, 48 << 10, true), None);
        assert_eq!(side(&[eight], 8 << 10, true), None);
        assert_eq!(side(&[], 48 << 10, true), None);
    }

    #[test]
    fn no_adapter_at_all_is_an_error_with_a_reason() {
        for wanted in [Select::Auto, Select::Gpu, Select::GpuIndex(0), Select::Name("x".into())] {
            assert!(!select(&[], &wanted).unwrap_err().to_string().is_empty());
        }
        assert!(select(&[], &Select::Auto).unwrap_err().to_string().contains("driver"));
    }

    #[test]
    fn webgpu_defaults_are_enough_and_less_is_named() {
        assert_eq!(lacking(&wgpu::Limits::default(), true), None);
        let small = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..wgpu::Limits::default() };
        assert!(lacking(&small, true).unwrap().contains("4 storage buffers"));
        assert!(lacking(&wgpu::Limits::default(), false).is_some());
    }
}

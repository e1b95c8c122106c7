//! Choices that change how fast kernels are and nothing else: which of a kernel's shapes, how many workgroups.
//!
//! Every device begins with [`KernelTuning::DEFAULT`], which may be replaced by what was timed on the device itself. The kernels
//! take it from [`DeviceCaps`](super::DeviceCaps).

/// What was chosen for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelTuning {
    /// Workgroups that a launch over the rows should have, so that every compute unit has some.
    pub groups: u32,
    /// The place in the search kernel's table of shapes that more than four queries take where their lists leave room
    /// for it; by the number of queries and places when absent.
    pub search: Option<u8>,
}

impl KernelTuning {
    /// What suits a device that nobody has tuned.
    pub const DEFAULT: KernelTuning = KernelTuning { groups: 2048, search: None };

    /// All that a tuning run tries, the default first: each shape, then fewer and more workgroups.
    pub fn grid() -> Vec<KernelTuning> {
        let shapes = (0..super::search::shapes() as u8)
            .map(|place| KernelTuning { search: Some(place), ..KernelTuning::DEFAULT });
        let groups = [256, 8192].map(|groups| KernelTuning { groups, ..KernelTuning::DEFAULT });
        std::iter::once(KernelTuning::DEFAULT).chain(shapes).chain(groups).collect()
    }

    /// Whether the numbers are ones that a kernel can take.
    pub fn is_sane(&self) -> bool {
        (1..=65_535).contains(&self.groups)
            && self.search.is_none_or(|place| usize::from(place) < super::search::shapes())
    }
}

impl Default for KernelTuning {
    fn default() -> KernelTuning {
        KernelTuning::DEFAULT
    }
}

impl std::fmt::Display for KernelTuning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.search {
            Some(place) => write!(f, "search shape {place}, {} workgroups", self.groups),
            None => write!(f, "shapes by the number of queries, {} workgroups", self.groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_small_and_begins_with_what_ships() {
        let grid = KernelTuning::grid();
        assert_eq!(grid[0], KernelTuning::DEFAULT);
        assert!(grid.len() <= 12 && grid.iter().all(KernelTuning::is_sane), "{grid:?}");
        assert!(!KernelTuning { groups: 0, search: None }.is_sane());
        assert!(!KernelTuning { groups: 64, search: Some(200) }.is_sane());
    }
}

//! The one place that chooses screens and paths, from what backends say they can do and from measured cost. It looks at
//! shapes and capabilities only, never at the name of a device. Backends refuse what they cannot do and choose nothing.

use crate::compute::{Capabilities, EngineError};
use crate::error::SearchError;
use crate::ops::codes::MOST_DIM;
use crate::ops::search::{kept, screens};
use crate::ops::{Engine, Extent, Screen};
use crate::types::DType;

/// Plans searches for a backend.
#[derive(Clone, Copy)]
pub(crate) struct Planner<'a> {
    engine: &'a Engine,
}

/// The facts of a search before it is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Shapes and types.
    pub extent: Extent,
    /// Neighbours per query.
    pub k: usize,
    /// Whether all lengths lie where the proofs of the screens hold.
    pub provable: bool,
    /// Whether codes are there, or enough has been asked for them to be worth making.
    pub codes: bool,
}

impl<'a> Planner<'a> {
    pub fn new(engine: &'a Engine) -> Planner<'a> {
        Planner { engine }
    }

    /// The screen of a search: the one that is wanted as far as it can be had, else the one that is expected to pay.
    ///
    /// # Errors
    /// [`SearchError::Screen`] when the metric has no screen and one is wanted.
    pub fn screen(&self, asked: &Asked, wanted: Option<Screen>) -> Result<Screen, SearchError> {
        let Asked { extent, k, provable, .. } = *asked;
        let metric = extent.metric;
        if let Some(screen) = wanted
            && screen != Screen::None
            && !screens(metric)
        {
            return Err(SearchError::Screen { metric, screen });
        }
        // Outside the range of lengths that the proofs cover, every screen degrades to the direct pass.
        if wanted == Some(Screen::None) || !screens(metric) || !provable || extent.dtype == DType::Bits {
            return Ok(Screen::None);
        }
        let screen = match wanted {
            Some(Screen::Int8) if extent.dim > MOST_DIM => self.possible(&extent, k, Screen::F32),
            Some(screen) => self.possible(&extent, k, screen),
            None if self.codes_pay(asked) => Screen::Int8,
            None if self.pays(&extent, k, Screen::F32) => Screen::F32,
            None => Screen::None,
        };
        // A screen that leaves no row out only costs.
        let all = screen != Screen::None && kept(k, screen, extent.rows) >= extent.rows;
        Ok(if all { Screen::None } else { screen })
    }

    /// Whether codes are there, or are worth making for all that has been asked, and are expected to pay.
    fn codes_pay(&self, asked: &Asked) -> bool {
        // Many neighbours leave little to exclude.
        asked.k <= asked.extent.rows / 32 && self.wants_codes(&asked.extent) && asked.codes
    }

    /// Whether codes of the rows, once they are made, are expected to pay.
    pub fn wants_codes(&self, extent: &Extent) -> bool {
        self.pays(extent, 10, Screen::Int8)
    }

    /// Whether a search behind a screen is expected to be faster than without: by the backend, or by the part of it that is
    /// predicted to answer, each part with the program that suits it.
    pub fn pays(&self, extent: &Extent, k: usize, screen: Screen) -> bool {
        let parts = self.engine.parts();
        if parts.is_empty() {
            return worth(&self.engine.capabilities(), extent, k, screen);
        }
        let worth: Vec<bool> = parts.iter().map(|p| worth(&p.capabilities(), extent, k, screen)).collect();
        let programs = worth.iter().map(|&w| extent.nearest(k, if w { screen } else { Screen::None }));
        let Ok(programs) = programs.collect::<Result<Vec<_>, EngineError>>() else { return false };
        let fastest = self.engine.fastest(&programs.iter().collect::<Vec<_>>());
        worth.get(fastest).copied().unwrap_or(false)
    }

    /// The screen that is wanted, or the next that every part of the backend has.
    fn possible(&self, extent: &Extent, k: usize, wanted: Screen) -> Screen {
        let parts = self.engine.parts();
        let all = |screen| match parts.as_slice() {
            [] => possible(&self.engine.capabilities(), extent, k, screen),
            parts => parts.iter().all(|p| possible(&p.capabilities(), extent, k, screen)),
        };
        let mut screen = wanted;
        while !all(screen) {
            let Some(next) = after(screen) else { return Screen::None };
            screen = next;
        }
        screen
    }

    /// Whether candidates of a screen are better refined where the rows lie: the device has room for what the screen reads,
    /// `component` bytes for each component of a row, but not for the rows beside it.
    pub fn refines_on_host(&self, extent: &Extent, screen: Screen, dim: usize, k: usize) -> bool {
        let parts = self.engine.parts();
        let room = match parts.as_slice() {
            [] => self.engine.capabilities().room,
            parts => {
                let Ok(program) = extent.nearest(k, screen) else { return false };
                let fastest = self.engine.fastest(&vec![&program; parts.len()]);
                parts.get(fastest).and_then(|p| p.capabilities().room)
            }
        };
        let Some(room) = room else { return false };
        let copies = match screen {
            Screen::None | Screen::F32 => return false,
            Screen::F16 => copy_bytes(extent.rows, 2 * dim),
            Screen::Int8 => copy_bytes(extent.rows, dim),
        };
        room.fits(copies) && !room.fits(copies.saturating_add(row_bytes(extent)))
    }
}

/// The screen that excludes most of what this one could not: more bits, then none.
pub(crate) fn after(screen: Screen) -> Option<Screen> {
    match screen {
        Screen::Int8 | Screen::F16 => Some(Screen::F32),
        Screen::F32 => Some(Screen::None),
        Screen::None => None,
    }
}

/// Bytes of all rows on a device, their lengths among them.
fn row_bytes(extent: &Extent) -> u64 {
    extent.rows as u64 * (extent.dtype.row_bytes(extent.dim).next_multiple_of(16) as u64 + 4)
}

/// Bytes of all rows in a screen's own form: components, four numbers each, and one for each group.
fn copy_bytes(rows: usize, row: usize) -> u64 {
    (rows as u64 + 272) * (row as u64 + 17)
}

/// Whether a backend has a screen for a search.
fn possible(caps: &Capabilities, extent: &Extent, k: usize, screen: Screen) -> bool {
    let fits = |bytes| caps.room.is_none_or(|room| room.fits(bytes));
    match screen {
        Screen::None => true,
        // Rows that cross the bus each time are better read once.
        Screen::F32 => kept(k, screen, extent.rows) <= caps.screen_keep && fits(row_bytes(extent)),
        Screen::F16 => caps.f16 && fits(copy_bytes(extent.rows, 2 * extent.dim.next_multiple_of(32))),
        // Codes have at most as many components as rows.
        Screen::Int8 => extent.dim <= MOST_DIM && fits(copy_bytes(extent.rows, extent.dim.next_multiple_of(16))),
    }
}

/// Whether a screen is expected to pay on a backend.
fn worth(caps: &Capabilities, extent: &Extent, k: usize, screen: Screen) -> bool {
    if extent.dtype == DType::Bits || !screens(extent.metric) || !possible(caps, extent, k, screen) {
        return false;
    }
    match screen {
        Screen::None => true,
        Screen::F16 => !reads_rows(caps, extent),
        Screen::F32 => {
            let least = caps.screen_queries.iter().find(|(below, _)| extent.dim < *below);
            extent.queries >= least.map_or(usize::MAX, |&(_, queries)| queries)
        }
        Screen::Int8 => extent.rows >= caps.coded_rows && !reads_rows(caps, extent),
    }
}

/// Whether so few queries are answered soonest from the rows themselves, which fit on the device.
fn reads_rows(caps: &Capabilities, extent: &Extent) -> bool {
    extent.queries < caps.coded_queries && caps.room.is_none_or(|room| room.fits(row_bytes(extent)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Kind, Room};
    use crate::types::Metric;

    const CAPS: Capabilities = Capabilities {
        kind: Kind::Gpu,
        screen_queries: &[(48, 4), (usize::MAX, 16)],
        screen_keep: 128,
        f16: false,
        coded_rows: 1000,
        coded_queries: 0,
        coded_assign: false,
        room: Some(Room { budget: 1 << 20, scratch: 1 << 10, staging: 1 << 10 }),
    };

    fn extent(rows: usize, dim: usize, queries: usize) -> Extent {
        Extent { metric: Metric::L2, dtype: DType::F32, dim, rows, queries }
    }

    #[test]
    fn screens_pay_by_queries_and_room() {
        assert!(worth(&CAPS, &extent(1000, 32, 4), 10, Screen::F32));
        assert!(!worth(&CAPS, &extent(1000, 32, 3), 10, Screen::F32), "too few queries");
        assert!(!worth(&CAPS, &extent(1000, 64, 15), 10, Screen::F32), "too few queries for longer rows");
        assert!(!worth(&CAPS, &extent(10_000, 64, 16), 10, Screen::F32), "the rows do not fit");
        assert!(!worth(&CAPS, &extent(1000, 32, 4), 110, Screen::F32), "too many candidates");
        assert!(worth(&CAPS, &extent(10_000, 64, 1), 10, Screen::Int8), "the codes fit");
        assert!(!worth(&CAPS, &extent(999, 64, 1), 10, Screen::Int8), "too few rows");
        let card = Capabilities { coded_queries: 5, ..CAPS };
        assert!(!worth(&card, &extent(1000, 64, 4), 10, Screen::Int8), "the rows are read sooner");
        assert!(worth(&card, &extent(1000, 64, 5), 10, Screen::Int8));
        assert!(worth(&card, &extent(10_000, 64, 1), 10, Screen::Int8), "only the codes fit");
        assert!(!possible(&CAPS, &extent(1000, 32, 4), 10, Screen::F16), "there is no f16");
        let cosine_of_bits = Extent { metric: Metric::Hamming, dtype: DType::Bits, ..extent(1000, 64, 100) };
        assert!(!worth(&CAPS, &cosine_of_bits, 10, Screen::F32));
    }

    #[test]
    fn every_screen_ends_in_the_direct_pass() {
        for screen in [Screen::Int8, Screen::F16, Screen::F32] {
            let mut last = screen;
            while let Some(next) = after(last) {
                last = next;
            }
            assert_eq!(last, Screen::None);
        }
    }
}

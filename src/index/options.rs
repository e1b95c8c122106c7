//! Options of searches and of training.

use crate::cancel::CancelToken;
use crate::ops::Screen;
use crate::types::Filter;

/// Options of a search besides queries and k. Every method takes the options and gives them back, so that they chain. An
/// option that is not set is as the index is set.
///
/// ```
/// use nearfield::{Filter, SearchOptions};
///
/// let options = SearchOptions::default().probes(64).rerank(100).filter(Filter::Ids(vec![3, 5]));
/// assert_eq!((options.probes, options.rerank), (Some(64), Some(100)));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct SearchOptions {
    /// Which rows may be returned; all when absent.
    pub filter: Option<Filter>,
    /// The pass in front of the direct one; chosen by the device when absent. Never changes the answer (`docs/numerics.md`).
    pub screen: Option<Screen>,
    /// Inverted lists probed per query, from 1 to all; when absent the index's own setting ([`Ivf::probes`](crate::Ivf::probes)).
    /// Ignored by an index without lists.
    pub probes: Option<usize>,
    /// Candidates re-ranked per query, where fewer than k count as k; when absent the index's own setting. Ignored where
    /// nothing better than the codes is kept.
    pub rerank: Option<usize>,
    /// Calls the search off.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub cancel: Option<CancelToken>,
}

impl SearchOptions {
    /// Only these rows.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<Filter>) -> SearchOptions {
        self.filter = Some(filter.into());
        self
    }

    /// Behind this screen.
    #[must_use]
    pub fn screen(mut self, screen: Screen) -> SearchOptions {
        self.screen = Some(screen);
        self
    }

    /// Probes so many inverted lists per query.
    #[must_use]
    pub fn probes(mut self, probes: usize) -> SearchOptions {
        self.probes = Some(probes);
        self
    }

    /// Is called off by this token.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> SearchOptions {
        self.cancel = Some(token.clone());
        self
    }

    /// Re-ranks so many candidates per query.
    #[must_use]
    pub fn rerank(mut self, rows: usize) -> SearchOptions {
        self.rerank = Some(rows);
        self
    }
}

/// How an index is trained.
///
/// ```
/// let options = nearfield::TrainOptions::default().rows(50_000).seed(7);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct TrainOptions {
    /// Rows to learn from, drawn at random; a number that suits the spec when absent.
    pub rows: Option<usize>,
    /// Seed of all that is random: the same seed gives the same index on the same engine.
    pub seed: u64,
}

impl TrainOptions {
    /// Learns from so many rows.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> TrainOptions {
        self.rows = Some(rows);
        self
    }

    /// With this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> TrainOptions {
        self.seed = seed;
        self
    }
}

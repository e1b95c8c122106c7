//! Names and bitmaps in serde's data model; what is plain derives it where it stands. (Feature `serde`.)

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use crate::index::IndexSpec;
use crate::ops::Screen;
use crate::types::{Bitmap, DType, Metric, Neighbors};

/// What is written and read as its text.
macro_rules! as_text {
    ($($t:ty),*) => {$(
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$t, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(Metric, DType, Screen, IndexSpec);

impl Serialize for Bitmap {
    /// (rows, words of 32 rows).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.len(), self.words()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bitmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bitmap, D::Error> {
        let (len, words) = <(usize, Vec<u32>)>::deserialize(deserializer)?;
        if words.len() != len.div_ceil(32) {
            let said = format!("a bitmap of {len} rows has {} words of 32, found {}", len.div_ceil(32), words.len());
            return Err(D::Error::custom(said));
        }
        Ok(Bitmap::from_fn(len, |i| words[i / 32] >> (i % 32) & 1 == 1))
    }
}

impl<'de> Deserialize<'de> for Neighbors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Neighbors, D::Error> {
        #[derive(serde::Deserialize)]
        struct Parts {
            k: usize,
            ids: Vec<u64>,
            // JSON writes NaN, which stands beside missing rows, as null.
            distances: Vec<Option<f32>>,
        }
        let Parts { k, ids, distances } = Parts::deserialize(deserializer)?;
        let distances = distances.into_iter().map(|d| d.unwrap_or(f32::NAN)).collect();
        Neighbors::from_parts(k, ids, distances).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{SearchOptions, TrainOptions};
    use crate::stats::SearchStats;
    use crate::types::{Filter, RangeHits};
    use crate::{CacheDir, DeviceOptions};
    use std::fmt::Debug;
    use std::time::Duration;

    fn round<T: Serialize + for<'de> Deserialize<'de> + PartialEq + Debug>(value: T) -> String {
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
        text
    }

    #[test]
    fn everything_comes_back_as_it_was() {
        assert_eq!(round(Metric::Lp(3.5)), "\"lp:3.5\"");
        DType::ALL.into_iter().for_each(|dtype| drop(round(dtype)));
        assert_eq!(round(Screen::Int8), "\"int8\"");
        assert_eq!(round("IVF1k,RaBitQ4,RFlat".parse::<IndexSpec>().unwrap()), "\"IVF1024,RaBitQ4,Refine(Flat)\"");
        let bits = Bitmap::from_fn(70, |i| i % 3 == 0);
        for filter in [Filter::Rows(bits.clone()), Filter::RowsPerQuery(vec![bits.clone(); 2]), Filter::Ids(vec![7])] {
            round(SearchOptions::default().filter(filter).probes(3).rerank(40).screen(Screen::F32));
        }
        round(TrainOptions::default().rows(5).seed(6));
        round(DeviceOptions::default().device("gpu:1").memory(1 << 30).threads(3).cache_dir("/tmp/x").calibrate(false));
        round(DeviceOptions::default().no_cache());
        assert_eq!(serde_json::from_str::<DeviceOptions>("{}").unwrap(), DeviceOptions::default());
        assert_eq!(DeviceOptions::default().cache_dir, CacheDir::User);
        let mut stats = SearchStats { device: "cpu".to_owned(), proven: 3, ..SearchStats::default() };
        stats.add_stage("search", Duration::from_micros(12), true);
        round(stats);
        round(RangeHits { offsets: vec![0, 1], ids: vec![4], distances: vec![0.5] });
        let hits = Neighbors::from_parts(2, vec![1, u64::MAX], vec![0.5, f32::NAN]).unwrap();
        let again: Neighbors = serde_json::from_str(&serde_json::to_string(&hits).unwrap()).unwrap();
        assert_eq!((again.ids(), again.query(0).count()), (hits.ids(), 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let said = |text: &str| serde_json::from_str::<Bitmap>(text).unwrap_err().to_string();
        assert!(said("[40,[1]]").contains("a bitmap of 40 rows has 2 words of 32, found 1"));
        assert_eq!(serde_json::from_str::<Bitmap>("[3,[255]]").unwrap().count(), 3);
        assert!(serde_json::from_str::<IndexSpec>("\"IVF,PQ\"").is_err());
        assert!(serde_json::from_str::<Metric>("\"l3\"").unwrap_err().to_string().contains("unknown metric"));
        assert!(serde_json::from_str::<Neighbors>(r#"{"k":2,"ids":[1,2,3],"distances":[1,2,3]}"#).is_err());
    }
}

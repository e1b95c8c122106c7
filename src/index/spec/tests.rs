use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::types::Metric;

fn parse(text: &str) -> IndexSpec {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn row_c10_canonical_strings_stay_as_they_are() {
    for text in [
        "Flat",
        "IVF1024,Flat",
        "IVF1024,Flat,Refine(Flat)",
        "OPQ32,IVF4096,PQ32x4fs,Refine(SQ8)",
        "OPQ16_64,IVF256,PQ16",
        "RR128,IVF1024,RaBitQ4",
        "PCA64,IVF256,SQ8",
        "PCAR64,IVF256,SQ8,Refine(Flat)",
        "PQ16",
        "PQ16x4",
        "SQ8",
        "SQ6",
        "SQ4",
        "SQfp16",
        "SQbf16,Refine(SQfp16)",
        "RaBitQ",
        "L2norm,IVF64,Flat",
        "BIVF256",
        "BFlat",
        "Center,RR,IVF16,RaBitQ2",
        "Pad128,Slice64,Flat,Refine(Flat)",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn row_c10_other_ways_to_say_the_same() {
    for (text, canonical) in [
        (" IVF64 , SQ8 ", "IVF64,SQ8"),
        ("IVF4k,PQ16x8", "IVF4096,PQ16"),
        ("IVF1M,PQ16np", "IVF1048576,PQ16"),
        ("IVF64,PQ32x4fsr", "IVF64,PQ32x4fs"),
        ("IVF64,PQ32x4fsr_64,RFlat", "IVF64,PQ32x4fs,Refine(Flat)"),
        ("RaBitQ1", "RaBitQ"),
        ("IVF64,RaBitQfs,Refine(Flat)", "IVF64,RaBitQ,Refine(Flat)"),
        ("RR64,IVF64,RaBitQfs4_64", "RR64,IVF64,RaBitQ4"),
        ("L2Norm,HR64,Flat", "L2norm,RR64,Flat"),
        ("IDMap,Flat", "Flat"),
        ("IDMap2,IVF8,SQ8", "IVF8,SQ8"),
        ("BIVF16,IDMap2", "BIVF16"),
        ("IVF064,Flat", "IVF64,Flat"),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text}");
    }
    let built = IndexSpec::ivf(4096).transform(TransformSpec::Opq { parts: 32, dim: None });
    let built = built.codec(CodecSpec::Product { parts: 32, bits: 4, fast_scan: true }).rerank(RerankSpec::Scalar8);
    assert_eq!(parse("OPQ32,IVF4096,PQ32x4fs,Refine(SQ8)"), built);
}

#[test]
fn row_c10_wrong_tokens_are_named_with_their_place_and_what_fits() {
    for (text, token, place, hint) in [
        ("", "", 1, "Flat"),
        ("HNSW32", "HNSW32", 1, "`Flat` and `IVF1024"),
        ("HNSW32,Flat", "HNSW32", 1, "`Flat` and `IVF1024"),
        ("IVF64_HNSW32,Flat", "IVF64_HNSW32", 1, "exactly"),
        ("IVF64,PQ16x5", "PQ16x5", 2, "4 or 8 bits"),
        ("IVF64,RaBitQ9", "RaBitQ9", 2, "1 to 8 bits"),
        ("RaBitQ0", "RaBitQ0", 1, "1 to 8 bits"),
        ("IVF0,Flat", "IVF0", 1, "1 or more"),
        ("IVF,Flat", "IVF", 1, "number of lists"),
        ("IVF99999999999999999999,Flat", "IVF99999999999999999999", 1, "number of lists"),
        ("IVF99999999999999999M,Flat", "IVF99999999999999999M", 1, "number of lists"),
        ("SQ5", "SQ5", 1, "4, 6 or 8"),
        ("flat", "flat", 1, "`Flat`"),
        ("ivf64,Flat", "ivf64", 1, "`IVF1024`"),
        ("pq16x4", "pq16x4", 1, "`PQ16`"),
        ("Falt", "Falt", 1, "there are Flat"),
        ("PQ32x8fs", "PQ32x8fs", 1, "`PQ32x4fs`"),
        ("PQ32fs", "PQ32fs", 1, "`PQ32x4fs`"),
        ("PQ8+16", "PQ8+16", 1, "as in `PQ16`"),
        ("PQ", "PQ", 1, "as in `PQ16`"),
        ("PQ0", "PQ0", 1, "as in `PQ16`"),
        ("PQ16x4fsx", "PQ16x4fsx", 1, "as in `PQ16`"),
        ("IVF64,SQ8,PQ16", "PQ16", 3, "`SQ8` or `PQ16`"),
        ("SQ8,IVF64", "IVF64", 2, "before the codec `SQ8`"),
        ("IVF64,PCA32,Flat", "PCA32", 2, "before `IVF`"),
        ("IVF64,IVF64,Flat", "IVF64", 2, "one `IVF`"),
        ("RFlat,IVF64,SQ8", "RFlat", 1, "after a codec"),
        ("IVF64,SQ8,RFlat,SQ8", "SQ8", 4, "nothing comes after"),
        ("IVF64,SQ8,Refine(PQ16)", "Refine(PQ16)", 3, "`Refine(SQ8)`"),
        ("IVF64,SQ8,Refine(SQ8", "Refine(SQ8", 3, "`Refine(SQ8)`"),
        ("Flat,RFlat", "RFlat", 2, "leave the re-ranking out"),
        ("IVF64", "IVF64", 1, "wants a codec"),
        ("PCA64", "PCA64", 1, "wants a codec"),
        ("IVF64,,Flat", "", 2, "nothing between commas"),
        ("PCA,Flat", "PCA", 1, "`PCA64`"),
        ("PCAW64,Flat", "PCAW64", 1, "whitening"),
        ("OPQ16_,Flat", "OPQ16_", 1, "`OPQ16_64`"),
        ("OPQ,Flat", "OPQ", 1, "`OPQ16_64`"),
        ("RR0,Flat", "RR0", 1, "`RR64`"),
        ("PCA+64,Flat", "PCA+64", 1, "`PCA64`"),
        ("BIVF64,Flat", "Flat", 2, "packed bits"),
        ("PCA64,BFlat", "BFlat", 2, "packed bits"),
        ("IMI2x8,Flat", "IMI2x8", 1, "`IVF1024`"),
        ("LSQ8x8", "LSQ8x8", 1, "`PQ16`"),
        ("IDMap", "IDMap", 1, "Flat"),
        ("IVF64,IDMap,Flat", "IDMap", 2, "Flat"),
    ] {
        let said = text.parse::<IndexSpec>().expect_err(text);
        assert_eq!((said.token.as_str(), said.place), (token, place), "{text}: {said}");
        assert!(said.reason.contains(hint), "{text}: {said}");
        assert!(said.to_string().contains(text) && said.to_string().contains(&format!("(part {place})")), "{said}");
    }
}

#[test]
fn row_c10_specs_that_do_not_fit_the_data() {
    let l2 = Metric::L2;
    for (text, dim, metric, rows, wrong) in [
        ("Flat", 3, Metric::Lp(3.0), Some(1), None),
        ("Flat", 64, Metric::Hamming, Some(1), None),
        ("BIVF16", 64, Metric::Hamming, Some(16), None),
        ("BIVF16", 64, Metric::Jaccard, Some(16), Some(("BIVF16", 1, "`BFlat`"))),
        ("Center,SQ8", 64, Metric::InnerProduct, None, Some(("Center", 1, "order of inner products"))),
        ("SQ8", 70_000, l2, None, Some(("SQ8", 1, "65536"))),
        ("BIVF16", 64, l2, None, Some(("BIVF16", 1, "hamming or jaccard"))),
        ("IVF16,Flat", 64, Metric::L1, None, Some(("IVF16", 1, "l2, ip or cosine"))),
        ("SQ8", 64, Metric::Hamming, None, Some(("SQ8", 1, "`BFlat` and `BIVF256`"))),
        ("IVF100,Flat", 8, l2, Some(100), None),
        ("IVF100,Flat", 8, l2, Some(99), Some(("IVF100", 1, "99"))),
        ("IVF16,PQ16", 100, l2, None, Some(("PQ16", 2, "10 or 20 would do"))),
        ("PQ200", 100, l2, None, Some(("PQ200", 1, "100 would do"))),
        ("PQ3", 7, l2, None, Some(("PQ3", 1, "1 or 7 would do"))),
        ("PQ16", 64, Metric::Cosine, Some(255), Some(("PQ16", 1, "256"))),
        ("PQ16x4", 64, Metric::InnerProduct, Some(16), None),
        ("PCA64,PQ16", 100, l2, None, None),
        ("PCA64,IVF4,SQ8", 63, l2, None, Some(("PCA64", 1, "at most 63"))),
        ("RR,Slice64,Flat", 63, l2, None, Some(("Slice64", 2, "at most 63"))),
        ("Pad64,PQ16", 63, l2, None, None),
        ("Pad64,PQ16", 65, l2, None, Some(("Pad64", 1, "`Pad65` or more"))),
        ("OPQ16,IVF4,PQ16", 100, l2, None, Some(("OPQ16", 1, "10 or 20"))),
        ("OPQ16_64,IVF4,PQ16", 100, l2, None, None),
        ("OPQ16_64,IVF4,PQ16", 60, l2, None, Some(("OPQ16_64", 1, "at most 60"))),
    ] {
        let found = parse(text).check(dim, metric, rows);
        match (found, wrong) {
            (Ok(()), None) => {}
            (Err(said), Some((token, place, hint))) => {
                assert_eq!((said.token.as_str(), said.place), (token, place), "{said}");
                assert!(said.reason.contains(hint), "{said}");
            }
            (found, _) => panic!("{text}, dim {dim}: {found:?}"),
        }
    }
    assert!(IndexSpec::ivf(0).check(8, l2, None).is_err());
}

#[test]
fn bytes_of_a_vector_are_those_of_its_parts() {
    for (text, dim, bytes) in [
        ("Flat", 128, 512),
        ("BFlat", 128, 16),
        ("IVF16,RaBitQ", 128, 16 + 12),
        ("IVF16,RaBitQ2", 128, 32 + 12),
        ("IVF16,SQ8", 128, 128 + 8),
        ("IVF16,PQ64x4fs", 128, 32 + 8),
        ("IVF16,PQ16", 128, 16 + 8),
        ("PCA64,IVF16,SQ8,RFlat", 128, 64 + 8 + 516),
        ("IVF16,SQfp16,Refine(SQ8)", 128, 256 + 4 + 132),
        ("BIVF16", 128, 16 + 4),
    ] {
        assert_eq!(parse(text).bytes_per_vector(dim), bytes, "{text}");
    }
}

fn transform() -> impl Strategy<Value = TransformSpec> {
    let n = || 1usize..5000;
    prop_oneof![
        (n(), any::<bool>()).prop_map(|(dim, rotate)| TransformSpec::Pca { dim, rotate }),
        (n(), proptest::option::of(n())).prop_map(|(parts, dim)| TransformSpec::Opq { parts, dim }),
        proptest::option::of(n()).prop_map(|dim| TransformSpec::Rotation { dim }),
        Just(TransformSpec::Normalize),
        Just(TransformSpec::Centre),
        n().prop_map(|dim| TransformSpec::Pad { dim }),
        n().prop_map(|dim| TransformSpec::Slice { dim }),
    ]
}

fn codec() -> impl Strategy<Value = CodecSpec> {
    prop_oneof![
        select(vec![CodecSpec::Flat, CodecSpec::F16, CodecSpec::Bf16]),
        select(vec![4, 6, 8]).prop_map(|bits| CodecSpec::Scalar { bits }),
        (1usize..5000).prop_map(|parts| CodecSpec::Product { parts, bits: 8, fast_scan: false }),
        (1usize..5000, any::<bool>()).prop_map(|(parts, fast_scan)| CodecSpec::Product { parts, bits: 4, fast_scan }),
        (1u8..=8).prop_map(|bits| CodecSpec::RaBitQ { bits }),
    ]
}

fn spec() -> impl Strategy<Value = IndexSpec> {
    let rerank = select(vec![RerankSpec::Flat, RerankSpec::F16, RerankSpec::Scalar8]);
    let lists = || proptest::option::of(1usize..10_000_000);
    let vectors = (proptest::collection::vec(transform(), 0..4), lists(), codec(), proptest::option::of(rerank))
        .prop_map(|(transforms, lists, codec, rerank)| {
            let exact = transforms.is_empty() && codec == CodecSpec::Flat;
            IndexSpec { transforms, lists, codec, rerank: rerank.filter(|_| !exact), binary: false }
        });
    prop_oneof![9 => vectors, 1 => lists().prop_map(|lists| IndexSpec { lists, binary: true, ..IndexSpec::FLAT })]
}

proptest! {
    #[test]
    fn row_c10_specs_are_read_as_they_are_printed(spec in spec()) {
        let text = spec.to_string();
        let again: IndexSpec = text.parse().unwrap();
        prop_assert_eq!(&again, &spec);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn row_c10_no_text_is_a_panic(text in "[A-Za-z0-9,()_+x ]{0,24}", dim in 0usize..200, rows in 0usize..500) {
        if let Ok(spec) = text.parse::<IndexSpec>() {
            let _ = spec.check(dim, Metric::L2, Some(rows));
            let _ = spec.bytes_per_vector(dim);
        }
    }

    #[test]
    fn row_c10_a_spec_that_is_no_nonsense_is_no_panic(spec in spec(), dim in 0usize..200) {
        let _ = spec.check(dim, Metric::Cosine, Some(dim));
        let _ = spec.bytes_per_vector(dim);
    }
}

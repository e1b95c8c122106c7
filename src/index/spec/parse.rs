//! Reading factory strings.

use std::str::FromStr;

use super::{IndexSpec, SpecError};
use crate::codec::spec::{CodecSpec, RerankSpec, TransformSpec, digits, whole};

/// Tokens to compare a misspelt one with.
const EXAMPLES: [&str; 24] = [
    "Flat",
    "IVF1024",
    "PCA64",
    "PCAR64",
    "OPQ16",
    "RR",
    "L2norm",
    "Center",
    "Pad128",
    "Slice128",
    "SQ8",
    "SQ6",
    "SQ4",
    "SQfp16",
    "SQbf16",
    "PQ16",
    "PQ32x4fs",
    "RaBitQ4",
    "RFlat",
    "Refine(Flat)",
    "Refine(SQ8)",
    "Refine(SQfp16)",
    "BFlat",
    "BIVF256",
];

/// Parts of Faiss's grammar that are not here, and what is instead.
const ELSEWHERE: [(&str, &str); 19] = [
    ("HNSW", "graphs are not supported; structures are `Flat` and `IVF1024,...`"),
    ("NSG", "graphs are not supported; structures are `Flat` and `IVF1024,...`"),
    ("BHNSW", "graphs are not supported; packed bits take `BFlat` and `BIVF256`"),
    ("BHash", "hashing is not supported; packed bits take `BFlat` and `BIVF256`"),
    ("SVS", "not supported; structures are `Flat` and `IVF1024,...`"),
    ("Vamana", "graphs are not supported; structures are `Flat` and `IVF1024,...`"),
    ("IMI", "the inverted multi-index is not supported; there is `IVF1024`"),
    ("Residual", "two-layer codes are not supported; there is `IVF1024,PQ16`, which codes residuals"),
    ("LSH", "not supported; codes of few bits are `RaBitQ` and `PQ32x4fs`"),
    ("SH", "not supported; codes of few bits are `RaBitQ` and `PQ32x4fs`"),
    ("LSQ", "additive quantisers are not supported; codes are `SQ8`, `PQ16`, `PQ32x4fs` and `RaBitQ4`"),
    ("RQ", "additive quantisers are not supported; codes are `SQ8`, `PQ16`, `PQ32x4fs` and `RaBitQ4`"),
    ("PLSQ", "additive quantisers are not supported; codes are `SQ8`, `PQ16`, `PQ32x4fs` and `RaBitQ4`"),
    ("PRQ", "additive quantisers are not supported; codes are `SQ8`, `PQ16`, `PQ32x4fs` and `RaBitQ4`"),
    ("EDEN", "not supported; `RaBitQ4` is of its kind"),
    ("ZnLattice", "not supported; codes are `SQ8`, `PQ16`, `PQ32x4fs` and `RaBitQ4`"),
    ("FlatDedup", "not supported; there is `Flat`"),
    ("FlatPanorama", "not supported; there is `Flat`, which skips rows by proven bounds"),
    ("RefinePanorama", "not supported; there is `Refine(Flat)`"),
];

/// What a token stands for.
enum Part {
    Transform(TransformSpec),
    Lists(usize),
    Codec(CodecSpec),
    Rerank(RerankSpec),
    Binary(Option<usize>),
}

impl Part {
    fn parse(token: &str) -> Result<Part, String> {
        if token.is_empty() {
            return Err(format!("nothing between commas; {}", fitting()));
        }
        if let Some(part) = TransformSpec::parse(token)?.map(Part::Transform) {
            return Ok(part);
        }
        if let Some(rest) = token.strip_prefix("IVF") {
            return lists(rest, "IVF1024").map(Part::Lists);
        }
        if let Some(rest) = token.strip_prefix("BIVF") {
            return lists(rest, "BIVF256").map(|n| Part::Binary(Some(n)));
        }
        if token == "BFlat" {
            return Ok(Part::Binary(None));
        }
        if let Some((_, why)) = ELSEWHERE.iter().find(|(head, _)| starts_as(token, head)) {
            return Err((*why).to_owned());
        }
        if let Some(part) = RerankSpec::parse(token)?.map(Part::Rerank) {
            return Ok(part);
        }
        CodecSpec::parse(token)?.map(Part::Codec).ok_or_else(|| unknown(token))
    }
}

/// Whether a token is this word with a number or more behind it, not a longer word.
fn starts_as(token: &str, head: &str) -> bool {
    token.strip_prefix(head).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// What follows `IVF`: `1024`, `4k`, `1M`.
fn lists(rest: &str, example: &str) -> Result<usize, String> {
    let wrong = || format!("wanted the number of lists, 1 or more, as in `{example}`");
    let (number, unit) = digits(rest);
    if number.is_empty() {
        return Err(wrong());
    }
    let unit = match unit {
        "" => 1,
        "k" => 1 << 10,
        "M" => 1 << 20,
        _ => return Err(format!("the centroids of lists are compared exactly; write `{example}`")),
    };
    whole(number).and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)
}

fn fitting() -> &'static str {
    "there are Flat, IVF1024, the codecs SQ8, PQ16, PQ32x4fs and RaBitQ4, the transforms PCA64, OPQ16, RR and L2norm, \
     and Refine(Flat)"
}

fn unknown(token: &str) -> String {
    let word = |t: &str| t.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
    let same = EXAMPLES.iter().find(|e| e.eq_ignore_ascii_case(token));
    match same.or_else(|| EXAMPLES.iter().find(|e| word(e) == word(token) && !word(e).is_empty())) {
        Some(example) => format!("unknown; did you mean `{example}`? Capitals matter"),
        None => format!("unknown; {}", fitting()),
    }
}

impl FromStr for IndexSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<IndexSpec, SpecError> {
        let text = text.trim();
        let tokens: Vec<&str> = text.split(',').map(str::trim).collect();
        let wrong = |i: usize, reason: String| SpecError {
            spec: text.to_owned(),
            token: tokens.get(i).copied().unwrap_or_default().to_owned(),
            place: i + 1,
            reason,
        };
        let last = tokens.len() - 1;
        let mut reading = Reading::default();
        for (i, token) in tokens.iter().enumerate() {
            // Ids are always kept; Faiss says so in front or at the end.
            if matches!(*token, "IDMap" | "IDMap2") && last > 0 && (i == 0 || i == last) {
                continue;
            }
            let part = Part::parse(token).map_err(|why| wrong(i, why))?;
            reading.take(part).map_err(|why| wrong(i, why))?;
        }
        reading.end().map_err(|why| wrong(last, why))
    }
}

/// A spec while it is read.
#[derive(Default)]
struct Reading {
    spec: IndexSpec,
    codec: Option<CodecSpec>,
}

impl Reading {
    /// The next part; the error says why it cannot be here.
    fn take(&mut self, part: Part) -> Result<(), String> {
        let spec = &mut self.spec;
        if spec.binary {
            return Err("packed bits are stored and compared as they are; `BFlat` and `BIVF256` stand alone".to_owned());
        }
        if let Some(rerank) = spec.rerank {
            return Err(format!("nothing comes after `{rerank}`; the order is transforms, IVF, codec, Refine"));
        }
        match (part, self.codec) {
            (Part::Rerank(rerank), Some(codec)) => {
                // In lists, the rows to rank from are what filters and `row` look at, too.
                if codec == CodecSpec::Flat && spec.transforms.is_empty() && spec.lists.is_none() {
                    return Err("`Flat` rows are compared exactly already; leave the re-ranking out".to_owned());
                }
                spec.rerank = Some(rerank);
            }
            (Part::Rerank(_), None) => {
                return Err("re-ranking comes after a codec, as in `IVF1024,SQ8,RFlat`".to_owned());
            }
            (Part::Codec(second), Some(first)) => {
                return Err(format!("there is one codec; `{first}` or `{second}` must go"));
            }
            (_, Some(codec)) => return Err(format!("comes before the codec `{codec}`")),
            (Part::Codec(codec), None) => self.codec = Some(codec),
            (Part::Transform(_), None) if spec.lists.is_some() => {
                return Err("transforms come before `IVF`".to_owned());
            }
            (Part::Transform(transform), None) => spec.transforms.push(transform),
            (Part::Lists(_), None) if spec.lists.is_some() => return Err("there is one `IVF`".to_owned()),
            (Part::Lists(lists), None) => spec.lists = Some(lists),
            (Part::Binary(_), None) if spec.lists.is_some() || !spec.transforms.is_empty() => {
                return Err("packed bits are stored and compared as they are; it stands alone".to_owned());
            }
            (Part::Binary(lists), None) => {
                spec.lists = lists;
                spec.binary = true;
            }
        }
        Ok(())
    }

    fn end(self) -> Result<IndexSpec, String> {
        match self.codec {
            None if !self.spec.binary => {
                Err("wants a codec after it: Flat, SQ8, SQfp16, PQ16, PQ32x4fs or RaBitQ4".to_owned())
            }
            codec => Ok(IndexSpec { codec: codec.unwrap_or(CodecSpec::Flat), ..self.spec }),
        }
    }
}

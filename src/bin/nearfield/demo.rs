//! `nearfield demo`: semantic search over 4,000 sentences that the program carries, on the CPU and on the GPU.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nearfield::format::Matrix;
use nearfield::{Device, Flat, Metric, Neighbors, RowsView, SearchOptions};

use crate::common::{DeviceArgs, nearest};
use crate::compare::{self, Agreement, Gpu, agreement};
use crate::{fail, ui};

/// Search 4,000 sentences by meaning, on the CPU and on the GPU; needs no files
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Show the sentences nearest to the one that contains TEXT
    #[arg(long, value_name = "TEXT")]
    like: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Where the shipped files lie in the repository.
const ASSETS: &str = "assets/demo";

/// The shipped sentences, `word: definition`, and their embeddings.
pub struct Sentences {
    pub texts: Vec<&'static str>,
    /// f16 `[4000, 384]`.
    pub base: Matrix,
}

impl Sentences {
    /// Reads the files that the program carries.
    pub fn load() -> Result<Sentences> {
        let base = Matrix::from_npy_bytes(include_bytes!("../../../assets/demo/embeddings.npy"))?;
        let texts = include_str!("../../../assets/demo/sentences.txt").lines().collect();
        Ok(Sentences { texts, base })
    }

    /// The sentence that contains `text`, best as its word, then as a word in it, then anywhere.
    fn find(&self, text: &str) -> Result<usize> {
        let wanted = text.trim().to_lowercase();
        let lower: Vec<String> = self.texts.iter().map(|t| t.to_lowercase()).collect();
        let head = |t: &String| t.split(':').next() == Some(&wanted);
        let whole = |t: &String| t.split(|c: char| !c.is_alphanumeric()).any(|word| word == wanted);
        let find = |fits: &dyn Fn(&String) -> bool| lower.iter().position(fits).filter(|_| !wanted.is_empty());
        let place = find(&head).or_else(|| find(&whole)).or_else(|| find(&|t| t.contains(&wanted)));
        place.ok_or_else(|| {
            let words = self.texts.iter().filter_map(|t| t.split(':').next());
            let hint = nearest(&wanted, words).map(|w| format!("; did you mean `{w}`?"));
            let hint = hint.unwrap_or_else(|| "; try a common word, such as `music` or `river`".to_owned());
            fail::input(format!("none of the {} sentences contains `{text}`{hint}", self.texts.len()))
        })
    }
}

/// Queries with the texts to show for them.
struct Questions {
    texts: Vec<&'static str>,
    rows: Matrix,
    /// Queries of which the answers are shown, and how many answers of each.
    shown: usize,
    places: usize,
    /// A sentence is its own nearest.
    skip: Option<usize>,
}

impl Questions {
    fn shipped() -> Result<Questions> {
        let rows = Matrix::from_npy_bytes(include_bytes!("../../../assets/demo/queries.npy"))?;
        let texts = include_str!("../../../assets/demo/query_sentences.txt").lines().collect();
        Ok(Questions { texts, rows, shown: 5, places: 3, skip: None })
    }

    fn like(sentences: &Sentences, place: usize) -> Result<Questions> {
        let mut row = vec![0.0; sentences.base.dim()];
        sentences.base.view().row_f32(place, &mut row);
        let rows = Matrix::from_vec(row, sentences.base.dim())?;
        Ok(Questions { texts: vec![sentences.texts[place]], rows, shown: 1, places: 10, skip: Some(place) })
    }

    /// Places to ask for.
    fn k(&self) -> usize {
        self.places + usize::from(self.skip.is_some())
    }
}

/// The answer of a device, and its time.
struct Answer {
    device: String,
    found: Neighbors,
    /// The first call, with all that is made ready once.
    first: Duration,
    all: Duration,
    one: Duration,
    fallback: Option<String>,
}

pub fn run(args: &DemoArgs) -> Result<()> {
    let sentences = Sentences::load()?;
    let questions = match &args.like {
        Some(text) => Questions::like(&sentences, sentences.find(text)?)?,
        None => Questions::shipped()?,
    };
    let (cpu, gpu) = compare::both(&args.device)?;
    let on_cpu = ask(&cpu, &sentences, &questions)?;
    let mut text = hits(&sentences, &questions, &on_cpu.found);
    fail::print(&text)?;
    text.clear();
    let (on_gpu, without) = match gpu {
        Gpu::Not(why) => (None, Some(why)),
        Gpu::There(device) => match ask(&device, &sentences, &questions) {
            Ok(Answer { fallback: Some(why), .. }) => (None, Some(why)),
            Ok(answer) => (Some(answer), None),
            // The demo goes on without it, unless it was asked for.
            Err(e) if args.device.device.is_none() => (None, Some(fail::message(&e))),
            Err(e) => return Err(e),
        },
    };
    times(&mut text, &questions, &on_cpu, on_gpu.as_ref());
    let agreed = match &on_gpu {
        Some(gpu) => agree(&mut text, &on_cpu, gpu, &questions),
        None => {
            let why = format!("No GPU to compare with: {}.", without.unwrap_or_default());
            let _ = writeln!(text, "{}", ui::wrap(&why, ui::width(), 0, 0));
            Ok(())
        }
    };
    let _ = writeln!(text, "\n{}", ui::dim("To draw them as a map, in the repository's folder:"));
    let _ =
        writeln!(text, "  nearfield map --base {ASSETS}/embeddings.npy --texts {ASSETS}/sentences.txt --out map.svg");
    fail::print(&text)?;
    agreed
}

fn ask(device: &Device, sentences: &Sentences, questions: &Questions) -> Result<Answer> {
    let flat = Flat::from_matrix(device, sentences.base.clone(), Metric::Cosine, None)?;
    let search = |rows: RowsView<'_>| -> Result<_> {
        let began = Instant::now();
        let (found, stats) = flat.search_with(rows, questions.k(), &SearchOptions::default())?;
        Ok((found, stats, began.elapsed()))
    };
    let rows = questions.rows.view();
    let (found, stats, first) = search(rows)?;
    let best = |rows: RowsView<'_>| -> Result<Duration> {
        (0..20).map(|_| Ok(search(rows)?.2)).try_fold(Duration::MAX, |best, t: Result<_>| Ok(best.min(t?)))
    };
    let one = best(rows.slice(0, 1))?;
    Ok(Answer { device: device.name(), found, first, all: best(rows)?, one, fallback: stats.fallback })
}

fn hits(sentences: &Sentences, questions: &Questions, found: &Neighbors) -> String {
    let width = ui::width();
    let what = format!("{} sentences, searched by meaning", ui::count(sentences.texts.len() as u64));
    let mut text = format!("{}\n", ui::dim(&what));
    for (q, question) in questions.texts.iter().take(questions.shown).enumerate() {
        let _ = writeln!(text, "\n{}", ui::bold(&ui::fit(question, width)));
        let others = found.query(q).filter(|(id, _)| questions.skip != Some(*id as usize));
        for (id, similarity) in others.take(questions.places) {
            let hit = sentences.texts.get(id as usize).copied().unwrap_or_default();
            let _ = writeln!(text, "  {}  {}", ui::dim(&format!("{similarity:.2}")), ui::fit(hit, width - 8));
        }
    }
    text
}

fn times(text: &mut String, questions: &Questions, cpu: &Answer, gpu: Option<&Answer>) {
    let answers: Vec<&Answer> = [Some(cpu), gpu].into_iter().flatten().collect();
    let many = questions.rows.rows() > 1;
    let room = ui::width().saturating_sub(if many { 38 } else { 26 });
    let column = answers.iter().map(|a| a.device.chars().count()).max().unwrap_or(0).clamp(6, room);
    let all = if many { format!("{:>12}", format!("{} queries", questions.rows.rows())) } else { String::new() };
    let _ =
        writeln!(text, "\n{}", ui::dim(&format!("{:<column$}{:>12}{all}{:>12}", "device", "one query", "first call")));
    for a in answers {
        let all = if many { format!("{:>12}", ui::time(a.all)) } else { String::new() };
        let device = ui::fit(&a.device, column);
        let _ = writeln!(text, "{device:<column$}{:>12}{all}{:>12}", ui::time(a.one), ui::time(a.first));
    }
    text.push('\n');
}

fn agree(text: &mut String, cpu: &Answer, gpu: &Answer, questions: &Questions) -> Result<()> {
    let places = cpu.found.ids().len();
    let line = match agreement(&cpu.found, &gpu.found, questions.rows.dim()) {
        Agreement::Same => format!("Both devices agree: the same sentences in all {places} places."),
        Agreement::Ties(ties) => {
            format!("Both devices agree: {ties} of {places} places hold another sentence that is equally near.")
        }
        Agreement::Differ { query, place } => {
            return Err(anyhow::anyhow!(
                "the devices disagree in place {place} of query {query}: {} on the CPU, {} on {}",
                cpu.found.distances()[query * cpu.found.k() + place],
                gpu.found.distances()[query * gpu.found.k() + place],
                gpu.device
            ));
        }
    };
    let _ = writeln!(text, "{line}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_sentences_as_embeddings() {
        let sentences = Sentences::load().unwrap();
        assert_eq!((sentences.texts.len(), sentences.base.rows(), sentences.base.dim()), (4000, 4000, 384));
        let questions = Questions::shipped().unwrap();
        assert_eq!(questions.texts.len(), questions.rows.rows());
    }

    #[test]
    fn sentences_are_found_by_word_first() {
        let sentences = Sentences::load().unwrap();
        let at = |text: &str| sentences.find(text).map(|i| sentences.texts[i]);
        assert!(at("Red Cedar").unwrap().starts_with("red cedar:"));
        assert!(at("fragrant reddish").unwrap().contains("fragrant reddish"));
        let said = at("xyzzyplugh").unwrap_err();
        assert!(said.to_string().contains("xyzzyplugh") && fail::exit_code(&said) == 2);
        assert!(at("").is_err());
    }
}

//! The letters of pictures: their widths, so that labels keep apart, and their outlines, for PNG.

use anyhow::{Result, anyhow};
use ttf_parser::{Face, GlyphId};

/// The file's own licence lies beside it.
const DEJAVU: &[u8] = include_bytes!("font/DejaVuSans.ttf");

/// What families to ask for where letters are not drawn here; all are about as wide.
pub const FAMILIES: &str = "'DejaVu Sans',Verdana,Geneva,'Helvetica Neue',Helvetica,Arial,sans-serif";

pub struct Font {
    face: Face<'static>,
}

impl Font {
    pub fn load() -> Result<Font> {
        let face = Face::parse(DEJAVU, 0).map_err(|e| anyhow!("the font in the program: {e}"))?;
        Ok(Font { face })
    }

    pub fn face(&self) -> &Face<'static> {
        &self.face
    }

    /// The letters of a text, each with its place from the start of the text, at this size.
    pub fn glyphs(&self, text: &str, size: f32) -> impl Iterator<Item = (GlyphId, f32)> {
        let mut at = 0.0;
        text.chars().map(move |c| {
            let (glyph, width) = self.glyph(c);
            let here = at;
            at += width * size;
            (glyph, here)
        })
    }

    /// Of letters that are not in the font it is a sign for that, and as wide as the letters of most other scripts.
    fn glyph(&self, c: char) -> (GlyphId, f32) {
        let units = f32::from(self.face.units_per_em());
        match self.face.glyph_index(c) {
            Some(glyph) => (glyph, f32::from(self.face.glyph_hor_advance(glyph).unwrap_or(0)) / units),
            None => (self.face.glyph_index('\u{fffd}').unwrap_or_default(), 1.03),
        }
    }

    /// How wide a text is at this size.
    pub fn width(&self, text: &str, size: f32) -> f32 {
        text.chars().map(|c| self.glyph(c).1).sum::<f32>() * size
    }

    /// The text, cut with an ellipsis to be at most so wide.
    pub fn fit(&self, text: &str, size: f32, room: f32) -> String {
        if self.width(text, size) <= room {
            return text.to_owned();
        }
        let mut left = room - self.width("…", size);
        let fits = text.chars().take_while(|&c| {
            left -= self.glyph(c).1 * size;
            left >= 0.0
        });
        let cut: String = fits.collect();
        format!("{}…", cut.trim_end_matches([' ', ',', ';', ':', '.', '-']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_measured_and_cut() {
        let font = Font::load().unwrap();
        assert!(font.width("iii", 10.0) < font.width("mmm", 10.0));
        assert!((font.width("ab", 20.0) - 2.0 * font.width("ab", 10.0)).abs() < 1e-3);
        assert_eq!(font.fit("short", 12.0, 100.0), "short");
        let cut = font.fit("a long text, which can't all be shown", 12.0, 80.0);
        assert!(cut.ends_with('…') && !cut.ends_with(",…") && font.width(&cut, 12.0) <= 80.0, "{cut}");
        assert_eq!(font.fit("wide", 12.0, 1.0), "…");
        assert!(font.width("語", 10.0) > 10.0 && font.width("é Ж Ω", 10.0) < 40.0);
    }
}

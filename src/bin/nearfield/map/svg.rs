//! The picture as SVG: text stays text, and points have titles.

use std::fmt::Write;

use super::font::FAMILIES;
use super::scene::{Colour, HEIGHT, Item, Scene, WIDTH};

pub fn svg(scene: &Scene) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"{FAMILIES}\">\n<title>{}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
        escape(&scene.title)
    );
    for item in &scene.items {
        draw(&mut out, item);
    }
    out += "</svg>\n";
    out
}

fn draw(out: &mut String, item: &Item) {
    // Writing to a text cannot fail.
    _ = match item {
        Item::Dot { at, radius, shape, fill, rim, title } => {
            let rim = if *rim { " stroke=\"#ffffff\" stroke-width=\"1.5\"" } else { "" };
            let fill = hex(*fill);
            let title = title.as_ref().map(|t| format!("<title>{}</title>", escape(t))).unwrap_or_default();
            let (tag, form) = match shape.corners() {
                [] => ("circle", format!("cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.2}\"", at.x, at.y)),
                corners => {
                    let place = |&(x, y): &(f32, f32)| format!("{:.1},{:.1}", at.x + x * radius, at.y + y * radius);
                    let places: Vec<String> = corners.iter().map(place).collect();
                    ("polygon", format!("points=\"{}\"", places.join(" ")))
                }
            };
            if title.is_empty() {
                writeln!(out, "<{tag} {form} fill=\"{fill}\"{rim}/>")
            } else {
                writeln!(out, "<{tag} {form} fill=\"{fill}\"{rim}>{title}</{tag}>")
            }
        }
        Item::Line { from, to, width, colour } => writeln!(
            out,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{}\" stroke-width=\"{width}\" fill=\"none\"/>",
            from.x,
            from.y,
            to.x,
            to.y,
            hex(*colour)
        ),
        Item::Text { at, text, size, bold, middle, halo, colour } => writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{size}\"{}{}{} fill=\"{}\">{}</text>",
            at.x,
            at.y,
            if *bold { " font-weight=\"bold\"" } else { "" },
            if *middle { " text-anchor=\"middle\"" } else { "" },
            if *halo { " paint-order=\"stroke\" stroke=\"#ffffff\" stroke-width=\"4\"" } else { "" },
            hex(*colour),
            escape(text)
        ),
    };
}

fn hex([r, g, b]: Colour) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// What XML allows of a text.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_break_the_file() {
        assert_eq!(escape("a<b> & \"c\"\u{0}\t"), "a&lt;b&gt; &amp; &quot;c&quot;  ");
    }
}

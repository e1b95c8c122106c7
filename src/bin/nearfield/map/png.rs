//! The picture as PNG, at twice the size.

use anyhow::{Result, anyhow};
use glam::Vec2;
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};
use ttf_parser::OutlineBuilder;

use super::font::Font;
use super::scene::{Colour, HEIGHT, Item, Scene, Shape, WIDTH};

/// Pixels of a unit of the scene.
const SCALE: f32 = 2.0;

pub fn png(scene: &Scene, font: &Font) -> Result<Vec<u8>> {
    let mut canvas = Pixmap::new((WIDTH * SCALE) as u32, (HEIGHT * SCALE) as u32)
        .ok_or_else(|| anyhow!("no memory for a picture of {WIDTH} x {HEIGHT}"))?;
    canvas.fill(Color::WHITE);
    for item in &scene.items {
        draw(&mut canvas, item, font);
    }
    Ok(canvas.encode_png()?)
}

fn draw(canvas: &mut Pixmap, item: &Item, font: &Font) {
    match item {
        Item::Dot { at, radius, shape, fill: colour, rim, .. } => {
            if *rim {
                fill(canvas, dot(*at, radius + 1.0, *shape), [255; 3]);
            }
            fill(canvas, dot(*at, *radius, *shape), *colour);
        }
        Item::Line { from, to, width, colour } => {
            let mut path = PathBuilder::new();
            path.move_to(from.x, from.y);
            path.line_to(to.x, to.y);
            stroke(canvas, path.finish(), *width, *colour);
        }
        Item::Text { at, text, size, bold, middle, halo, colour } => {
            let start = if *middle { at.x - font.width(text, *size) / 2.0 } else { at.x };
            let letters = letters(font, text, *size, Vec2::new(start, at.y));
            if *halo {
                stroke(canvas, letters.clone(), 4.0, [255; 3]);
            }
            if *bold {
                stroke(canvas, letters.clone(), size * 0.045, *colour);
            }
            fill(canvas, letters, *colour);
        }
    }
}

fn dot(at: Vec2, radius: f32, shape: Shape) -> Option<Path> {
    let corners = shape.corners();
    let Some((first, others)) = corners.split_first() else {
        return PathBuilder::from_circle(at.x, at.y, radius);
    };
    let mut path = PathBuilder::new();
    path.move_to(at.x + first.0 * radius, at.y + first.1 * radius);
    for (x, y) in others {
        path.line_to(at.x + x * radius, at.y + y * radius);
    }
    path.close();
    path.finish()
}

fn paint([r, g, b]: Colour) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(r, g, b, 255);
    paint
}

/// A path that has no area, such as that of a blank, is none.
fn fill(canvas: &mut Pixmap, path: Option<Path>, colour: Colour) {
    if let Some(path) = path {
        let scale = Transform::from_scale(SCALE, SCALE);
        canvas.fill_path(&path, &paint(colour), FillRule::Winding, scale, None);
    }
}

fn stroke(canvas: &mut Pixmap, path: Option<Path>, width: f32, colour: Colour) {
    if let Some(path) = path {
        let stroke = Stroke { width, ..Stroke::default() };
        canvas.stroke_path(&path, &paint(colour), &stroke, Transform::from_scale(SCALE, SCALE), None);
    }
}

/// The outlines of a text.
fn letters(font: &Font, text: &str, size: f32, at: Vec2) -> Option<Path> {
    let scale = size / f32::from(font.face().units_per_em());
    let mut pen = Pen { path: PathBuilder::new(), scale, at };
    for (glyph, place) in font.glyphs(text, size) {
        pen.at.x = at.x + place;
        font.face().outline_glyph(glyph, &mut pen);
    }
    pen.path.finish()
}

struct Pen {
    path: PathBuilder,
    scale: f32,
    at: Vec2,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.at.x + x * self.scale, self.at.y - y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

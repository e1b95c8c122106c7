//! What a picture consists of, before it becomes SVG or PNG.

use glam::Vec2;

pub const WIDTH: f32 = 1280.0;
pub const HEIGHT: f32 = 880.0;

/// Red, green, blue.
pub type Colour = [u8; 3];

pub const INK: Colour = [0x22, 0x22, 0x22];
pub const FAINT: Colour = [0x5a, 0x5a, 0x5a];
pub const LINE: Colour = [0x8a, 0x8a, 0x8a];
pub const BOX: Colour = [0xd4, 0xd4, 0xd4];

/// The form of a point: colours alone would be too few, and not all see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Circle,
    Triangle,
    Square,
    Diamond,
}

impl Shape {
    /// The corners about the middle, of a shape that covers as much as a circle of radius 1; none for the circle.
    pub fn corners(self) -> &'static [(f32, f32)] {
        match self {
            Shape::Circle => &[],
            Shape::Triangle => &[(0.0, -1.42), (1.23, 0.71), (-1.23, 0.71)],
            Shape::Square => &[(-0.886, -0.886), (0.886, -0.886), (0.886, 0.886), (-0.886, 0.886)],
            Shape::Diamond => &[(0.0, -1.253), (1.253, 0.0), (0.0, 1.253), (-1.253, 0.0)],
        }
    }
}

/// One thing to draw.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Dot {
        at: Vec2,
        radius: f32,
        shape: Shape,
        fill: Colour,
        /// With a white rim, to be seen among others.
        rim: bool,
        /// What is said when one points at it.
        title: Option<String>,
    },
    Line {
        from: Vec2,
        to: Vec2,
        width: f32,
        colour: Colour,
    },
    Text {
        /// Where the first letter stands, or the middle of the text.
        at: Vec2,
        text: String,
        size: f32,
        bold: bool,
        middle: bool,
        /// With white about the letters, to be read on lines.
        halo: bool,
        colour: Colour,
    },
}

/// A picture of [`WIDTH`] by [`HEIGHT`], drawn in this order on white.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    pub title: String,
    pub items: Vec<Item>,
}

impl Scene {
    /// Text that begins at a place.
    pub fn text(&mut self, at: Vec2, text: impl Into<String>, size: f32, bold: bool, colour: Colour) {
        self.items.push(Item::Text { at, text: text.into(), size, bold, middle: false, halo: false, colour });
    }
}

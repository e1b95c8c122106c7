//! Where labels go so that they cover neither points, nor lines, nor each other.

/// A box in pixels, y downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Box2 {
    pub x0: f64,
    pub y0: f64,
    pub x1: f64,
    pub y1: f64,
}

impl Box2 {
    fn around((x, y): (f64, f64), width: f64, height: f64) -> Box2 {
        Box2 { x0: x - width / 2.0, y0: y - height / 2.0, x1: x + width / 2.0, y1: y + height / 2.0 }
    }

    /// The area that both cover.
    fn overlap(&self, other: &Box2) -> f64 {
        let x = self.x1.min(other.x1) - self.x0.max(other.x0);
        let y = self.y1.min(other.y1) - self.y0.max(other.y0);
        x.max(0.0) * y.max(0.0)
    }

    fn holds(&self, other: &Box2) -> bool {
        self.x0 <= other.x0 && self.y0 <= other.y0 && self.x1 >= other.x1 && self.y1 >= other.y1
    }
}

/// The middle of a label, and whether it is so far from its point that a line should join them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub x: f64,
    pub y: f64,
    pub far: bool,
}

/// What is taken already.
pub struct Board {
    edge: Box2,
    taken: Vec<Box2>,
}

/// Directions from a point, the liked ones first: right, left, above, below, then between.
const DIRECTIONS: usize = 16;

impl Board {
    pub fn new(edge: Box2) -> Board {
        Board { edge, taken: Vec::new() }
    }

    pub fn block(&mut self, what: Box2) {
        self.taken.push(what);
    }

    /// A line as small boxes.
    pub fn block_line(&mut self, from: (f64, f64), to: (f64, f64), half: f64) {
        self.taken.extend(along(from, to, half));
    }

    /// The area that such a line would share with what is placed already.
    pub fn covered_by_line(&self, from: (f64, f64), to: (f64, f64), half: f64) -> f64 {
        along(from, to, half).map(|part| self.covered(&part)).sum()
    }

    fn covered(&self, what: &Box2) -> f64 {
        self.taken.iter().map(|taken| taken.overlap(what)).sum()
    }

    /// The nearest free place for a label of a point, which is then taken; where there is none, the place that covers
    /// least.
    pub fn place(&mut self, point: (f64, f64), width: f64, height: f64) -> Place {
        let mut best: Option<(f64, Place)> = None;
        'search: for ring in 0..7 {
            // Beyond the dot by a little, then by more.
            let gap = 6.0 + 8.0 * f64::from(ring);
            for turn in 0..DIRECTIONS {
                let quarter = turn * 4 % DIRECTIONS + turn * 4 / DIRECTIONS;
                let angle = quarter as f64 * std::f64::consts::TAU / DIRECTIONS as f64;
                let at = (point.0 + angle.cos() * (gap + width / 2.0), point.1 - angle.sin() * (gap + height / 2.0));
                let label = Box2::around(at, width, height);
                if !self.edge.holds(&label) {
                    continue;
                }
                let covered = self.covered(&label);
                let place = Place { x: at.0, y: at.1, far: ring > 0 };
                if best.is_none_or(|(least, _)| covered < least) {
                    best = Some((covered, place));
                }
                if covered == 0.0 {
                    break 'search;
                }
            }
        }
        let place = best.map_or(Place { x: point.0, y: point.1, far: false }, |(_, place)| place);
        self.block(Box2::around((place.x, place.y), width, height));
        place
    }
}

/// A line as boxes, `half` a box on either side of it.
fn along(from: (f64, f64), to: (f64, f64), half: f64) -> impl Iterator<Item = Box2> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let steps = (dx.hypot(dy) / half.max(1.0)).ceil().clamp(1.0, 2_000.0);
    (0..=steps as usize).map(move |i| {
        let share = i as f64 / steps;
        Box2::around((from.0 + share * dx, from.1 + share * dy), 2.0 * half, 2.0 * half)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new(Box2 { x0: 0.0, y0: 0.0, x1: 400.0, y1: 300.0 })
    }

    #[test]
    fn the_first_label_is_right_of_its_point() {
        let place = board().place((100.0, 100.0), 20.0, 13.0);
        assert_eq!((place.x, place.y, place.far), (116.0, 100.0, false));
    }

    #[test]
    fn labels_of_points_on_one_spot_do_not_overlap() {
        let mut board = board();
        board.block(Box2::around((100.0, 100.0), 11.0, 11.0));
        board.block_line((0.0, 120.0), (400.0, 120.0), 2.0);
        let boxes: Vec<Box2> = (0..20)
            .map(|_| {
                let place = board.place((100.0, 100.0), 17.0, 13.0);
                Box2::around((place.x, place.y), 17.0, 13.0)
            })
            .collect();
        for (i, a) in boxes.iter().enumerate() {
            assert!(boxes[..i].iter().all(|b| a.overlap(b) == 0.0), "label {i}");
            assert!(a.y1 <= 118.0 || a.y0 >= 122.0, "label {i} is on the line");
        }
    }

    #[test]
    fn a_line_knows_what_it_would_cover() {
        let mut board = board();
        board.block(Box2::around((200.0, 100.0), 11.0, 11.0));
        assert!(board.covered_by_line((150.0, 100.0), (250.0, 100.0), 9.0) > 0.0);
        assert_eq!(board.covered_by_line((150.0, 130.0), (250.0, 130.0), 9.0), 0.0);
    }

    #[test]
    fn labels_stay_inside() {
        let mut board = board();
        for corner in [(0.0, 0.0), (400.0, 0.0), (0.0, 300.0), (400.0, 300.0)] {
            let place = board.place(corner, 20.0, 13.0);
            assert!(board.edge.holds(&Box2::around((place.x, place.y), 20.0, 13.0)), "{corner:?}");
        }
    }
}

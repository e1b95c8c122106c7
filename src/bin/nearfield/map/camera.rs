//! From three dimensions to the page.

use glam::camera::rh::{proj::directx::perspective, view::look_at_mat4};
use glam::{Mat4, Vec2, Vec3};

/// Where the camera stands, in radii of the cloud, and how wide it sees.
const EYE: Vec3 = Vec3::new(2.0, 1.3, 3.8);
const FIELD: f32 = 0.5;

/// Points further out than this share of them are drawn at the edge, so that a few strays don't make the rest small.
const INSIDE: f32 = 0.995;

/// The box holds the points between these shares, in each direction.
const BOXED: [f32; 2] = [0.02, 0.98];

/// Where a point is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// On the page.
    pub at: Vec2,
    /// 0 for the nearest point, 1 for the farthest.
    pub depth: f32,
    /// How much larger it is than one in the middle.
    pub size: f32,
}

/// A camera that looks at the middle of a cloud of points, and shows all of it.
pub struct Camera {
    /// Radius of the cloud.
    radius: f32,
    /// Corners of the box, in radii.
    low: Vec3,
    high: Vec3,
    matrix: Mat4,
    view: Mat4,
    scale: f32,
    shift: Vec2,
    near: f32,
    far: f32,
    /// Points that are drawn at the edge.
    pub strays: usize,
}

impl Camera {
    /// For points about the origin, onto a page from `from` to `to`.
    pub fn new(points: &[Vec3], from: Vec2, to: Vec2) -> Camera {
        let mut lengths: Vec<f32> = points.iter().map(|p| p.length()).collect();
        lengths.sort_by(f32::total_cmp);
        let last = lengths.len().saturating_sub(1);
        let most = lengths.last().copied().unwrap_or(0.0);
        let usual = lengths.get((last as f32 * INSIDE).ceil() as usize).copied().unwrap_or(0.0);
        let radius = if most > 1.5 * usual { 1.2 * usual } else { most };
        let radius = if radius > 0.0 { radius } else { 1.0 };
        let view = look_at_mat4(EYE, Vec3::ZERO, Vec3::Y);
        let mut camera = Camera {
            radius,
            low: Vec3::splat(-0.05),
            high: Vec3::splat(0.05),
            matrix: perspective(FIELD, 1.0, 0.1, 100.0) * view,
            view,
            scale: 1.0,
            shift: Vec2::ZERO,
            near: 0.0,
            far: 1.0,
            strays: lengths.iter().filter(|&&l| l > radius * 1.0001).count(),
        };
        let placed: Vec<Vec3> = points.iter().map(|&p| camera.place(p)).collect();
        for direction in 0..3 {
            let mut along: Vec<f32> = placed.iter().map(|p| p[direction]).collect();
            along.sort_by(f32::total_cmp);
            let [low, high] = BOXED.map(|s| along.get((s * last as f32).round() as usize).copied().unwrap_or(0.0));
            camera.low[direction] = camera.low[direction].min(low);
            camera.high[direction] = camera.high[direction].max(high);
        }
        camera.fit(&placed, from, to);
        let depths: Vec<f32> = placed.iter().map(|&p| camera.distance(p)).collect();
        camera.near = depths.iter().copied().fold(f32::INFINITY, f32::min);
        camera.far = depths.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        camera
    }

    /// Scales the points and their box to the page.
    fn fit(&mut self, placed: &[Vec3], from: Vec2, to: Vec2) {
        let all = || placed.iter().copied().chain((0..8).map(|i| self.corner(i))).map(|p| self.flat(p));
        let low = all().reduce(Vec2::min).unwrap_or_default();
        let high = all().reduce(Vec2::max).unwrap_or_default();
        let scale = ((to - from) / (high - low)).min_element();
        self.shift = (from + to) / 2.0 - (low + high) / 2.0 * scale;
        self.scale = scale;
    }

    fn corner(&self, i: usize) -> Vec3 {
        let end = |bit: usize| if i >> bit & 1 == 1 { self.high[bit] } else { self.low[bit] };
        Vec3::new(end(0), end(1), end(2))
    }

    /// In radii, strays brought to the edge.
    fn place(&self, point: Vec3) -> Vec3 {
        (point / self.radius).clamp_length_max(1.0)
    }

    fn flat(&self, p: Vec3) -> Vec2 {
        self.matrix.project_point3(p).truncate() * Vec2::new(1.0, -1.0)
    }

    fn distance(&self, p: Vec3) -> f32 {
        -self.view.transform_point3(p).z
    }

    fn page(&self, p: Vec3) -> Vec2 {
        self.flat(p) * self.scale + self.shift
    }

    /// Where a point is drawn.
    pub fn spot(&self, point: Vec3) -> Spot {
        let p = self.place(point);
        let (distance, range) = (self.distance(p), self.far - self.near);
        let depth = if range > 0.0 { ((distance - self.near) / range).clamp(0.0, 1.0) } else { 0.0 };
        Spot { at: self.page(p), depth, size: EYE.length() / distance }
    }

    /// The edges of the box about the cloud.
    pub fn edges(&self) -> Vec<(Vec2, Vec2)> {
        let ends = (0..8usize).flat_map(|i| (0..3).map(move |bit| (i, i | 1 << bit)).filter(|(a, b)| a != b));
        ends.map(|(a, b)| (self.page(self.corner(a)), self.page(self.corner(b)))).collect()
    }

    /// Where the axes are named: below the first, above the second, beside the third.
    pub fn axes(&self) -> [Vec2; 3] {
        let (low, high, middle) = (self.low, self.high, (self.low + self.high) / 2.0);
        let first = self.page(Vec3::new(middle.x, low.y, high.z)) + Vec2::new(-14.0, 20.0);
        let second = self.page(Vec3::new(low.x, high.y, high.z)) + Vec2::new(0.0, -12.0);
        let third = self.page(Vec3::new(high.x, low.y, middle.z)) + Vec2::new(38.0, 14.0);
        [first, second, third]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Vec2 = Vec2::new(100.0, 50.0);
    const TO: Vec2 = Vec2::new(500.0, 450.0);

    fn inside(spot: Spot) -> bool {
        spot.at.cmpge(FROM - 0.5).all() && spot.at.cmple(TO + 0.5).all()
    }

    #[test]
    fn nearer_is_larger_and_right_is_right() {
        let points = [Vec3::X, Vec3::Y, Vec3::Z, -Vec3::X, -Vec3::Y, -Vec3::Z];
        let camera = Camera::new(&points, FROM, TO);
        let [x, y, z, _, _, back] = points.map(|p| camera.spot(p));
        assert!(points.iter().all(|&p| inside(camera.spot(p))));
        assert!(z.size > back.size && z.depth < back.depth && z.depth == 0.0 && back.depth == 1.0);
        let middle = camera.spot(Vec3::ZERO);
        assert!(x.at.x > middle.at.x && y.at.y < middle.at.y && (middle.size - 1.0).abs() < 1e-3);
        assert_eq!((camera.strays, camera.edges().len()), (0, 12));
    }

    #[test]
    fn a_stray_does_not_make_the_rest_small() {
        let mut points: Vec<Vec3> = (0..999).map(|i| Vec3::new((i as f32).sin(), (i as f32).cos(), 0.1)).collect();
        points.push(Vec3::splat(1e6));
        let camera = Camera::new(&points, FROM, TO);
        assert_eq!(camera.strays, 1);
        assert!(points.iter().all(|&p| inside(camera.spot(p))));
        let width = points[..999].iter().map(|&p| camera.spot(p).at.x).fold(0.0, f32::max);
        assert!(width > 300.0, "{width}");
    }

    #[test]
    fn points_in_one_place_are_drawn_in_the_middle() {
        for points in [vec![], vec![Vec3::ZERO; 3]] {
            let camera = Camera::new(&points, FROM, TO);
            let spot = camera.spot(Vec3::ZERO);
            assert!(inside(spot) && spot.size.is_finite() && spot.depth.is_finite(), "{spot:?}");
        }
    }
}

//! The map as a scene: points in the middle, the names of the clusters on both sides.

use glam::{Vec2, Vec3};

use super::camera::Camera;
use super::font::Font;
use super::scene::{BOX, Colour, FAINT, HEIGHT, INK, Item, LINE, Scene, Shape, WIDTH};
use crate::ui;

/// Told apart by the colour-blind (after Okabe and Ito, without black and yellow, which is too light on white).
const COLOURS: [Colour; 7] = [
    [0x00, 0x72, 0xb2],
    [0xe6, 0x9f, 0x00],
    [0x00, 0x9e, 0x73],
    [0xcc, 0x79, 0xa7],
    [0xd5, 0x5e, 0x00],
    [0x56, 0xb4, 0xe9],
    [0x6a, 0x51, 0x3b],
];
const SHAPES: [Shape; 4] = [Shape::Circle, Shape::Triangle, Shape::Square, Shape::Diamond];

/// Where the points go.
const FROM: Vec2 = Vec2::new(322.0, 112.0);
const TO: Vec2 = Vec2::new(958.0, 792.0);

/// Where labels begin, and how wide and high they are together.
const EDGE: f32 = 32.0;
const ROOM: f32 = 258.0;
const TOP: f32 = 112.0;
const BOTTOM: f32 = 792.0;

/// Sizes of letters.
const HEAD: f32 = 13.0;
const SMALL: f32 = 11.5;

/// How much wider bold letters are.
const BOLD: f32 = 1.12;

/// How much of the farthest points is lost in white.
const FOG: f32 = 0.62;

/// What is drawn.
pub struct Map {
    /// What the rows are called.
    pub name: String,
    /// Rows there are; `points` may be fewer.
    pub rows: usize,
    /// Components of a row.
    pub dim: usize,
    /// Shares of the variance that the three directions hold.
    pub shares: Vec<f32>,
    /// Where the rows lie, about the origin.
    pub points: Vec<Vec3>,
    /// The cluster of each point.
    pub clusters: Vec<u32>,
    /// What each point says of itself; empty when there are no texts.
    pub texts: Vec<String>,
    /// The largest cluster first.
    pub labels: Vec<Label>,
}

/// What is said of a cluster.
pub struct Label {
    /// Words, or a text: as many as there is room for are shown.
    pub heads: Vec<String>,
    pub line: String,
}

/// The colour and shape of a cluster.
fn look(cluster: usize) -> (Colour, Shape) {
    (COLOURS[cluster % COLOURS.len()], SHAPES[cluster / COLOURS.len() % SHAPES.len()])
}

pub fn draw(map: &Map, font: &Font) -> Scene {
    let camera = Camera::new(&map.points, FROM, TO);
    let mut scene = Scene::default();
    for (from, to) in camera.edges() {
        scene.items.push(Item::Line { from, to, width: 1.0, colour: BOX });
    }
    points(&mut scene, map, &camera);
    let unnamed = labels(&mut scene, map, &camera, font);
    axes(&mut scene, map, &camera);
    captions(&mut scene, map, &camera, unnamed);
    scene
}

/// What the edges of the box are.
fn axes(scene: &mut Scene, map: &Map, camera: &Camera) {
    for (i, (at, share)) in camera.axes().into_iter().zip(&map.shares).enumerate() {
        let text = format!("axis {}: {}", i + 1, percent(*share));
        let (size, colour) = (SMALL, FAINT);
        scene.items.push(Item::Text { at, text, size, bold: false, middle: true, halo: true, colour });
    }
}

/// The farthest first, so that the nearest are seen.
fn points(scene: &mut Scene, map: &Map, camera: &Camera) {
    let radius = (150.0 / (map.points.len() as f32).sqrt()).clamp(1.5, 6.0);
    let mut order: Vec<_> = map.points.iter().map(|&p| camera.spot(p)).enumerate().collect();
    order.sort_by(|a, b| b.1.depth.total_cmp(&a.1.depth).then(a.0.cmp(&b.0)));
    for (i, spot) in order {
        let (colour, shape) = look(map.clusters.get(i).map_or(0, |&c| c as usize));
        scene.items.push(Item::Dot {
            at: spot.at,
            radius: radius * spot.size,
            shape,
            fill: mixed(colour, FOG * spot.depth),
            rim: false,
            title: map.texts.get(i).cloned(),
        });
    }
}

/// A colour with so much white.
fn mixed(colour: Colour, white: f32) -> Colour {
    colour.map(|c| (f32::from(c) + (255.0 - f32::from(c)) * white).round() as u8)
}

/// Labels in two columns, with lines to the middles of their clusters; how many clusters have none.
fn labels(scene: &mut Scene, map: &Map, camera: &Camera, font: &Font) -> usize {
    let tall = (BOTTOM - TOP) / 2.0;
    let lines = if map.labels.len() as f32 * 42.0 <= 4.0 * tall { 2 } else { 1 };
    let height = if lines == 2 { 42.0 } else { 20.0 };
    let most = 2 * (2.0 * tall / height) as usize;
    let mut named: Vec<(usize, Vec2)> = (0..map.labels.len().min(most)).map(|c| (c, middle(map, camera, c))).collect();
    // Half of the labels on each side, each side from top to bottom.
    named.sort_by(|a, b| a.1.x.total_cmp(&b.1.x).then(a.0.cmp(&b.0)));
    let right = named.split_off(named.len().div_ceil(2));
    let mut ends = Vec::new();
    for (mut side, left) in [(named, true), (right, false)] {
        side.sort_by(|a, b| a.1.y.total_cmp(&b.1.y).then(a.0.cmp(&b.0)));
        let places = spread(side.iter().map(|(_, at)| at.y).collect(), height);
        for ((cluster, target), y) in side.into_iter().zip(places) {
            let x = if left { EDGE } else { WIDTH - EDGE - ROOM };
            let (colour, shape) = look(cluster);
            let label = &map.labels[cluster];
            let room = ROOM - 18.0;
            // Bold letters are wider.
            let head = fitting(&label.heads, font, room);
            let end = x + 18.0 + font.width(&head, HEAD * BOLD);
            let start = Vec2::new(if left { end + 8.0 } else { x - 8.0 }, y - 4.0);
            scene.items.push(Item::Line { from: start, to: target, width: 0.8, colour: LINE });
            let title = Some(label.heads.join(", "));
            ends.push(Item::Dot { at: target, radius: 5.0, shape, fill: colour, rim: true, title });
            let at = Vec2::new(x + 5.0, y - 4.5);
            scene.items.push(Item::Dot { at, radius: 5.0, shape, fill: colour, rim: false, title: None });
            scene.text(Vec2::new(x + 18.0, y), head, HEAD, true, INK);
            if lines == 2 {
                scene.text(Vec2::new(x + 18.0, y + 16.0), font.fit(&label.line, SMALL, room), SMALL, false, FAINT);
            }
        }
    }
    scene.items.extend(ends);
    map.labels.len().saturating_sub(most)
}

/// As many of the words as there is room for, at least the first.
fn fitting(words: &[String], font: &Font, room: f32) -> String {
    let mut some = (1..=words.len()).rev().map(|count| words[..count].join(", "));
    let fits = |text: &String| font.width(text, HEAD * BOLD) <= room;
    some.clone().find(fits).or_else(|| some.next_back().map(|w| font.fit(&w, HEAD * BOLD, room))).unwrap_or_default()
}

/// The middle of a cluster on the page.
fn middle(map: &Map, camera: &Camera, cluster: usize) -> Vec2 {
    let (mut sum, mut count) = (Vec3::ZERO, 0.0f32);
    for (point, _) in map.points.iter().zip(&map.clusters).filter(|(_, c)| **c as usize == cluster) {
        (sum, count) = (sum + point, count + 1.0);
    }
    camera.spot(sum / count.max(1.0)).at
}

/// Places as near as possible to those wished for, which rise, but so far apart and within the page.
fn spread(wished: Vec<f32>, height: f32) -> Vec<f32> {
    let mut places = wished;
    let mut least = TOP + 14.0;
    for y in &mut places {
        *y = y.max(least);
        least = *y + height;
    }
    let mut most = BOTTOM - height + 14.0;
    for y in places.iter_mut().rev() {
        *y = y.min(most);
        most = *y - height;
    }
    places
}

fn captions(scene: &mut Scene, map: &Map, camera: &Camera, unnamed: usize) {
    let clusters = map.labels.len();
    let many = |n: usize, one: &str| format!("{} {one}{}", ui::count(n as u64), if n == 1 { "" } else { "s" });
    scene.title = format!("{}: {} in {}", map.name, many(map.rows, "vector"), many(clusters, "cluster"));
    let title = scene.title.clone();
    scene.text(Vec2::new(EDGE, 50.0), title, 24.0, true, INK);
    let held: f32 = map.shares.iter().sum();
    let sub = format!(
        "{} components seen in the three directions in which they vary most, which hold {} of their variance",
        ui::count(map.dim as u64),
        percent(held)
    );
    scene.text(Vec2::new(EDGE, 76.0), sub, 14.0, false, FAINT);
    let named = if map.texts.is_empty() { "" } else { "; labels: the texts nearest to each centre" };
    let mut notes = format!("Nearer points are larger and darker. Colours and shapes: clusters by k-means{named}.");
    let mut more = Vec::new();
    if map.points.len() < map.rows {
        more.push(format!(
            "Drawn and clustered: {} of {} rows, evenly chosen.",
            ui::count(map.points.len() as u64),
            ui::count(map.rows as u64)
        ));
    }
    if camera.strays > 0 {
        more.push(format!("{} drawn nearer than they are.", many(camera.strays, "far point")));
    }
    if unnamed > 0 {
        more.push(format!("{} smaller clusters have no label.", ui::count(unnamed as u64)));
    }
    if more.is_empty() {
        notes.push_str(" Made with nearfield.");
    } else {
        more.push("Made with nearfield.".to_owned());
    }
    scene.text(Vec2::new(EDGE, HEIGHT - 38.0), notes, 12.0, false, FAINT);
    scene.text(Vec2::new(EDGE, HEIGHT - 20.0), more.join(" "), 12.0, false, FAINT);
}

pub fn percent(share: f32) -> String {
    let p = 100.0 * share;
    if p < 10.0 { format!("{p:.1} %") } else { format!("{p:.0} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_apart_and_on_the_page() {
        for wished in [vec![], vec![400.0], vec![120.0; 10], vec![900.0; 16], (0..16).map(|i| i as f32).collect()] {
            let count = wished.len();
            let places = spread(wished, 42.0);
            assert_eq!(places.len(), count);
            assert!(places.windows(2).all(|p| p[1] - p[0] >= 41.99), "{places:?}");
            assert!(places.iter().all(|&y| (TOP..=BOTTOM).contains(&y)), "{places:?}");
        }
    }

    #[test]
    fn many_clusters_look_different() {
        let mut looks: Vec<_> = (0..28).map(look).map(|(c, s)| (c, format!("{s:?}"))).collect();
        looks.sort();
        looks.dedup();
        assert_eq!(looks.len(), 28);
        assert_eq!(mixed([0, 128, 255], 0.0), [0, 128, 255]);
        assert_eq!(mixed([0, 128, 255], 1.0), [255; 3]);
    }
}

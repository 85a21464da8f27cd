//! Lines over a logarithmic axis of sizes, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
/// Room for the sizes and, below them, a name in each row.
const BOTTOM: f64 = 110.0;
/// Distance of the marks of the upright axis, which begins at 0.
const STEP: f64 = 0.25;
const COLOURS: [&str; 6] = ["#1b6ca8", "#c0392b", "#2d8659", "#b7791f", "#6b46a3", "#444444"];

/// A name and its points from left to right.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) fn svg(lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (from, to) = all().fold((f64::INFINITY, 1.0_f64), |(from, to), (x, _)| {
        (from.min(x.log10()), to.max(x.log10()))
    });
    let top = all().fold(1.0 + STEP, |top, (_, y)| top.max((y / STEP).ceil() * STEP));
    let across = |x: f64| LEFT + (x.log10() - from) / (to - from).max(1.0) * (WIDTH - LEFT - RIGHT);
    let up = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for mark in 0..=(top / STEP).round() as u32 {
        let value = f64::from(mark) * STEP;
        let (y, right) = (up(value), WIDTH - RIGHT);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#dddddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{value:.2}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let mut sizes: Vec<f64> = all().map(|(x, _)| *x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for size in sizes {
        let (x, y) = (across(size), HEIGHT - BOTTOM + 18.0);
        let _ = writeln!(
            text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{size}</text>"
        );
    }
    for (index, line) in lines.iter().enumerate() {
        draw(&mut text, index, line, across, up);
    }
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, index: usize, line: &Line, across: impl Fn(f64) -> f64, up: impl Fn(f64) -> f64) {
    let colour = COLOURS[index % COLOURS.len()];
    let places: Vec<(f64, f64)> = line.points.iter().map(|&(x, y)| (across(x), up(y))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
    let y = (index as f64).mul_add(16.0, HEIGHT - BOTTOM + 44.0);
    let name = line.name.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{y:.1}\" fill=\"{colour}\">— {name}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spaced_by_their_powers() {
        let line = Line {
            name: "a < b".into(),
            points: vec![(100.0, 1.0), (1000.0, 0.5), (10000.0, 1.5)],
        };
        let text = svg(&[line]);
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        assert!(text.contains(&format!("<circle cx=\"{middle:.1}\"")), "{text}");
        assert!(
            text.contains("a &lt; b") && text.contains(">1.50</text>"),
            "{text}"
        );
    }
}

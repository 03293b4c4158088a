//! The samples as a picture: one SVG file, no program needed but a browser.

use std::fmt::Write as _;

use crate::samples::{Point, Samples};

const WIDTH: f64 = 1120.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 70.0;
const HEIGHT: f64 = 130.0;
const GAP: f64 = 38.0;

/// One curve: its name, colour, and value.
type Curve = (&'static str, &'static str, fn(&Point) -> f64);

/// One diagram: its title with the unit, whether the axis is logarithmic, and its curves.
const PANELS: [(&str, bool, &[Curve]); 5] = [
    ("memory of the agent: RSS in MiB (debug build)", false, &[("RSS", "#1f5fa8", |p| p.rss)]),
    (
        "descriptors and threads of the agent",
        false,
        &[("descriptors", "#b5541c", |p| p.descriptors), ("threads", "#2f7d4f", |p| p.threads)],
    ),
    ("attachments", false, &[("attachments", "#555555", |p| p.pods)]),
    ("calls of the plugin per second", false, &[("calls/s", "#6b4fa0", |p| p.operations)]),
    (
        "time of a call in ms, as the runtime sees it (logarithmic)",
        true,
        &[
            ("ADD p50", "#1f5fa8", |p| p.add[0]),
            ("ADD p99", "#9dbfe6", |p| p.add[1]),
            ("DEL p50", "#b5541c", |p| p.delete[0]),
            ("DEL p99", "#eab897", |p| p.delete[1]),
        ],
    ),
];

/// The whole picture.
pub fn svg(samples: &Samples, title: &str) -> String {
    let height = TOP + PANELS.len() as f64 * (HEIGHT + GAP) + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"42\" fill=\"#666\">grey marks: an agent was started; horizontal: time since the start</text>\n"
    );
    let span = samples.points.last().map_or(1.0, |point| point.t).max(1.0);
    for (number, (title, logarithmic, curves)) in PANELS.iter().enumerate() {
        let y = TOP + number as f64 * (HEIGHT + GAP);
        panel(&mut svg, samples, span, y, title, *logarithmic, curves);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, samples: &Samples, span: f64, y: f64, title: &str, logarithmic: bool, curves: &[Curve]) {
    let width = WIDTH - LEFT - RIGHT;
    let values = samples.points.iter().flat_map(|point| curves.iter().map(|(.., of)| of(point)));
    let most = values.filter(|value| value.is_finite()).fold(1.0, f64::max);
    let ticks = if logarithmic { decades(most) } else { steps(most) };
    let top = ticks.last().copied().unwrap_or(1.0);
    let x_of = |t: f64| LEFT + t / span * width;
    let y_of = |value: f64| {
        let share = if logarithmic { value.max(1.0).log10() / top.log10() } else { value / top };
        y + HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    };
    writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>", y - 6.0).expect("a string");
    // One mark per pixel is enough, however many restarts there were.
    let mut marks: Vec<i64> = samples.starts.iter().map(|t| x_of(*t) as i64).collect();
    marks.dedup();
    for x in marks {
        writeln!(svg, "<path d=\"M{x} {y:.1}v{HEIGHT}\" stroke=\"#000\" stroke-opacity=\"0.12\"/>").expect("a string");
    }
    for tick in ticks {
        let at = y_of(tick);
        writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}h{width}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{tick}</text>",
            LEFT - 6.0,
            at + 4.0
        )
        .expect("a string");
    }
    let (step, unit, per) = times(span);
    let mut t = 0.0;
    while t <= span {
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{} {unit}</text>",
            x_of(t),
            y + HEIGHT + 15.0,
            t / per
        )
        .expect("a string");
        t += step;
    }
    for (number, (name, colour, of)) in curves.iter().enumerate() {
        let mut path = String::new();
        let mut drawing = false;
        for point in &samples.points {
            let value = of(point);
            if value.is_finite() {
                write!(path, "{}{:.1} {:.1}", if drawing { 'L' } else { 'M' }, x_of(point.t), y_of(value))
                    .expect("a string");
            }
            drawing = value.is_finite();
        }
        writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            WIDTH - RIGHT + 10.0,
            y + 14.0 + 16.0 * number as f64
        )
        .expect("a string");
    }
}

/// Round numbers from 0 to at least `most`.
fn steps(most: f64) -> Vec<f64> {
    let magnitude = 10f64.powf((most / 4.0).log10().floor());
    let fits = |step: &f64| step * 4.0 >= most;
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(fits).unwrap_or(most);
    (0..=4).map(|n| f64::from(n) * step).collect()
}

/// 1, 10, 100 to at least `most`.
fn decades(most: f64) -> Vec<f64> {
    (0..=(most.log10().ceil().max(1.0) as i32)).map(|n| 10f64.powi(n)).collect()
}

/// How far apart the marks of the time axis are, their unit, and the seconds of that.
fn times(span: f64) -> (f64, &'static str, f64) {
    let steps = [5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0];
    let step = steps.into_iter().find(|step| span / step <= 12.0).unwrap_or(86400.0);
    match step {
        ..60.0 => (step, "s", 1.0),
        60.0..3600.0 => (step, "min", 60.0),
        _ => (step, "h", 3600.0),
    }
}

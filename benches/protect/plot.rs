//! Small SVG plots: panels in a grid, each with two axes and a line for every series. Readable by day and by night: the
//! picture asks the reader's system which it is, and brings its own ground.

use std::fmt::Write as _;

/// A picture.
pub(crate) struct Sheet {
    pub(crate) title: String,
    /// For the legend: what the lines of all panels are, by the place of their colour. None: there is no legend.
    pub(crate) legend: Vec<(usize, String)>,
    pub(crate) columns: usize,
    pub(crate) panels: Vec<Panel>,
    /// The size of each panel's field, without what is written around it.
    pub(crate) size: (f64, f64),
}

/// Two axes and what is between them.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    /// A height that means something, and what.
    pub(crate) mark: Option<(f64, String)>,
    /// Spans of x in which something is different.
    pub(crate) shades: Vec<(f64, f64)>,
}

/// From where to where, and what is written on it.
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) logarithmic: bool,
    pub(crate) ticks: Vec<(f64, String)>,
}

/// A line.
pub(crate) struct Series {
    /// The place of its colour.
    pub(crate) colour: usize,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether every point is marked.
    pub(crate) dotted: bool,
    /// Whether what is below it is filled.
    pub(crate) filled: bool,
}

impl Axis {
    /// From `low` to `high` in even steps.
    pub(crate) fn linear(low: f64, high: f64, step: f64, unit: &str) -> Self {
        let count = ((high - low) / step).round() as usize;
        let tick = |place: usize| {
            let value = low + step * place as f64;
            (value, format!("{value}{unit}"))
        };
        Self { low, high, logarithmic: false, ticks: (0..=count).map(tick).collect() }
    }

    /// With a tick at each of these, which are as far apart as their ratios are.
    pub(crate) fn logarithmic(low: f64, high: f64, ticks: &[f64], unit: &str) -> Self {
        Self {
            low,
            high,
            logarithmic: true,
            ticks: ticks.iter().map(|tick| (*tick, format!("{tick}{unit}"))).collect(),
        }
    }

    /// Where `value` is, 0 to 1; what is beyond the ends is at the end.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.max(self.low).ln() } else { value };
        let (low, high) = (scale(self.low), scale(self.high));
        ((scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

impl Sheet {
    /// The whole file.
    pub(crate) fn svg(&self) -> String {
        let rows = self.panels.len().div_ceil(self.columns.max(1));
        let (wide, high) = (self.size.0 + LEFT + RIGHT, self.size.1 + TOP + BOTTOM);
        let head = HEAD + if self.legend.is_empty() { 0.0 } else { LEGEND };
        let (width, height) = (wide * self.columns as f64 + EDGE, head + high * rows as f64 + EDGE);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>\n\
             <text class=\"title\" x=\"{EDGE}\" y=\"24\">{title}</text>\n",
            title = escaped(&self.title)
        );
        let mut x = EDGE;
        for (colour, name) in &self.legend {
            let _ = writeln!(
                svg,
                "<path class=\"line c{colour}\" d=\"M{x:.0} 44h22\"/><text x=\"{:.0}\" y=\"48\">{}</text>",
                x + 28.0,
                escaped(name)
            );
            x += 46.0 + 7.2 * name.chars().count() as f64;
        }
        for (place, panel) in self.panels.iter().enumerate() {
            let (column, row) = (place % self.columns, place / self.columns);
            let (left, top) = (LEFT + wide * column as f64, head + TOP + high * row as f64);
            let _ = writeln!(svg, "<g transform=\"translate({left:.0} {top:.0})\">");
            panel.draw(&mut svg, self.size);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, (width, height): (f64, f64)) {
        let x = |value: f64| self.x.place(value) * width;
        let y = |value: f64| (1.0 - self.y.place(value)) * height;
        for (from, to) in &self.shades {
            let (from, to) = (x(*from), x(*to));
            let _ = writeln!(
                svg,
                "<rect class=\"shade\" x=\"{from:.1}\" width=\"{:.1}\" height=\"{height:.0}\"/>",
                to - from
            );
        }
        let _ = writeln!(svg, "<text class=\"head\" y=\"-8\">{}</text>", escaped(&self.title));
        for (value, text) in &self.y.ticks {
            let at = y(*value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M0 {at:.1}h{width:.0}\"/><text class=\"tick\" x=\"-6\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                at + 4.0,
                escaped(text)
            );
        }
        for (value, text) in &self.x.ticks {
            let at = x(*value);
            let _ = writeln!(
                svg,
                "<path class=\"axis\" d=\"M{at:.1} {height:.0}v4\"/><text class=\"tick\" x=\"{at:.1}\" y=\"{:.0}\" \
                 text-anchor=\"middle\">{}</text>",
                height + 17.0,
                escaped(text)
            );
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M0 {height:.0}h{width:.0}\"/>");
        if let Some((value, text)) = &self.mark {
            let at = y(*value);
            let _ = writeln!(
                svg,
                "<path class=\"mark\" d=\"M0 {at:.1}h{width:.0}\"/><text class=\"tick\" x=\"{width:.0}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                at + 14.0,
                escaped(text)
            );
        }
        for series in &self.series {
            let colour = series.colour;
            let mut path = String::new();
            for (place, point) in series.points.iter().enumerate() {
                let _ = write!(path, "{}{:.1} {:.1}", if place == 0 { 'M' } else { 'L' }, x(point.0), y(point.1));
            }
            if series.filled
                && let (Some(first), Some(last)) = (series.points.first(), series.points.last())
            {
                let (first, last) = (x(first.0), x(last.0));
                let _ = writeln!(
                    svg,
                    "<path class=\"fill c{colour}\" d=\"{path}L{last:.1} {height:.0}L{first:.1} {height:.0}Z\"/>"
                );
            }
            let _ = writeln!(svg, "<path class=\"line c{colour}\" d=\"{path}\"/>");
            for point in series.points.iter().filter(|_| series.dotted) {
                let _ = writeln!(
                    svg,
                    "<circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                    x(point.0),
                    y(point.1)
                );
            }
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

const EDGE: f64 = 16.0;
const HEAD: f64 = 34.0;
const LEGEND: f64 = 24.0;
/// Around each panel's field.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 30.0;

/// Colours keep apart for most who see few of them (after Okabe and Ito), on either ground.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}.head{font-weight:600}\
.tick{font-size:11px;fill:#57606a}.ground{fill:#fff}.grid{stroke:#d8dee4;fill:none}.axis{stroke:#57606a;fill:none}\
.mark{stroke:#57606a;stroke-dasharray:4 3;fill:none}.shade{fill:#8c959f;opacity:.14}\
.c0{color:#6e7781}.c1{color:#0072b2}.c2{color:#3f9bc9}.c3{color:#b35900}.c4{color:#8250df}.c5{color:#c2418c}.c6{color:#00805c}\
.c7{color:#cf222e}\
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}.line.c6{stroke-width:3}\
.fill{fill:currentColor;opacity:.18}.dot{fill:currentColor}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.tick{fill:#9ea7b3}.ground{fill:#0d1117}.grid{stroke:#262c36}\
.axis,.mark{stroke:#9ea7b3}.c0{color:#8b949e}.c1{color:#58a6ff}.c2{color:#8fd3ff}.c3{color:#f0883e}.c4{color:#bc8cff}\
.c5{color:#f778ba}.c6{color:#3fd69b}.c7{color:#ff7b72}}";

/// Run by `cargo test --benches`.
pub(crate) fn self_check() {
    let axis = Axis::linear(0.0, 100.0, 50.0, "%");
    assert_eq!(axis.ticks.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["0%", "50%", "100%"]);
    assert_eq!((axis.place(-5.0), axis.place(25.0), axis.place(500.0)), (0.0, 0.25, 1.0));
    let axis = Axis::logarithmic(1.0, 100.0, &[1.0, 10.0, 100.0], "");
    assert!((axis.place(10.0) - 0.5).abs() < 1e-9 && axis.place(0.0) == 0.0, "nothing is the lowest there is");

    let series = Series { colour: 5, points: vec![(0.0, 0.0), (100.0, 100.0)], dotted: true, filled: true };
    let panel = Panel {
        title: "a < b".to_owned(),
        x: Axis::linear(0.0, 100.0, 100.0, ""),
        y: Axis::linear(0.0, 100.0, 100.0, ""),
        series: vec![series],
        mark: Some((50.0, "half".to_owned())),
        shades: vec![(0.0, 50.0)],
    };
    let legend = vec![(5, "vaxel".to_owned())];
    let svg = Sheet { title: "t".to_owned(), legend, columns: 1, panels: vec![panel], size: (200.0, 100.0) }.svg();
    assert!(svg.contains("d=\"M0.0 100.0L200.0 0.0\"") && svg.contains("a &lt; b"), "{svg}");
    assert_eq!(svg.matches("<circle").count(), 2);
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("prefers-color-scheme:dark"));
}

//! Charts as SVG: bars with their range, and curves.

use std::fmt::Write;

use super::label;
use crate::table::Spread;

/// What stands above a chart: what it shows, and in which unit, and whether less is better.
pub(super) struct Heading<'a> {
    pub(super) title: &'a str,
    pub(super) subtitle: &'a str,
}

/// A bar, and the range of its value.
pub(super) struct Bar {
    /// The server.
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) range: Option<(f64, f64)>,
    /// What a reader has to know of it.
    pub(super) note: Option<String>,
}

/// A curve, from left to right.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What goes from left to right.
pub(super) enum Axis {
    /// Numbers, by powers of ten.
    Logarithmic,
    /// The places 0, 1, 2 … by these names.
    Named(Vec<&'static str>),
}

/// Horizontal bars with a mark at `reference`; numbers with so many decimals.
pub(super) fn bars(
    heading: &Heading<'_>,
    bars: &[Bar],
    reference: Option<f64>,
    decimals: usize,
) -> String {
    let bottom = TOP + bars.len() as f64 * STEP;
    let mut svg = open(heading, bottom + 22.0);
    let most = bars.iter().map(|bar| bar.range.map_or(bar.value, |range| range.1));
    // One that is far off is cut: it would make all others too short to be told apart.
    let typical = Spread::of(bars.iter().map(|bar| bar.value)).map_or(0.0, |all| all.median);
    let most = most.fold(0.0, f64::max).min(typical * FAR_OFF).max(f64::MIN_POSITIVE);
    let room = WIDTH - LEFT - RIGHT;
    let place = |value: f64| LEFT + (value / most).min(1.0) * room;
    for tick in ticks(0.0, most, false) {
        let _ = write!(
            svg,
            "<path d=\"M{0:.1} {TOP}V{bottom}\" stroke=\"#e6e6e6\"/>\
             <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\" fill=\"#777\" font-size=\"11\">{2}</text>",
            place(tick),
            bottom + 14.0,
            thousands(tick),
        );
    }
    for (index, bar) in bars.iter().enumerate() {
        let top = TOP + index as f64 * STEP;
        let middle = top + STEP / 2.0 - 2.0;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" {}>{}</text>\
             <rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{}\"/>",
            LEFT - 8.0,
            middle + 4.0,
            if bar.name == "ringloop" { "font-weight=\"bold\"" } else { "" },
            escape(&label(&bar.name)),
            place(bar.value) - LEFT,
            STEP - 5.0,
            colour(&bar.name),
        );
        if bar.value > most {
            let cut = WIDTH - RIGHT - 12.0;
            let _ = write!(
                svg,
                "<path d=\"M{cut} {:.1}l-5 {:.1}M{} {:.1}l-5 {:.1}\" stroke=\"#fff\" stroke-width=\"3\"/>",
                top - 1.0,
                STEP - 3.0,
                cut + 6.0,
                top - 1.0,
                STEP - 3.0,
            );
        } else if let Some((low, high)) = bar.range {
            let (low, high) = (place(low), place(high));
            let _ = write!(
                svg,
                "<path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\" \
                 stroke=\"#333\" fill=\"none\"/>",
                middle - 4.0,
                middle - 4.0,
            );
        }
        let range = bar.range.map_or_else(String::new, |(low, high)| {
            format!(" [{low:.decimals$}..{high:.decimals$}]")
        });
        let note = bar.note.as_ref().map_or_else(String::new, |note| format!(" {note}"));
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\"><tspan font-weight=\"bold\">{:.decimals$}</tspan>\
             <tspan fill=\"#666\">{range}{}</tspan></text>",
            WIDTH - RIGHT + 8.0,
            middle + 4.0,
            bar.value,
            escape(&note),
        );
    }
    if let Some(reference) = reference {
        let x = place(reference);
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {}V{bottom}\" stroke=\"#b00\" stroke-dasharray=\"3 3\"/>",
            TOP - 6.0,
        );
    }
    svg + "</svg>\n"
}

/// Curves whose height is logarithmic if they differ much. None if there is nothing to draw.
pub(super) fn lines(
    heading: &Heading<'_>,
    unit: &str,
    below: &str,
    lines: &[Line],
    axis: Axis,
) -> Option<String> {
    let all = || lines.iter().flat_map(|line| &line.points).filter(|point| point.1 > 0.0);
    all().next()?;
    let height = 380.0;
    let (left, right, top, bottom) = (64.0, 150.0, TOP + 22.0, height - 44.0);
    let across = |value: f64| match axis {
        Axis::Logarithmic => value.log10(),
        Axis::Named(_) => value,
    };
    let reach = |of: &dyn Fn(&(f64, f64)) -> f64| {
        all()
            .map(of)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (first, last) = reach(&|point| across(point.0));
    let (least, most) = reach(&|point| point.1);
    let logarithmic = most / least > 4.0;
    let up = |value: f64| if logarithmic { value.max(least).log10() } else { value };
    let (floor, ceiling) = if logarithmic { (up(least), up(most)) } else { (0.0, most * 1.05) };
    let span = |low: f64, high: f64| if high > low { high - low } else { 1.0 };
    let x =
        |value: f64| left + (across(value) - first) / span(first, last) * (WIDTH - left - right);
    let y = |value: f64| bottom - (up(value) - floor) / span(floor, ceiling) * (bottom - top);

    let mut svg = open(heading, height);
    for tick in ticks(least, most, logarithmic) {
        let _ = write!(
            svg,
            "<path d=\"M{left} {0:.1}H{1}\" stroke=\"#ddd\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#555\">{4}</text>",
            y(tick),
            WIDTH - right,
            left - 6.0,
            y(tick) + 4.0,
            thousands(tick),
        );
    }
    let scale = if logarithmic { ", logarithmic" } else { "" };
    let _ = write!(
        svg,
        "<text x=\"8\" y=\"{}\" fill=\"#555\">{}{scale}</text>",
        top - 10.0,
        escape(unit)
    );
    let names: Vec<(f64, String)> = match &axis {
        Axis::Named(names) => names
            .iter()
            .enumerate()
            .map(|(index, name)| (index as f64, (*name).to_owned()))
            .collect(),
        Axis::Logarithmic => [1.0, 10.0, 100.0, 1000.0, 10_000.0]
            .into_iter()
            .filter(|value: &f64| (first..=last).contains(&value.log10()))
            .map(|value| (value, thousands(value)))
            .collect(),
    };
    for (value, name) in names {
        let _ = write!(
            svg,
            "<path d=\"M{0:.1} {bottom}v5\" stroke=\"#555\"/>\
             <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\" fill=\"#555\">{2}</text>",
            x(value),
            bottom + 18.0,
            escape(&name),
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
        f64::midpoint(left, WIDTH - right),
        height - 8.0,
        escape(below),
    );
    // Names stand at the ends of their curves, from the highest down, and not on each other.
    let mut ends: Vec<(&Line, f64)> =
        lines.iter().filter_map(|line| Some((line, y(line.points.last()?.1)))).collect();
    ends.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut above = f64::MIN;
    for (line, end) in &mut ends {
        above = end.max(above + 15.0);
        let points: Vec<String> = line
            .points
            .iter()
            .map(|&(across, up)| format!("{:.1},{:.1}", x(across), y(up)))
            .collect();
        let colour = colour(&line.name);
        let width = if line.name == "ringloop" { 3 } else { 2 };
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
        for point in &points {
            let (x, y) = point.split_once(',').expect("it was made so");
            let _ = write!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\" {}>{}</text>",
            WIDTH - right + 10.0,
            above + 4.0,
            if line.name == "ringloop" { "font-weight=\"bold\"" } else { "" },
            escape(&label(&line.name)),
        );
    }
    Some(svg + "</svg>\n")
}

/// As text of a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(heading: &Heading<'_>, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12.5\" fill=\"#222\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\
         <text x=\"8\" y=\"37\" fill=\"#666\">{}</text>",
        escape(heading.title),
        escape(heading.subtitle),
    )
}

fn ticks(least: f64, most: f64, logarithmic: bool) -> Vec<f64> {
    if logarithmic {
        let powers = (least.log10().floor() as i32)..=(most.log10().ceil() as i32);
        let all = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|part| part * 10f64.powi(power)));
        return all.filter(|tick| (least..=most).contains(tick)).collect();
    }
    let rough = most / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    (0..=(most / step) as usize).map(|count| count as f64 * step).collect()
}

fn thousands(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A server has the same colour in all charts.
fn colour(server: &str) -> &'static str {
    let family = server.split(['/', '-']).next().unwrap_or_default();
    match (server, family) {
        ("ringloop", _) => "#0072b2",
        (_, "ringloop") => "#7fb8da",
        (_, "ring") => "#444444",
        (_, "epoll") => "#b0b0b0",
        (_, "tokio") => "#d55e00",
        (_, "monoio") => "#009e73",
        (_, "compio") => "#cc79a7",
        (_, "glommio") => "#b59b00",
        (_, "nuclei") => "#8c6d31",
        ("null", _) => "#c9dcea",
        (_, "uvloop") => "#56a04b",
        (_, "asyncio") => "#8a63b8",
        _ => "#dddddd",
    }
}

const WIDTH: f64 = 720.0;
const TOP: f64 = 54.0;
const STEP: f64 = 22.0;
const LEFT: f64 = 150.0;
/// Times the median.
const FAR_OFF: f64 = 2.5;
const RIGHT: f64 = 200.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_readers() {
        assert_eq!(
            [0.5, 12.0, 1234.0, 1_234_567.0].map(thousands),
            ["0.5", "12", "1,234", "1,234,567"]
        );
        assert_eq!(ticks(10.0, 95.0, false), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(8.0, 120.0, true), [10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn nothing_is_no_chart() {
        let heading = Heading { title: "t", subtitle: "s" };
        assert!(lines(&heading, "ns", "n", &[], Axis::Logarithmic).is_none());
    }
}

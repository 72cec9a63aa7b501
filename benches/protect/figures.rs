//! Which plots there are.

use std::fs;
use std::path::Path;

use crate::Failure;
use crate::peer::PEERS;
use crate::plot::{Axis, Panel, Series, Sheet};
use crate::record::{FOLDER, Record, Run, median};
use crate::run::MOMENT;
use crate::story::{Kind, SLOTS};

/// All of them, as files.
pub(crate) fn write(record: &Record) -> Result<(), Failure> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder)?;
    let mut sheets = vec![("overview".to_owned(), Some(overview(record)))];
    for kind in [Kind::Slow, Kind::Crash, Kind::Storm] {
        sheets.push((kind.name().to_owned(), over_time(record, kind, None)));
    }
    for times in record.loads() {
        sheets.push((format!("steady-{times}"), over_time(record, Kind::Steady, Some(times))));
    }
    for (name, sheet) in sheets {
        if let Some(sheet) = sheet {
            fs::write(folder.join(format!("{name}.svg")), sheet.svg())?;
        }
    }
    Ok(())
}

/// What becomes of it all the more is asked.
fn overview(record: &Record) -> Sheet {
    let loads = record.loads();
    let (least, most) = (loads.first().copied().unwrap_or(0.5), loads.last().copied().unwrap_or(10.0));
    let panel = |title: &str, y: Axis, mark: Option<(f64, String)>, value: &dyn Fn(&Run) -> f64| {
        let series = record.names().into_iter().map(|name| {
            let at = |times: &f64| {
                let rounds = record.rounds(name, "steady", Some(*times), false);
                Some((*times, median(rounds.into_iter().map(value))?))
            };
            Series { colour: colour(name), points: loads.iter().filter_map(at).collect(), dotted: true, filled: false }
        });
        let x = Axis::logarithmic(least, most.max(least * 2.0), &loads, "×");
        Panel { title: title.to_owned(), x, y, series: series.collect(), mark, shades: Vec::new() }
    };
    let percent = || Axis::linear(0.0, 100.0, 25.0, "%");
    let slots = || Some((SLOTS as f64, format!("{SLOTS} work processes")));
    Sheet {
        title: "A fragile box, by how much is asked of it (1× is what it can do)".to_owned(),
        legend: record.names().iter().map(|name| (colour(name), (*name).to_owned())).collect(),
        columns: 2,
        panels: vec![
            panel("Good answers, of what the box can do", percent(), None, &|run| run.goodput() / run.capacity * 100.0),
            panel(
                "Most inside the box at once",
                Axis::logarithmic(4.0, 200.0, &[8.0, 16.0, 32.0, 64.0, 128.0], ""),
                slots(),
                &|run| run.seen.max_present as f64,
            ),
            panel("Polite consumers' requests answered", percent(), None, &|run| run.polite() * 100.0),
            panel(
                "99 of 100 good answers within",
                Axis::logarithmic(100.0, 2000.0, &[100.0, 200.0, 500.0, 1000.0, 2000.0], " ms"),
                None,
                &|run| run.p99,
            ),
        ],
        size: (330.0, 180.0),
    }
}

/// A row of panels for each peer: good answers, polite ones' answers, the crowd inside the box.
fn over_time(record: &Record, kind: Kind, times: Option<f64>) -> Option<Sheet> {
    let mut panels = Vec::new();
    let mut title = String::new();
    for name in record.names() {
        // The first round: a median of moments would be nobody's story.
        let Some(run) = record.rounds(name, kind.name(), times, false).into_iter().next() else { continue };
        title = match kind {
            Kind::Steady => format!("{} × what the box can do, over time", run.times),
            Kind::Slow => {
                format!("The box works at half its pace for a while (shaded); {} × what it can do is asked", run.times)
            }
            Kind::Crash => "The box crashes after a third of the time (shaded: down)".to_owned(),
            Kind::Storm => {
                format!("One consumer storms for a while (shaded), up to {} × what the box can do", run.times)
            }
        };
        panels.extend(row(run, kind));
    }
    let legend = vec![(NOBODY, "work for clients that have left".to_owned())];
    (!panels.is_empty()).then_some(Sheet { title, legend, columns: 3, panels, size: (250.0, 92.0) })
}

fn row(run: &Run, kind: Kind) -> [Panel; 3] {
    let colour = colour(&run.peer);
    let third = run.length / 3.0;
    let shades = match kind {
        Kind::Slow | Kind::Storm => vec![(third, 2.0 * third)],
        // Steady or not: what is down is shaded.
        Kind::Steady | Kind::Crash => {
            let down = run.moments.iter().enumerate().filter(|(_, moment)| moment.down);
            down.map(|(place, _)| (place as f64 * MOMENT, (place + 1) as f64 * MOMENT)).collect()
        }
    };
    let line = |colour: usize, filled: bool, value: &dyn Fn(usize) -> Option<f64>| {
        let middle = |place: usize| Some(((place as f64 + 0.5) * MOMENT, value(place)?));
        Series { colour, points: (0..run.moments.len()).filter_map(middle).collect(), dotted: false, filled }
    };
    let moment = |place: usize| run.moments.get(place);
    let good = line(colour, true, &|place| Some(moment(place)?.ok as f64 / MOMENT / run.capacity * 100.0));
    let polite = line(colour, true, &|place| {
        let moment = moment(place)?;
        (moment.polite_offered > 0).then(|| moment.polite_ok as f64 / moment.polite_offered as f64 * 100.0)
    });
    let present = line(colour, false, &|place| Some(moment(place)?.present as f64));
    let abandoned = line(NOBODY, true, &|place| Some(moment(place)?.abandoned as f64));
    let panel = |title: String, y: Axis, series: Vec<Series>, mark: Option<(f64, String)>| Panel {
        title,
        x: Axis::linear(0.0, run.length, third.max(1.0), " s"),
        y,
        series,
        mark,
        shades: shades.clone(),
    };
    let mut crowd = Axis::logarithmic(1.0, 150.0, &[1.0, 8.0, 32.0, 128.0], "");
    if let Some((_, text)) = crowd.ticks.first_mut() {
        // Nobody has no place of its own on such an axis.
        "≤1".clone_into(text);
    }
    [
        panel(format!("{}: good answers", run.peer), Axis::linear(0.0, 150.0, 50.0, "%"), vec![good], None),
        panel("polite ones answered".to_owned(), Axis::linear(0.0, 100.0, 50.0, "%"), vec![polite], None),
        panel("inside the box".to_owned(), crowd, vec![abandoned, present], Some((SLOTS as f64, String::new()))),
    ]
}

/// The colour of what is done for nobody.
const NOBODY: usize = 7;

/// The place of a peer's colour.
fn colour(name: &str) -> usize {
    PEERS.iter().position(|peer| peer.name == name).unwrap_or_default()
}

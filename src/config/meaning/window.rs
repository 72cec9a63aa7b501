//! `[window.NAME]`.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::DeValue;

use super::super::diagnostics::Mistake;
use super::super::reader::Reader;
use super::super::units::duration;
use super::super::values::word;
use super::{MODES, unspan, upstream};
use crate::gear::Gear;
use crate::gear::calendar::{Day, Window};

/// A window and the upstreams it is for.
type Read = (Vec<Spanned<String>>, Option<Window>);

/// Reads all windows and gives them to their upstreams.
pub(super) fn give(file: &mut Reader<'_>, upstreams: &mut [upstream::Named]) {
    for (names, window) in file.named("window", read) {
        for name in names {
            match upstreams.iter_mut().find(|(upstream, _)| upstream.get_ref() == name.get_ref()) {
                Some((_, Some(upstream))) => upstream.windows.extend(window.clone()),
                Some((_, None)) => {}
                None => {
                    let known = upstreams.iter().map(|(upstream, _)| upstream.get_ref().as_str());
                    let mistake = Mistake::new(format!("there is no upstream `{}`", name.get_ref()));
                    file.error(name.span(), mistake.did_you_mean(name.get_ref(), known));
                }
            }
        }
    }
}

fn read(name: &Spanned<String>, window: &mut Reader<'_>) -> Read {
    let upstreams = window.some("upstreams", word).unwrap_or_default();
    window.must("upstreams");
    let zone = window.value("zone", zone);
    let days = unspan(window.some("days", day).unwrap_or_default());
    let from = window.required("from", time);
    let to = window.required("to", time);
    let gear = window.choice("gear", &[("eco", Gear::Eco), ("limp", Gear::Limp), ("park", Gear::Park)]);
    let refuses_writes = window.choice("writes", &[("refuse", true), ("pass", false)]);
    let lead = window.value("lead", part_of_a_day);
    let ramp = window.value("ramp", part_of_a_day);
    let mode = window.choice("mode", &MODES);
    if gear == Gear::Park && !refuses_writes {
        let mistake = Mistake::new("in park nothing passes, writes neither");
        window.warn(window.span("writes"), mistake);
    }
    let read = from.zip(to).map(|(from, to)| Window {
        name: name.get_ref().clone(),
        zone,
        days,
        from,
        to,
        gear,
        refuses_writes,
        lead,
        ramp,
        mode,
    });
    (upstreams, read)
}

/// The name of a time zone.
pub(super) fn zone(value: &DeValue<'_>) -> Result<TimeZone, Mistake> {
    let name = word(value)?;
    TimeZone::get(&name).map_err(|_| {
        Mistake::new(format!("there is no time zone `{name}`"))
            .hint("as in \"Europe/Stockholm\", \"Asia/Tokyo\", \"UTC\"")
    })
}

fn day(value: &DeValue<'_>) -> Result<Day, Mistake> {
    let written = word(value)?;
    Day::from_str(&written).map_err(|()| {
        Mistake::new(format!("`{written}` says no days"))
            .hint("possible here: \"mon\", \"mon-fri\", \"15\" and \"last\" of the month, \"2026-12-24\"")
    })
}

fn time(value: &DeValue<'_>) -> Result<Time, Mistake> {
    let written = word(value)?;
    let is_clear = written.contains(':');
    let time = if is_clear { written.parse().ok() } else { None };
    time.ok_or_else(|| Mistake::new(format!("`{written}` is no time of day")).hint("as in \"23:00\" or \"02:30\""))
}

fn part_of_a_day(value: &DeValue<'_>) -> Result<Duration, Mistake> {
    let duration = duration(value)?;
    if duration > DAY { Err(Mistake::new("longer than a day")) } else { Ok(duration) }
}

const DAY: Duration = Duration::from_secs(86_400);

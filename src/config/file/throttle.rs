//! The keys about slots and who gets them.

use super::super::dictionary::Kind::{Choice, Duration, Whole};
use super::super::dictionary::{Key, Section};

/// The words of `slots.adaptive`.
const POLICIES: &[&str] = &["gradient", "aimd"];
/// The words of `slots.mode`.
const LIMIT_MODES: &[&str] = &["enforce", "shadow"];

pub(super) static ADAPTIVE: Section = Section {
    name: "slots of an [upstream.NAME]",
    about: "A number of slots that adapts to what the upstream can bear.",
    keys: &[
        Key::new(
            "adaptive",
            Choice(POLICIES),
            "By latency (gradient), or by what it refuses and leaves unanswered (aimd).",
        )
        .required(),
        Key::new("min", Whole, "Never fewer.").default("1"),
        Key::new("max", Whole, "Never more.").required(),
        Key::new("start", Whole, "How many at first, and in force in shadow mode; a quarter of `max` if not given."),
        Key::new("slow", Duration, "For aimd: an answer that takes longer means too much; none does if not given."),
        Key::new("mode", Choice(LIMIT_MODES), "Whether the number counts, or is only suggested.").default("'enforce'"),
    ],
};

pub(super) static RESERVE: Section = Section {
    name: "reserve",
    about: "Slots kept free for a class; the others may not take them, used or not.",
    keys: &[
        Key::new("interactive", Whole, "For somebody who looks at a spinner.").default("0"),
        Key::new("normal", Whole, "For what has no other class.").default("0"),
        Key::new("batch", Whole, "For jobs that can wait, but not for ever.").default("0"),
        Key::new("refresh", Whole, "For vaxel's own background refreshes.").default("0"),
    ],
};

pub(super) static QUEUE: Section = Section {
    name: "queue",
    about: "Who waits for a slot.",
    keys: &[
        Key::new("max", Whole, "Requests that may wait; 4 for each slot, at least 64, if not given. 0: nobody."),
        Key::new("timeout", Duration, "How long a request may wait.").default("'2s'"),
    ],
};

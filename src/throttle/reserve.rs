//! Slots kept free for a class, and slots that a class may have at most. Pure.
//!
//! - **Kept**: when batch jobs fill the upstream, the next clerk does not wait for one of them to end, and when clerks do,
//!   the nightly run still gets on. A class first uses what is kept for it, then what is kept for nobody. What is kept and
//!   not in use is out of reach for the others, so every slot kept is one less for them on most days: keep few.
//! - **Capped**: when everybody logs on at eight, those who are in go on working. What a class may not have is everybody
//!   else's, and a capped class has no more of the queue than of the slots.
//!
//! Where there are fewer slots than usual (a ramp, a lower gear), both are fewer in proportion, rounded down; a cap is at
//! least one.

use crate::throttle::Class;

/// A number for each class, in the order of [`Class::ALL`].
pub type PerClass = [u32; Class::ALL.len()];

/// Nothing for nobody.
pub const NONE: PerClass = [0; Class::ALL.len()];

/// No class is held to anything.
pub const UNCAPPED: PerClass = [u32::MAX; Class::ALL.len()];

/// Logons may have two: real ones cost about twenty times a call, and two at a time bring everybody in within minutes.
pub const CAPS: PerClass = with(UNCAPPED, Class::Logon, 2);

/// `all`, but `number` for one class.
#[expect(clippy::indexing_slicing, reason = "a class is a place in it")]
pub const fn with(mut all: PerClass, class: Class, number: u32) -> PerClass {
    all[class as usize] = number;
    all
}

/// The number of one class.
pub(crate) fn of(all: PerClass, class: Class) -> u32 {
    all.get(class as usize).copied().unwrap_or(0)
}

/// What is kept, what is the most, and what each class holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserve {
    kept: PerClass,
    cap: PerClass,
    held: PerClass,
}

impl Reserve {
    /// Nobody holds anything.
    pub(crate) const fn new(kept: PerClass, cap: PerClass) -> Self {
        Self { kept, cap, held: NONE }
    }

    /// Keeps and allows so many from now on; what is held is held on.
    pub(crate) const fn retune(&mut self, kept: PerClass, cap: PerClass) {
        self.kept = kept;
        self.cap = cap;
    }

    /// What each class holds.
    #[cfg(test)]
    pub(crate) const fn held(&self) -> PerClass {
        self.held
    }

    /// A request of `class` holds `count` more slots.
    pub(crate) fn take(&mut self, class: Class, count: u32) {
        if let Some(held) = self.held.get_mut(class as usize) {
            *held += count;
        }
    }

    /// A request of `class` has given `count` slots back.
    pub(crate) fn give(&mut self, class: Class, count: u32) {
        if let Some(held) = self.held.get_mut(class as usize) {
            *held = held.saturating_sub(count);
        }
    }

    /// Slots that each class may take of `free` ones, while `slots` of `all` are let out.
    pub(crate) fn room(&self, free: u32, slots: u32, all: u32) -> PerClass {
        Class::ALL.map(|class| self.room_of(class, free, slots, all))
    }

    /// The same of one class.
    pub(crate) fn room_of(&self, class: Class, free: u32, slots: u32, all: u32) -> u32 {
        let mut room = free;
        if self.kept != NONE {
            let own = self.own(slots, all);
            room = free.saturating_sub(own.iter().sum::<u32>() - of(own, class));
        }
        let cap = of(self.cap, class);
        if cap < u32::MAX {
            room = room.min(scaled(cap, slots, all).max(1).saturating_sub(of(self.held, class)));
        }
        room
    }

    /// Slots that each class may still take under its own cap, free or not; `None` where none is capped.
    pub(crate) fn left(&self, slots: u32, all: u32) -> Option<PerClass> {
        (self.cap != UNCAPPED).then(|| {
            let mut left = self.capped(slots, all);
            left.iter_mut().zip(self.held).for_each(|(left, held)| *left = left.saturating_sub(held));
            left
        })
    }

    /// Slots kept for each class that it does not use: nobody else may take them.
    pub(crate) fn own(&self, slots: u32, all: u32) -> PerClass {
        let mut own = self.kept.map(|kept| scaled(kept, slots, all));
        own.iter_mut().zip(self.held).for_each(|(own, held)| *own = own.saturating_sub(held));
        own
    }

    /// Slots that each class may have when nobody else has any; at least one.
    pub(crate) fn most(&self, slots: u32, all: u32) -> PerClass {
        let mut most = [slots; Class::ALL.len()];
        if self.kept != NONE {
            let kept = self.kept.map(|kept| scaled(kept, slots, all));
            let total: u32 = kept.iter().sum();
            most = kept.map(|own| slots.saturating_sub(total - own).max(1));
        }
        if self.cap != UNCAPPED {
            most.iter_mut().zip(self.capped(slots, all)).for_each(|(most, cap)| *most = cap.min(*most));
        }
        most
    }

    /// What each class is capped to, while `slots` of `all` are let out.
    pub(crate) fn capped(&self, slots: u32, all: u32) -> PerClass {
        self.cap.map(|cap| scaled(cap, slots, all).max(1))
    }
}

/// The part of `number` that counts while `slots` of `all` are let out.
fn scaled(number: u32, slots: u32, all: u32) -> u32 {
    if slots >= all {
        return number;
    }
    let share = u64::from(number) * u64::from(slots) / u64::from(all.max(1));
    u32::try_from(share).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// With `kept` and `held` slots, who may take how many of the rest of ten?
    #[track_caller]
    fn check(kept: PerClass, held: PerClass, slots: u32, expected: PerClass) {
        check_capped(kept, UNCAPPED, held, slots, expected);
    }

    #[track_caller]
    fn check_capped(kept: PerClass, cap: PerClass, held: PerClass, slots: u32, expected: PerClass) {
        let reserve = Reserve { kept, cap, held };
        let free = slots.saturating_sub(held.iter().sum());
        assert_eq!(reserve.room(free, slots, 10), expected);
    }

    #[test]
    fn what_is_kept_for_one_is_out_of_reach_for_the_others() {
        check(NONE, [0, 7, 0, 0, 0], 10, [3; 5]);
        check([2, 0, 0, 0, 0], NONE, 10, [10, 8, 8, 8, 8]);
        check([2, 0, 0, 1, 0], NONE, 10, [9, 7, 7, 8, 7]);
        check([2, 0, 0, 1, 0], [0, 7, 0, 0, 0], 10, [2, 0, 0, 1, 0]);
        check([2, 0, 0, 1, 0], [1, 7, 0, 0, 0], 10, [1, 0, 0, 1, 0]);
        check([2, 0, 0, 1, 0], [5, 2, 0, 0, 0], 10, [2, 2, 2, 3, 2]);
        check([2, 0, 0, 1, 0], [3, 6, 0, 1, 0], 10, NONE);
    }

    #[test]
    fn what_a_class_may_have_at_most_leaves_the_rest_to_the_others() {
        check_capped(NONE, CAPS, NONE, 10, [10, 10, 2, 10, 10]);
        check_capped(NONE, CAPS, [0, 0, 2, 0, 0], 10, [8, 8, 0, 8, 8]);
        check_capped(NONE, CAPS, [9, 0, 0, 0, 0], 10, [1; 5]);
        check_capped([0, 0, 1, 0, 0], CAPS, [9, 0, 0, 0, 0], 10, [0, 0, 1, 0, 0]);
        check_capped([0, 0, 1, 0, 0], CAPS, [0, 0, 2, 7, 0], 10, [1, 1, 0, 1, 1]);
        // More than the cap are held after a reload.
        check_capped(NONE, CAPS, [0, 0, 5, 0, 0], 10, [5, 5, 0, 5, 5]);
    }

    #[test]
    fn with_fewer_slots_fewer_are_kept_and_allowed() {
        check([4, 0, 0, 1, 0], NONE, 5, [5, 3, 3, 3, 3]);
        check([4, 0, 0, 1, 0], NONE, 1, [1; 5]);
        check_capped(NONE, CAPS, NONE, 5, [5, 5, 1, 5, 5]);
        check_capped(NONE, CAPS, NONE, 1, [1; 5]);
    }

    #[test]
    fn a_request_takes_no_more_than_its_class_may_ever_have() {
        let most = |kept, cap, slots, all| Reserve::new(kept, cap).most(slots, all);
        assert_eq!(most(NONE, UNCAPPED, 3, 3), [3; 5]);
        assert_eq!(most([1, 0, 0, 1, 0], UNCAPPED, 3, 3), [2, 1, 1, 2, 1]);
        assert_eq!(most([2, 0, 0, 0, 0], UNCAPPED, 1, 10), [1; 5]);
        assert_eq!(most(NONE, CAPS, 8, 8), [8, 8, 2, 8, 8]);
        assert_eq!(most(NONE, CAPS, 1, 1), [1; 5]);
    }

    proptest! {
        #[test]
        fn each_can_take_its_own_and_none_more_than_its_cap_whatever_the_others_take(
            kept in prop::array::uniform5(0_u32..3),
            above in prop::array::uniform5(0_u32..8),
            order in prop::collection::vec(0_usize..5, 0..40),
        ) {
            let mut cap = kept;
            cap.iter_mut().zip(above).for_each(|(cap, above)| *cap = (*cap + above).max(1));
            let mut reserve = Reserve::new(kept, cap);
            let mut held: PerClass = NONE;
            for class in order {
                let free = 15 - held.iter().sum::<u32>();
                let room = reserve.room(free, 15, 15);
                prop_assert!(room.iter().all(|room| *room <= free));
                for (class, held) in held.iter().enumerate() {
                    prop_assert!(room[class] >= kept[class].saturating_sub(*held), "{class} of {held:?}");
                    prop_assert!(room[class] + held <= cap[class]);
                }
                if room[class] > 0 {
                    reserve.take(Class::ALL[class], 1);
                    held[class] += 1;
                }
            }
            for (class, held) in Class::ALL.into_iter().zip(held) {
                reserve.give(class, held);
            }
            prop_assert_eq!(reserve.held, NONE);
        }
    }
}

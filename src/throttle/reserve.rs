//! Slots kept free for a class: when batch jobs fill the upstream, the next clerk does not wait for one of them to end,
//! and when clerks do, the nightly run still gets on. Pure.
//!
//! A class first uses what is kept for it, then what is kept for nobody. What is kept and not in use is out of reach for
//! the others, so every slot kept is one less for them on most days: keep few. Where there are fewer slots than usual (a
//! ramp, a lower gear), fewer are kept in proportion, rounded down.

use crate::throttle::Class;

/// A number for each class, in the order of [`Class::ALL`].
pub type PerClass = [u32; 4];

/// The number of one class.
pub(crate) fn of(all: PerClass, class: Class) -> u32 {
    all.get(class as usize).copied().unwrap_or(0)
}

/// What is kept, and what each class holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reserve {
    kept: PerClass,
    held: PerClass,
}

impl Reserve {
    /// Nobody holds anything.
    pub(crate) const fn new(kept: PerClass) -> Self {
        Self { kept, held: [0; 4] }
    }

    /// Keeps so many from now on; what is held is held on.
    pub(crate) const fn retune(&mut self, kept: PerClass) {
        self.kept = kept;
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
        if self.kept == [0; 4] {
            return [free; 4];
        }
        let own = self.own(slots, all);
        let kept: u32 = own.iter().sum();
        own.map(|own| free.saturating_sub(kept - own))
    }

    /// Slots kept for each class that it does not use: nobody else may take them.
    pub(crate) fn own(&self, slots: u32, all: u32) -> PerClass {
        let mut own = self.scaled(slots, all);
        own.iter_mut().zip(self.held).for_each(|(own, held)| *own = own.saturating_sub(held));
        own
    }

    /// Slots that each class may have when nobody else has any; at least one.
    pub(crate) fn most(&self, slots: u32, all: u32) -> PerClass {
        if self.kept == [0; 4] {
            return [slots; 4];
        }
        let kept = self.scaled(slots, all);
        let total: u32 = kept.iter().sum();
        kept.map(|own| slots.saturating_sub(total - own).max(1))
    }

    /// What is kept, while `slots` of `all` are let out.
    fn scaled(&self, slots: u32, all: u32) -> PerClass {
        let share = |kept: u32| u64::from(kept) * u64::from(slots.min(all)) / u64::from(all.max(1));
        self.kept.map(|kept| u32::try_from(share(kept)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// With `kept` and `held` slots, who may take how many of the rest of ten?
    #[track_caller]
    fn check(kept: PerClass, held: PerClass, slots: u32, expected: PerClass) {
        let reserve = Reserve { kept, held };
        let free = slots.saturating_sub(held.iter().sum());
        assert_eq!(reserve.room(free, slots, 10), expected);
    }

    #[test]
    fn what_is_kept_for_one_is_out_of_reach_for_the_others() {
        check([0; 4], [0, 7, 0, 0], 10, [3, 3, 3, 3]);
        check([2, 0, 0, 0], [0; 4], 10, [10, 8, 8, 8]);
        check([2, 0, 1, 0], [0; 4], 10, [9, 7, 8, 7]);
        check([2, 0, 1, 0], [0, 7, 0, 0], 10, [2, 0, 1, 0]);
        check([2, 0, 1, 0], [1, 7, 0, 0], 10, [1, 0, 1, 0]);
        check([2, 0, 1, 0], [5, 2, 0, 0], 10, [2, 2, 3, 2]);
        check([2, 0, 1, 0], [3, 6, 1, 0], 10, [0; 4]);
    }

    #[test]
    fn with_fewer_slots_fewer_are_kept() {
        check([4, 0, 1, 0], [0; 4], 5, [5, 3, 3, 3]);
        check([4, 0, 1, 0], [0; 4], 1, [1, 1, 1, 1]);
    }

    #[test]
    fn a_request_takes_no_more_than_its_class_may_ever_have() {
        assert_eq!(Reserve::new([0; 4]).most(3, 3), [3; 4]);
        assert_eq!(Reserve::new([1, 0, 1, 0]).most(3, 3), [2, 1, 2, 1]);
        assert_eq!(Reserve::new([2, 0, 0, 0]).most(1, 10), [1; 4]);
    }

    proptest! {
        #[test]
        fn each_can_take_its_own_whatever_the_others_take(
            kept in prop::array::uniform4(0_u32..3),
            order in prop::collection::vec(0_usize..4, 0..40),
        ) {
            let mut reserve = Reserve::new(kept);
            let mut held: PerClass = [0; 4];
            for class in order {
                let free = 12 - held.iter().sum::<u32>();
                let room = reserve.room(free, 12, 12);
                prop_assert!(room.iter().all(|room| *room <= free));
                for (class, held) in held.iter().enumerate() {
                    prop_assert!(room[class] >= kept[class].saturating_sub(*held), "{class} of {held:?}");
                }
                if room[class] > 0 {
                    reserve.take(Class::ALL[class], 1);
                    held[class] += 1;
                }
            }
            for (class, held) in Class::ALL.into_iter().zip(held) {
                reserve.give(class, held);
            }
            prop_assert_eq!(reserve.held, [0; 4]);
        }
    }
}

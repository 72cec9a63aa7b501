//! Which endpoint takes the next request.
//!
//! Pure: the caller says who is available and how busy, and brings the turn or the drawn number. Both policies look
//! only at the endpoints that are available, so that the neighbour of an ejected one does not take its share as well.

/// How the endpoints of an upstream share its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Of two drawn at random, the one with fewer requests in flight: nearly as good as the least loaded of all,
    /// without sending everyone to the same one (Mitzenmacher, "The Power of Two Choices", 2001).
    LeastOfTwo,
}

/// What an endpoint that may be chosen has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Requests in flight, zombies included.
    pub in_flight: u32,
}

/// The index of the endpoint for the next request, or `None` if none is available.
///
/// `load` says how busy endpoint `0..count` is, or `None` if it is not available (ejected, down, tried already). It is
/// asked more than once. `turn` is a counter that grows by one with each call for [`Balance::RoundRobin`], a number
/// drawn from all of `u64` for [`Balance::LeastOfTwo`].
pub fn choose(balance: Balance, count: usize, turn: u64, load: impl Fn(usize) -> Option<Load>) -> Option<usize> {
    if count == 1 {
        return load(0).map(|_| 0);
    }
    let available = || (0..count).filter_map(|index| load(index).map(|load| (index, load.in_flight)));
    let many = available().count() as u64;
    let nth = |n: u64| available().nth(n as usize);
    match balance {
        _ if many == 0 => None,
        Balance::RoundRobin => nth(turn % many).map(|(index, _)| index),
        Balance::LeastOfTwo if many == 1 => nth(0).map(|(index, _)| index),
        Balance::LeastOfTwo => {
            let (low, high) = (turn & u64::from(u32::MAX), turn >> 32);
            let first = low % many;
            let second = (first + 1 + high % (many - 1)) % many;
            let (first, second) = (nth(first)?, nth(second)?);
            Some(if second.1 < first.1 { second.0 } else { first.0 })
        }
    }
}

/// The same, but only among those that take part this time, as long as there are any: a cold endpoint is better than none.
pub fn choose_warm(
    balance: Balance,
    count: usize,
    turn: u64,
    load: impl Fn(usize) -> Option<Load>,
    takes_part: impl Fn(usize) -> bool,
) -> Option<usize> {
    choose(balance, count, turn, |index| load(index).filter(|_| takes_part(index)))
        .or_else(|| choose(balance, count, turn, load))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICIES: [Balance; 2] = [Balance::RoundRobin, Balance::LeastOfTwo];

    /// Endpoints by their requests in flight, `None` if not available.
    fn pick(balance: Balance, turn: u64, loads: &[Option<u32>]) -> Option<usize> {
        choose(balance, loads.len(), turn, |index| loads[index].map(|in_flight| Load { in_flight }))
    }

    #[test]
    fn round_robin_gives_each_available_endpoint_the_same_share() {
        let table: [(&[Option<u32>], &[usize]); 5] = [
            (&[Some(0)], &[0, 0, 0, 0]),
            (&[Some(9), Some(0), Some(0)], &[0, 1, 2, 0]),
            (&[Some(0), None, Some(0)], &[0, 2, 0, 2]),
            (&[None, None, Some(0)], &[2, 2, 2, 2]),
            (&[None, Some(0), None, Some(0), Some(0)], &[1, 3, 4, 1]),
        ];
        for (loads, expected) in table {
            let chosen: Vec<_> = (0..4).filter_map(|turn| pick(Balance::RoundRobin, turn, loads)).collect();
            assert_eq!(chosen, expected, "{loads:?}");
        }
    }

    #[test]
    fn of_two_the_less_busy_is_chosen_whichever_is_drawn_first() {
        for turn in [0, 1, 1 << 32, (1 << 32) + 1, u64::MAX] {
            assert_eq!(pick(Balance::LeastOfTwo, turn, &[Some(3), Some(2)]), Some(1), "{turn}");
            assert_eq!(pick(Balance::LeastOfTwo, turn, &[Some(2), None, Some(3)]), Some(0), "{turn}");
        }
    }

    #[test]
    fn equally_busy_endpoints_are_drawn() {
        let chosen: Vec<_> = (0..4).filter_map(|turn| pick(Balance::LeastOfTwo, turn, &[Some(1), Some(1)])).collect();
        assert_eq!(chosen, [0, 1, 0, 1]);
    }

    #[test]
    fn who_does_not_take_part_is_chosen_only_where_nobody_else_may_be() {
        let loads = [Some(0), Some(9), None];
        let pick = |balance, turn, cold: &[usize]| {
            let load = |index: usize| loads[index].map(|in_flight| Load { in_flight });
            choose_warm(balance, loads.len(), turn, load, |index| !cold.contains(&index))
        };
        for balance in POLICIES {
            for turn in [0, 1, 1 << 32, u64::MAX] {
                assert_eq!(pick(balance, turn, &[0]), Some(1));
                assert_eq!(pick(balance, turn, &[1]), Some(0));
                assert!(pick(balance, turn, &[0, 1]).is_some());
            }
        }
    }

    #[test]
    fn where_none_is_available_none_is_chosen() {
        for balance in POLICIES {
            for loads in [&[][..], &[None], &[None, None, None]] {
                assert_eq!(pick(balance, 7, loads), None);
            }
        }
    }

    proptest! {
        #[test]
        fn the_chosen_one_is_available_and_never_the_only_busiest(
            loads in prop::collection::vec(prop::option::of(0_u32..5), 0..8),
            turn in any::<u64>(),
        ) {
            for balance in POLICIES {
                let chosen = pick(balance, turn, &loads);
                prop_assert_eq!(chosen.is_some(), loads.iter().any(Option::is_some));
                let Some(load) = chosen.map(|index| loads[index]) else { continue };
                prop_assert!(load.is_some());
                let others = loads.iter().flatten().count() > 1;
                if balance == Balance::LeastOfTwo && others {
                    let busier = loads.iter().flatten().filter(|&&other| Some(other) >= load).count();
                    prop_assert!(busier > 1, "one at least as busy was passed over");
                }
            }
        }
    }
}

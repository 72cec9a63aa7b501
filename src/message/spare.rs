//! Maps of fields that have served, kept empty for the next message: a new one takes as long as reading a few fields does.

use std::cell::RefCell;

use http::HeaderMap;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for some fields, if not for all of a message's.
pub fn take() -> HeaderMap {
    let kept = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    kept.unwrap_or_else(|| HeaderMap::with_capacity(USUAL))
}

/// Keeps a map that is not needed any more, unless there are enough, or it is too large to be kept.
pub fn give_back(mut map: HeaderMap) {
    if (USUAL..=LARGEST).contains(&map.capacity()) {
        map.clear();
        // Where the thread ends, nobody needs it.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MOST {
                spare.push(map);
            }
        });
    }
}

/// Fields that a map has room for from the beginning: what HTTP clients and servers mostly send.
const USUAL: usize = 12;
/// Fields, beyond which a map takes more memory than it saves time.
const LARGEST: usize = 48;
/// Maps of one thread: a message that is read, its answer, and those between.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn what_comes_back_is_empty_and_not_too_large() {
        let fields = |count: usize| {
            let names = (0..count).map(|number| format!("x-{number}").parse().unwrap());
            names.map(|name: header::HeaderName| (name, "secret".parse().unwrap())).collect::<HeaderMap>()
        };
        for map in [fields(3), fields(USUAL), fields(LARGEST), fields(3 * LARGEST), HeaderMap::new()] {
            give_back(map);
        }
        for _ in 0..=MOST {
            let map = take();
            assert!(map.is_empty() && (USUAL..=LARGEST).contains(&map.capacity()), "{map:?}");
            assert!(map.iter().next().is_none() && !map.contains_key("x-0"));
        }
        [(); MOST + 1].map(|()| take()).into_iter().for_each(give_back);
        SPARE.with_borrow(|spare| assert_eq!(spare.len(), MOST));
    }
}

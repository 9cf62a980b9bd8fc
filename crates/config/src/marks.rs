//! The watermarks of several layers: a mark that a layer sets pulls the others along.
//!
//! A layer often sets one mark alone, such as `memory-high: 80%`. Marks that the same layer leaves open keep their
//! values while low < high < critical holds. One that does not fit keeps its distance to the mark that moved, as far
//! as the order allows. Marks that one layer sets are never moved by it: if they contradict each other, that is a
//! problem.

/// The paths of the marks, in ascending order.
pub(super) const KEYS: [&str; 3] = ["watermarks.low", "watermarks.high", "watermarks.critical"];
/// The largest critical mark.
const TOP: u8 = 99;

/// The marks after a layer that sets some of them.
pub(super) fn follow([low, high, critical]: [u8; 3], set: [Option<u8>; 3]) -> [u8; 3] {
    let [low_set, high_set, critical_set] = set;
    if set == [None; 3] {
        return [low, high, critical];
    }
    let new_high = high_set.unwrap_or_else(|| {
        let least = low_set.map_or(1, |low| low.saturating_add(1));
        let most = critical_set.map_or(TOP - 1, |critical| critical.saturating_sub(1));
        let kept = match (low_set, critical_set) {
            (_, Some(mark)) if mark <= high => mark.saturating_sub(critical.saturating_sub(high)),
            (Some(mark), _) if mark >= high => mark.saturating_add(high.saturating_sub(low)),
            _ => high,
        };
        // Without room between the two, the mark stays, and the contradiction is reported.
        if least <= most { kept.clamp(least, most) } else { high }
    });
    let new_low = low_set.unwrap_or_else(|| match low < new_high {
        true => low,
        false => new_high.saturating_sub(high.saturating_sub(low).max(1)),
    });
    let new_critical = critical_set.unwrap_or_else(|| match critical > new_high {
        true => critical,
        false => new_high.saturating_add(critical.saturating_sub(high).max(1)).min(TOP),
    });
    [new_low, new_high, new_critical]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: [u8; 3] = [88, 94, 98];

    #[test]
    fn a_lone_mark_pulls_the_others_along() {
        let cases = [
            ([None, Some(80), None], [74, 80, 98]),
            ([None, Some(91), None], [88, 91, 98]),
            ([None, Some(98), None], [88, 98, 99]),
            ([None, None, Some(85)], [75, 81, 85]),
            ([None, None, Some(2)], [0, 1, 2]),
            ([Some(50), None, None], [50, 94, 98]),
            ([Some(95), None, None], [95, 98, 99]),
            ([Some(97), None, None], [97, 98, 99]),
            ([Some(50), None, Some(60)], [50, 56, 60]),
            ([Some(50), None, Some(52)], [50, 51, 52]),
            ([None, Some(60), Some(70)], [54, 60, 70]),
            ([None, None, None], DEFAULTS),
        ];
        assert_eq!(cases.map(|(set, _)| follow(DEFAULTS, set)), cases.map(|(_, marks)| marks));
    }

    #[test]
    fn every_lone_mark_within_its_bounds_gives_an_order() {
        for mark in 0..=TOP {
            for (at, least, most) in [(0, 0, TOP - 2), (1, 1, TOP - 1), (2, 2, TOP)] {
                let mut set = [None; 3];
                set[at] = Some(mark);
                let [low, high, critical] = follow(DEFAULTS, set);
                let is_order = low < high && high < critical && critical <= TOP;
                assert_eq!(is_order, (least..=most).contains(&mark), "{set:?}: {low} {high} {critical}");
            }
        }
    }

    #[test]
    fn marks_of_one_layer_are_not_moved() {
        assert_eq!(follow(DEFAULTS, [Some(95), Some(90), None]), [95, 90, 98]);
        assert_eq!(follow(DEFAULTS, [Some(50), None, Some(51)])[1], 94, "no mark fits between them");
        assert_eq!(follow([95, 90, 98], [None; 3]), [95, 90, 98], "a contradiction stays one");
    }
}

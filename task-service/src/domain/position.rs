//! How far a reader of changes has come: a snapshot of transactions, as PostgreSQL's `pg_snapshot`.
//!
//! A change carries the number of its transaction. Numbers are given out when a transaction begins to write, and it becomes visible
//! when it commits, which is another order. So "everything up to number n" would leave out whoever commits late; a snapshot names the
//! transactions that were still under way, and they are read when they have ended. Nobody who writes waits for anybody.

/// Transactions that are seen: all below `xmax`, except those `under_way`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The first number that had not been given out.
    xmax: i64,
    /// Numbers below that whose transactions had not ended, ascending.
    under_way: Vec<i64>,
}

impl Position {
    /// Reads the text of a `pg_snapshot`: `xmin:xmax:xip,xip…`.
    pub fn from_snapshot(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (_, xmax, list) = (parts.next()?, parts.next()?, parts.next()?);
        let under_way = list.split(',').filter(|number| !number.is_empty()).map(str::parse::<i64>);
        let mut under_way = under_way.collect::<Result<Vec<_>, _>>().ok()?;
        under_way.sort_unstable();
        Some(Self { xmax: xmax.parse().ok()?, under_way })
    }

    /// The first number that had not been given out.
    pub fn xmax(&self) -> i64 {
        self.xmax
    }

    /// Numbers below [`Self::xmax`] that are not seen.
    pub fn under_way(&self) -> &[i64] {
        &self.under_way
    }

    /// Whether the changes of a transaction are seen.
    pub fn sees(&self, xact: i64) -> bool {
        xact < self.xmax && self.under_way.binary_search(&xact).is_err()
    }

    /// The position of a reader on its way from here to `to`, who has been given in ascending order what `to` sees and this does not,
    /// up to and with the transaction `xact`.
    pub fn advanced(&self, to: &Self, xact: i64) -> Self {
        let unread = |number: &i64| *number > xact || !to.sees(*number);
        let mut under_way: Vec<i64> = self.under_way.iter().copied().filter(unread).collect();
        let xmax = if xact < self.xmax {
            self.xmax
        } else {
            let newer = |number: &i64| *number >= self.xmax && *number <= xact;
            under_way.extend(to.under_way.iter().copied().filter(newer));
            xact + 1
        };
        Self { xmax, under_way }
    }

    /// As bytes: `xmax`, then those under way, 8 bytes each.
    pub fn to_bytes(&self) -> Vec<u8> {
        std::iter::once(&self.xmax).chain(&self.under_way).flat_map(|number| number.to_be_bytes()).collect()
    }

    /// What [`Self::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|number| i64::from_be_bytes(*number));
        let xmax = numbers.next()?;
        let under_way: Vec<i64> = numbers.collect();
        let is_sound = rest.is_empty() && under_way.is_sorted() && under_way.iter().all(|number| *number < xmax);
        is_sound.then_some(Self { xmax, under_way })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Position {
        Position::from_snapshot(text).unwrap()
    }

    #[test]
    fn a_snapshot_sees_what_has_ended() {
        let at = position("10:20:10,14,17");
        let seen: Vec<_> = (8..23).filter(|number| at.sees(*number)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 18, 19]);
        assert_eq!(position("5:5:").under_way(), Vec::<i64>::new());
        for bad in ["", "1:2", "a:b:", "1:2:x"] {
            assert_eq!(Position::from_snapshot(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_are_read_back() {
        for text in ["10:20:10,14,17", "5:5:", "1099511627776:1099511627900:1099511627776,1099511627880"] {
            let at = position(text);
            assert_eq!(Position::from_bytes(&at.to_bytes()), Some(at));
        }
        let at = position("10:20:10,14,17").to_bytes();
        assert_eq!(Position::from_bytes(&at[..7]), None);
        for (number, why) in [(20, "not below xmax"), (3, "not ascending")] {
            assert_eq!(Position::from_bytes(&[&at[..], &i64::to_be_bytes(number)].concat()), None, "{why}");
        }
    }

    /// Histories of transactions that begin, commit and are read at random: whoever stops after any transaction and goes on from
    /// there is given each one once and none twice.
    #[test]
    fn nothing_is_left_out_and_nothing_comes_twice() {
        for seed in 0..2_000_u64 {
            let mut random = seed;
            let mut below = |most: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % most
            };
            let (mut next, mut open, mut given) = (100_i64, Vec::new(), Vec::new());
            let mut at = position("100:100:");
            for step in 0..60 {
                match below(3) {
                    0 => {
                        open.push(next);
                        next += 1;
                    }
                    1 if !open.is_empty() => {
                        open.remove(usize::try_from(below(open.len() as u64)).unwrap());
                    }
                    _ => {
                        let list: Vec<_> = open.iter().map(i64::to_string).collect();
                        let to = position(&format!("0:{next}:{}", list.join(",")));
                        let new: Vec<i64> = (100..next).filter(|xact| to.sees(*xact) && !at.sees(*xact)).collect();
                        // The reader is cut off somewhere, or gets to the end.
                        let read = usize::try_from(below(new.len() as u64 + 2)).unwrap();
                        for xact in new.iter().take(read) {
                            given.push(*xact);
                            at = at.advanced(&to, *xact);
                            assert!(at.sees(*xact), "seed {seed}, step {step}");
                        }
                        let rest: Vec<i64> = (100..next).filter(|xact| to.sees(*xact) && !at.sees(*xact)).collect();
                        assert_eq!(rest, new[read.min(new.len())..], "seed {seed}, step {step}");
                        if read >= new.len() {
                            at = to;
                        }
                    }
                }
            }
            let mut once = given.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), given.len(), "seed {seed}: something came twice");
        }
    }
}

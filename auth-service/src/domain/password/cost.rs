//! What one Argon2id hash costs, and between which bounds that may lie.

use argon2::Params;

/// Cost of a hash that is made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes; computed one after the other by one thread.
    pub parallelism: u32,
}

/// A cost outside the bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{parameter} is {found}: expected {least} to {most}")]
pub struct CostError {
    /// `m`, `t` or `p`, as a PHC string names them; of a foreign hash what its own function names it.
    pub parameter: &'static str,
    found: u64,
    least: u64,
    most: u64,
}

/// The least and the most that a hash may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashBounds {
    /// Nothing below is made or taken in.
    pub floor: HashCost,
    /// Nothing above is computed: it is refused before memory is allocated.
    pub ceiling: HashCost,
}

impl CostError {
    /// Checks one parameter.
    pub(super) fn check(
        parameter: &'static str,
        found: impl Into<u64>,
        least: impl Into<u64>,
        most: impl Into<u64>,
    ) -> Result<(), Self> {
        let (found, least, most) = (found.into(), least.into(), most.into());
        match (least..=most).contains(&found) {
            true => Ok(()),
            false => Err(Self { parameter, found, least, most }),
        }
    }
}

impl HashCost {
    /// OWASP's minimum for Argon2id (Password Storage Cheat Sheet).
    pub const OWASP_MINIMUM: Self = Self { memory_kib: 19_456, iterations: 2, parallelism: 1 };

    /// As the argon2 crate wants it.
    ///
    /// # Errors
    /// The three do not fit together: at least 8 KiB for each lane.
    pub fn params(self) -> Result<Params, argon2::Error> {
        Params::new(self.memory_kib, self.iterations, self.parallelism, Some(Params::DEFAULT_OUTPUT_LEN))
    }

    /// Whether a hash of this cost should be made anew at `wanted`: upwards only, by the work an attacker has.
    pub fn is_weaker_than(self, wanted: Self) -> bool {
        let work = |cost: Self| u64::from(cost.memory_kib) * u64::from(cost.iterations);
        let lower = self.memory_kib < wanted.memory_kib || self.iterations < wanted.iterations;
        lower && work(self) < work(wanted)
    }
}

impl HashBounds {
    /// Checks a cost.
    ///
    /// # Errors
    /// Names the first parameter that is out of bounds.
    pub fn check(&self, cost: HashCost) -> Result<(), CostError> {
        CostError::check("m", cost.memory_kib, self.floor.memory_kib, self.ceiling.memory_kib)?;
        CostError::check("t", cost.iterations, self.floor.iterations, self.ceiling.iterations)?;
        CostError::check("p", cost.parallelism, self.floor.parallelism, self.ceiling.parallelism)
    }

    /// Checks the cost of a stored hash: only the ceiling counts, old weak hashes still sign in.
    ///
    /// # Errors
    /// Names the first parameter that is above the ceiling.
    pub fn check_ceiling(&self, cost: HashCost) -> Result<(), CostError> {
        let floor = HashCost { memory_kib: 0, iterations: 0, parallelism: 0 };
        Self { floor, ..*self }.check(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: HashCost = HashCost { memory_kib: 65_536, iterations: 3, parallelism: 4 };

    #[test]
    fn weaker_means_less_work() {
        let cost = |memory_kib, iterations| HashCost { memory_kib, iterations, parallelism: 1 };
        assert!(cost(65_536, 2).is_weaker_than(WANTED));
        assert!(cost(19_456, 3).is_weaker_than(WANTED));
        assert!(!cost(65_536, 3).is_weaker_than(WANTED), "lanes alone are no reason");
        assert!(!cost(131_072, 2).is_weaker_than(WANTED), "more work in another shape stays");
        assert!(!cost(131_072, 4).is_weaker_than(WANTED));
    }

    #[test]
    fn bounds_name_the_parameter() {
        let bounds = HashBounds {
            floor: HashCost::OWASP_MINIMUM,
            ceiling: HashCost { memory_kib: 1 << 18, iterations: 10, parallelism: 16 },
        };
        assert!(bounds.check(WANTED).is_ok());
        assert!(bounds.check(HashCost::OWASP_MINIMUM).is_ok());
        for (cost, parameter) in [
            (HashCost { memory_kib: 19_455, ..WANTED }, "m"),
            (HashCost { iterations: 1, ..WANTED }, "t"),
            (HashCost { parallelism: 17, ..WANTED }, "p"),
        ] {
            assert_eq!(bounds.check(cost).unwrap_err().parameter, parameter);
        }
        assert!(bounds.check_ceiling(HashCost { memory_kib: 8, iterations: 1, parallelism: 1 }).is_ok());
        assert!(bounds.check_ceiling(HashCost { memory_kib: (1 << 18) + 1, ..WANTED }).is_err());
    }
}

//! Stored password hashes: PHC strings, read without allocating what they ask for.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Params, Version};

use super::cost::{CostError, HashBounds, HashCost};
use super::foreign::{BCRYPT_KEY, ForeignHash};

/// Shortest output that counts as a password hash, in bytes (RFC 9106 recommends 32).
pub(super) const SHORTEST_OUTPUT: usize = 16;

/// Why a text is not a usable password hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhcError {
    /// A hash without its `$` signs: a shell or a compose file replaced them.
    #[error(
        "the hash has lost its \"$\" signs, as when a shell or a compose file reads \"$argon2id\" as a variable: \
         quote it with single quotes, write \"$$\" in a compose file, or pass it in a file"
    )]
    DollarsEaten,
    /// Not a PHC string.
    #[error(
        "expected a PHC string such as $argon2id$v=19$m=65536,t=3,p=4$<salt>$<hash>; make one with \"admin hash-password\""
    )]
    Malformed,
    /// None of the functions whose hashes are verified.
    #[error("expected a hash by argon2id, argon2i, bcrypt, scrypt, pbkdf2-sha256 or pbkdf2-sha512")]
    Unknown,
    /// A PHC string of another function or version.
    #[error("expected a hash by argon2id, version 19; make one with \"admin hash-password\"")]
    NotArgon2id,
    /// Asks for less or more than the configuration allows.
    #[error("the hash's cost is out of bounds: {0}")]
    OutOfBounds(#[from] CostError),
}

/// A hash that was parsed; nothing of its cost has been spent yet.
#[derive(Clone)]
pub struct StoredHash(pub(super) Function);

/// What makes it.
#[derive(Clone)]
pub(super) enum Function {
    /// Ours, and its elder kinds.
    Argon2(Argon2Hash),
    /// Of another system.
    Foreign(ForeignHash),
}

/// A hash by Argon2.
#[derive(Clone)]
pub(super) struct Argon2Hash {
    pub(super) algorithm: Algorithm,
    pub(super) version: Version,
    pub(super) params: Params,
    pub(super) salt: Vec<u8>,
    pub(super) output: Vec<u8>,
}

impl StoredHash {
    /// Reads a hash of any kind that can be verified, whatever it costs.
    ///
    /// # Errors
    /// [`PhcError::DollarsEaten`] or [`PhcError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, PhcError> {
        let function =
            Argon2Hash::read(text).map(Function::Argon2).or_else(|| ForeignHash::read(text).map(Function::Foreign));
        function.map(Self).ok_or_else(|| match dollars_eaten(text) {
            true => PhcError::DollarsEaten,
            false => PhcError::Malformed,
        })
    }

    /// [`parse`](Self::parse), and refuses what must not be stored anew: another function than Argon2id version 19, or a
    /// cost out of bounds.
    ///
    /// # Errors
    /// Any of [`PhcError`].
    pub fn parse_within(text: &str, bounds: &HashBounds) -> Result<Self, PhcError> {
        let hash = Self::parse(text)?;
        match &hash.0 {
            Function::Argon2(argon2) if argon2.is_current() => bounds.check(argon2.cost())?,
            _ => return Err(PhcError::NotArgon2id),
        }
        Ok(hash)
    }

    /// [`parse`](Self::parse), and refuses what would never be verified: a cost above the ceiling.
    ///
    /// # Errors
    /// Any of [`PhcError`] but [`PhcError::NotArgon2id`].
    pub fn parse_importable(text: &str, bounds: &HashBounds) -> Result<Self, PhcError> {
        let hash = Self::parse(text).map_err(|error| match error {
            PhcError::Malformed => PhcError::Unknown,
            other => other,
        })?;
        hash.check_ceiling(bounds)?;
        Ok(hash)
    }

    /// Whether computing it again stays under the ceiling.
    ///
    /// # Errors
    /// What is too much.
    pub fn check_ceiling(&self, bounds: &HashBounds) -> Result<(), CostError> {
        match &self.0 {
            Function::Argon2(hash) => bounds.check_ceiling(hash.cost()),
            Function::Foreign(hash) => hash.check_ceiling(bounds.ceiling),
        }
    }

    /// Whether all of the password counts: of a longer one bcrypt reads the beginning, so that it does not show the rest.
    pub fn reads_all_of(&self, password: &str) -> bool {
        !matches!(&self.0, Function::Foreign(ForeignHash::Bcrypt { .. }) if password.len() > BCRYPT_KEY)
    }

    /// Whether it should be made anew at the next sign-in.
    pub fn is_weaker_than(&self, wanted: HashCost) -> bool {
        match &self.0 {
            Function::Argon2(hash) => !hash.is_current() || hash.cost().is_weaker_than(wanted),
            // None of them costs an attacker as much memory.
            Function::Foreign(_) => true,
        }
    }
}

impl Argon2Hash {
    /// Whether it is of the kind that is made today.
    fn is_current(&self) -> bool {
        self.algorithm == Algorithm::Argon2id && self.version == Version::V0x13
    }

    /// What computing it again costs.
    fn cost(&self) -> HashCost {
        HashCost {
            memory_kib: self.params.m_cost(),
            iterations: self.params.t_cost(),
            parallelism: self.params.p_cost(),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let hash = PasswordHash::new(text).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        // Strings from before the version field mean version 16.
        let version = Version::try_from(hash.version.unwrap_or(0x10)).ok()?;
        let stated = hash.params.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>();
        let complete = ["m", "t", "p"].iter().all(|name| stated.iter().any(|stated| stated == name));
        let salt = hash.salt?.to_vec();
        let output = hash.hash.as_ref()?.as_bytes().to_vec();
        if !complete || output.len() < SHORTEST_OUTPUT {
            return None;
        }
        Some(Self { algorithm, version, params: Params::try_from(&hash).ok()?, salt, output })
    }
}

/// "argon2id=19=65536,t=3…" and the like: what is left when `$name` was replaced by nothing.
fn dollars_eaten(text: &str) -> bool {
    let remains = ["argon2", "v=19", "=19", "m=65536", ",t=", ",p="].iter().any(|part| text.contains(part));
    text.matches('$').count() < 5 && remains
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "$argon2id$v=19$m=65536,t=3,p=4$unU4LmttirdJ189xB/EiaQ$eCrCpkR8Qg65HJzzNMI4IF6l69BRGjclZU9br0T/cpo";
    const BOUNDS: HashBounds = HashBounds {
        floor: HashCost::OWASP_MINIMUM,
        ceiling: HashCost { memory_kib: 262_144, iterations: 10, parallelism: 16 },
    };

    fn argon2(hash: &StoredHash) -> &Argon2Hash {
        match &hash.0 {
            Function::Argon2(hash) => hash,
            Function::Foreign(_) => unreachable!("a hash by Argon2"),
        }
    }

    fn refusal(text: &str) -> PhcError {
        StoredHash::parse_within(text, &BOUNDS).err().unwrap()
    }

    #[test]
    fn a_legacy_hash_is_taken_as_it_is() {
        let hash = StoredHash::parse_within(GOOD, &BOUNDS).unwrap();
        assert_eq!(argon2(&hash).cost(), HashCost { memory_kib: 65_536, iterations: 3, parallelism: 4 });
        assert!(!hash.is_weaker_than(argon2(&hash).cost()));
    }

    #[test]
    fn eaten_dollars_are_recognised() {
        // What sh, compose and a half-quoted copy leave of it.
        for text in [
            GOOD.replace("$argon2id", "")
                .replace("$v", "")
                .replace("$m", "")
                .replace("$unU4LmttirdJ189xB", "")
                .replace("$eCrCpkR8Qg65HJzzNMI4IF6l69BRGjclZU9br0T", ""),
            GOOD.replace('$', ""),
            GOOD[1..].to_owned(),
        ] {
            assert_eq!(refusal(&text), PhcError::DollarsEaten, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        assert_eq!(refusal(""), PhcError::Malformed);
        assert_eq!(refusal("secret"), PhcError::Malformed);
        assert_eq!(refusal("$2b$12$C6UzMDM.H6dfI/f/IKcEeOVNlGXSqbwP.4Iq8HbqYhZB0kIfl3bNi"), PhcError::NotArgon2id);
        assert_eq!(refusal(&GOOD.replace("$eCrCpkR8Qg65HJzzNMI4IF6l69BRGjclZU9br0T/cpo", "")), PhcError::DollarsEaten);
        assert_eq!(refusal(&GOOD.replace("argon2id", "argon2i")), PhcError::NotArgon2id);
        assert_eq!(refusal(&GOOD.replace("v=19", "v=16")), PhcError::NotArgon2id);
        assert!(matches!(refusal(&GOOD.replace("m=65536", "m=4294967295")), PhcError::OutOfBounds(_)));
        assert!(matches!(refusal(&GOOD.replace("m=65536", "m=1024")), PhcError::OutOfBounds(_)));
        assert!(matches!(refusal(&GOOD.replace("t=3", "t=1")), PhcError::OutOfBounds(_)));
    }
}

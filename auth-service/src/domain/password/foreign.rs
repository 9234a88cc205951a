//! Password hashes of other systems: bcrypt, scrypt and PBKDF2. They are verified and never made; the first sign-in replaces
//! them by Argon2id.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512};
use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::general_purpose::{NO_PAD, STANDARD_NO_PAD};
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use scrypt::Params;
use zeroize::Zeroizing;

use super::cost::{CostError, HashCost};

/// The costs that bcrypt has at all.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// Most that is computed: 2^14 rounds take about a second. Systems in use have 10 to 14.
const BCRYPT_MOST: u32 = 14;
/// What bcrypt reads of a password, in bytes.
pub(super) const BCRYPT_KEY: usize = 72;
/// Most iterations of PBKDF2, each block of output counted: some seconds again. OWASP asks for 600,000.
const PBKDF2_MOST: u32 = 5_000_000;
/// Lengths of a salt and of an output in bytes: what systems in use have, and room above. An output is no shorter than one of
/// Argon2 may be.
const SALT_LENGTHS: std::ops::RangeInclusive<usize> = 1..=128;
const OUTPUT_LENGTHS: std::ops::RangeInclusive<usize> = super::phc::SHORTEST_OUTPUT..=64;
/// No hash of these kinds is longer, so a longer text is not worth reading.
const LONGEST_TEXT: usize = 512;

/// bcrypt's base64. The last characters of salt and output have bits to spare, which some programs fill and all ignore.
const BCRYPT_BASE64: GeneralPurpose =
    GeneralPurpose::new(&BCRYPT, GeneralPurposeConfig::with_decode_allow_trailing_bits(NO_PAD, true));

/// A hash of another system, parsed; nothing of its cost has been spent yet.
#[derive(Clone)]
pub(super) enum ForeignHash {
    /// `$2a$`, `$2b$` and `$2y$`: one function under three names. `$2x$` is that of a known bug, and is not read.
    Bcrypt {
        /// Binary logarithm of the rounds.
        cost: u32,
        salt: [u8; 16],
        output: [u8; 23],
    },
    /// `$scrypt$ln=…,r=…,p=…$<salt>$<hash>` (RFC 7914).
    Scrypt { params: Params, salt: Vec<u8>, output: Vec<u8> },
    /// `$pbkdf2-sha256$i=…$<salt>$<hash>`, with `,l=<length>` or as passlib writes it, `$pbkdf2-sha256$<iterations>$…`.
    Pbkdf2 { digest: Digest, iterations: NonZeroU32, salt: Vec<u8>, output: Vec<u8> },
}

/// Which HMAC is iterated.
#[derive(Clone, Copy)]
pub(super) enum Digest {
    Sha256,
    Sha512,
}

impl ForeignHash {
    /// Reads a hash of any of these kinds, whatever it costs.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST_TEXT {
            return None;
        }
        let mut parts = text.strip_prefix('$')?.split('$');
        let mut next = || parts.next();
        let read = match next()? {
            "2a" | "2b" | "2y" => Self::read_bcrypt(next()?, next()?),
            "scrypt" => Self::read_scrypt(next()?, next()?, next()?),
            "pbkdf2-sha256" => Self::read_pbkdf2(Digest::Sha256, next()?, next()?, next()?),
            "pbkdf2-sha512" => Self::read_pbkdf2(Digest::Sha512, next()?, next()?, next()?),
            _ => None,
        };
        read.filter(|_| next().is_none())
    }

    fn read_bcrypt(cost: &str, salt_and_output: &str) -> Option<Self> {
        let digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
        let cost = cost.parse().ok().filter(|cost| digits && BCRYPT_COSTS.contains(cost))?;
        let (salt, output) = salt_and_output.split_at_checked(22)?;
        let salt = BCRYPT_BASE64.decode(salt).ok()?.try_into().ok()?;
        let output = BCRYPT_BASE64.decode(output).ok()?.try_into().ok()?;
        Some(Self::Bcrypt { cost, salt, output })
    }

    fn read_scrypt(params: &str, salt: &str, output: &str) -> Option<Self> {
        let [log_n, r, p] = numbers(params, ["ln", "r", "p"])?;
        // Bounds of RFC 7914: N is more than 1, and r times p is less than 2^30.
        let log_n = u8::try_from(log_n).ok().filter(|log_n| *log_n > 0)?;
        r.checked_mul(p).filter(|product| *product < 1 << 30)?;
        let params = Params::new(log_n, r, p).ok()?;
        Some(Self::Scrypt { params, salt: salt_of(salt)?, output: output_of(output)? })
    }

    fn read_pbkdf2(digest: Digest, params: &str, salt: &str, output: &str) -> Option<Self> {
        // passlib writes "." for "+"; nobody else has a "." there.
        let (salt, output) = (salt_of(&salt.replace('.', "+"))?, output_of(&output.replace('.', "+"))?);
        let (iterations, length) = match (numbers(params, ["i", "l"]), numbers(params, ["i"]), number(params)) {
            (Some([iterations, length]), ..) => (iterations, usize::try_from(length).ok()?),
            (_, Some([iterations]), _) | (_, _, Some(iterations)) => (iterations, output.len()),
            _ => return None,
        };
        let iterations = NonZeroU32::new(iterations).filter(|_| length == output.len())?;
        Some(Self::Pbkdf2 { digest, iterations, salt, output })
    }

    /// Whether it stays under the ceiling of its kind. Only what scrypt asks for can be held against the ceiling of Argon2.
    pub(super) fn check_ceiling(&self, ceiling: HashCost) -> Result<(), CostError> {
        match self {
            Self::Bcrypt { cost, .. } => CostError::check("cost", *cost, *BCRYPT_COSTS.start(), BCRYPT_MOST),
            Self::Scrypt { params, .. } => {
                // N blocks, and one for each p, of 128 r bytes.
                let blocks = u128::from(params.n()) + u128::from(params.p());
                let kib = (blocks * 128 * u128::from(params.r())).div_ceil(1024);
                let kib = u64::try_from(kib).unwrap_or(u64::MAX);
                CostError::check("KiB of memory", kib, 1_u32, ceiling.memory_kib)?;
                // Each p goes through all of the memory, one after the other. OWASP's choices take 128 to 160 MiB in all.
                let passes = kib.saturating_mul(u64::from(params.p()));
                CostError::check("p times memory", passes, 1_u32, u64::from(ceiling.memory_kib) * 2)?;
                CostError::check("p", params.p(), 1_u32, ceiling.iterations)
            }
            Self::Pbkdf2 { digest, iterations, output, .. } => {
                let blocks = output.len().div_ceil(digest.output_length());
                let rounds = u64::from(iterations.get()).saturating_mul(u64::try_from(blocks).unwrap_or(u64::MAX));
                CostError::check("iterations times blocks", rounds, 1_u32, PBKDF2_MOST)
            }
        }
    }

    /// Whether the password is that of the hash; `None` when the function fails. Its cost must have been checked.
    pub(super) fn verify(&self, password: &[u8]) -> Option<bool> {
        match self {
            Self::Bcrypt { cost, salt, output } => {
                let computed = Zeroizing::new(bcrypt::bcrypt(*cost, *salt, &bcrypt_key(password)));
                Some(verify_slices_are_equal(computed.get(..output.len())?, output).is_ok())
            }
            Self::Scrypt { params, salt, output } => {
                let mut computed = Zeroizing::new(vec![0; output.len()]);
                scrypt::scrypt(password, salt, params, &mut computed).ok()?;
                Some(verify_slices_are_equal(&computed, output).is_ok())
            }
            Self::Pbkdf2 { digest, iterations, salt, output } => {
                // Compares in constant time and wipes what it computed.
                Some(pbkdf2::verify(digest.algorithm(), *iterations, salt, password, output).is_ok())
            }
        }
    }
}

impl Digest {
    fn algorithm(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => PBKDF2_HMAC_SHA256,
            Self::Sha512 => PBKDF2_HMAC_SHA512,
        }
    }

    /// In bytes.
    fn output_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// What bcrypt makes its key of: the password and a NUL, cut at 72 bytes, as the systems did that made the hash. A NUL within
/// the password counts as any byte, as in Go, Java and Python; programs in C stopped there, and such a password does not fit.
fn bcrypt_key(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(BCRYPT_KEY));
    key.extend(password.iter().chain(&[0]).take(BCRYPT_KEY));
    key
}

/// The values of these parameters, each once and in this order, as PHC strings have them.
fn numbers<const N: usize>(text: &str, names: [&str; N]) -> Option<[u32; N]> {
    let mut values = [0; N];
    let mut parts = text.split(',');
    for (value, name) in values.iter_mut().zip(names) {
        *value = number(parts.next()?.strip_prefix(name)?.strip_prefix('=')?)?;
    }
    parts.next().is_none().then_some(values)
}

/// A decimal number without a sign and without zeros before it.
fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn salt_of(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok().filter(|salt| SALT_LENGTHS.contains(&salt.len()))
}

fn output_of(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok().filter(|output| OUTPUT_LENGTHS.contains(&output.len()))
}

#[cfg(test)]
mod tests;

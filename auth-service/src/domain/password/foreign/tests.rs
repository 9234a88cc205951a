//! Hashes that other programs made.

use super::*;

const PASSWORD: &str = "correct zebra battery staple";
const CEILING: HashCost = HashCost { memory_kib: 262_144, iterations: 16, parallelism: 16 };

/// Of the password, with their makers: Python's bcrypt and hashlib, and passlib.
const MADE_ELSEWHERE: [&str; 6] = [
    // bcrypt.hashpw(password, bcrypt.gensalt(4)), and gensalt(4, b"2a")
    "$2b$04$8S5Hx81jyuHa4dovy2ouI.L/gUq80zEf.har/TaZR8HWVozG6woJG",
    "$2a$04$nyAfJbKvE9vEzfi1IUkDCeIJjotTLdRVvnrfkzWo.uO4fr5XUsbeO",
    // hashlib.scrypt(password, salt=salt, n=1024, r=8, p=1, dklen=32); passlib's is the same
    "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$zG7hWaHugPLXAf8eY73hnN3mgqK7jn5XqDpjIf7O9KQ",
    // hashlib.pbkdf2_hmac("sha256", password, salt, 1000, 32)
    "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$UImicoht/tkZm+V9EaJi1M624bOopW6IU8LixpTZ1u8",
    // hashlib.pbkdf2_hmac("sha512", password, salt, 1000, 64)
    "$pbkdf2-sha512$i=1000,l=64$MDEyMzQ1Njc4OWFiY2RlZg$tKrsy+rVmzy8Cf3q533s6YM40vNCZnsZbQWOyRckY7SzOMrQi+IZe+1bt8nvlgnSMT/zWi1YMJCsO8e5GnSArw",
    // passlib.hash.pbkdf2_sha256.using(rounds=1000, salt=salt).hash(password)
    "$pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$UImicoht/tkZm.V9EaJi1M624bOopW6IU8LixpTZ1u8",
];

fn read(text: &str) -> ForeignHash {
    ForeignHash::read(text).unwrap_or_else(|| unreachable!("{text}"))
}

#[test]
fn hashes_of_other_programs_fit_their_password_and_no_other() {
    for text in MADE_ELSEWHERE {
        let hash = read(text);
        hash.check_ceiling(CEILING).unwrap();
        assert_eq!(hash.verify(PASSWORD.as_bytes()), Some(true), "{text}");
        for wrong in ["", "correct zebra battery stapl", "Correct zebra battery staple"] {
            assert_eq!(hash.verify(wrong.as_bytes()), Some(false), "{text} {wrong}");
        }
    }
    // PHP's name for the same function.
    assert_eq!(read(&MADE_ELSEWHERE[0].replace("$2b$", "$2y$")).verify(PASSWORD.as_bytes()), Some(true));
}

#[test]
fn bcrypt_reads_72_bytes_as_the_systems_did_that_made_it() {
    // bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))
    let hash = read("$2b$04$p7La44smpk1NsFWHYtBBa.kSiqYev/RBchN7QKvkZoDAClkzXJMJO");
    assert_eq!(hash.verify("x".repeat(72).as_bytes()), Some(true));
    assert_eq!(hash.verify("x".repeat(200).as_bytes()), Some(true));
    assert_eq!(hash.verify("x".repeat(71).as_bytes()), Some(false));
}

#[test]
fn what_costs_too_much_is_not_computed() {
    let salted = "$MDEyMzQ1Njc4OWFiY2RlZg$zG7hWaHugPLXAf8eY73hnN3mgqK7jn5XqDpjIf7O9KQ";
    let dear = [
        MADE_ELSEWHERE[0].replace("$04$", "$15$"),
        format!("$scrypt$ln=17,r=15,p=3{salted}"),
        format!("$scrypt$ln=20,r=8,p=1{salted}"),
        format!("$scrypt$ln=10,r=8,p=17{salted}"),
        format!("$scrypt$ln=40,r=8,p=1{salted}"),
        format!("$pbkdf2-sha256$i=5000001{salted}"),
        format!("$pbkdf2-sha256$4294967295{salted}"),
    ];
    for text in dear {
        assert!(read(&text).check_ceiling(CEILING).is_err(), "{text}");
    }
    assert!(read(&format!("$scrypt$ln=17,r=8,p=1{salted}")).check_ceiling(CEILING).is_ok(), "OWASP's choice");
}

#[test]
fn anything_else_is_no_hash() {
    let salted = "$MDEyMzQ1Njc4OWFiY2RlZg$zG7hWaHugPLXAf8eY73hnN3mgqK7jn5XqDpjIf7O9KQ";
    let mut bad = vec![
        String::new(),
        "$".to_owned(),
        "$2b$".to_owned(),
        MADE_ELSEWHERE[0].replace("$2b$", "$2x$"),
        MADE_ELSEWHERE[0].replace("$04$", "$03$"),
        MADE_ELSEWHERE[0].replace("$04$", "$32$"),
        MADE_ELSEWHERE[0].replace("$04$", "$+4$"),
        MADE_ELSEWHERE[0].replace("$04$", "$4$"),
        format!("$scrypt$ln=0,r=8,p=1{salted}"),
        format!("$scrypt$ln=64,r=8,p=1{salted}"),
        format!("$scrypt$ln=10,r=4294967295,p=4294967295{salted}"),
        format!("$scrypt$r=8,ln=10,p=1{salted}"),
        format!("$scrypt$ln=10,r=8{salted}"),
        format!("$pbkdf2-sha256$i=0{salted}"),
        format!("$pbkdf2-sha256$i=-1{salted}"),
        format!("$pbkdf2-sha256$i=1000,l=31{salted}"),
        format!("$pbkdf2-sha1$i=1000{salted}"),
        format!("$pbkdf2-sha256$i=1000{salted}$more"),
        "$pbkdf2-sha256$i=1000$$UImicoht/tkZm+V9EaJi1M624bOopW6IU8LixpTZ1u8".to_owned(),
        "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$UImicoht".to_owned(),
        "x".repeat(100_000),
    ];
    // Cut anywhere it is none; nothing panics on the way, also not within a character.
    for text in MADE_ELSEWHERE {
        bad.extend((0..text.len() - 30).map(|end| text[..end].to_owned()));
        bad.extend((1..text.len()).map(|at| format!("{}é{}", &text[..at], &text[at..])));
    }
    for text in bad {
        assert!(ForeignHash::read(&text).is_none(), "{text}");
    }
}

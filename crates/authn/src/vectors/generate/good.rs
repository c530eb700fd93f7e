//! Good tokens: every form that the rules allow.

use super::{ALL, AUDIENCE, Bench, EXPIRY, NAMELESS, TENANT};
use crate::{
    Algorithm,
    algorithm::Family,
    jws::{MAX_DEPTH, MAX_TOKEN_BYTES},
    testing as t,
    vectors::VALID,
};

pub(super) fn add(bench: &mut Bench) {
    plain(bench);
    keys(bench);
    // The other algorithms go through the same reader: what follows is the same for all.
    if bench.algorithm.native_hash().is_some() {
        headers(bench);
        payloads(bench);
    }
}

fn plain(bench: &mut Bench) {
    for subject in ["client-1", "auth0|a,b;c", "0191d6b0-7c3e-7aaa-8bbb-0123456789ac"] {
        let token = bench.sign(&bench.header(""), &bench.claims(subject, ""));
        bench.good(&format!("subject {subject}"), token);
    }
    let more = r#","nbf":1,"iat":1700000000,"jti":"t-1","scope":"read write""#;
    let token = bench.sign(&bench.header(r#","typ":"at+jwt""#), &bench.claims("s", more));
    bench.good("an access token of RFC 9068", token);
}

fn keys(bench: &mut Bench) {
    let algorithm = bench.algorithm;
    let without = format!(r#"{{"alg":"{algorithm}"}}"#);
    let token = bench.sign(&without, &bench.claims("without-kid", ""));
    bench.good("no kid", token);
    if algorithm.is_symmetric() {
        return;
    }
    let token = bench.sign(&without, &bench.claims_of(NAMELESS, "s", ""));
    bench.push(NAMELESS, "no kid, the second key that fits", None, token, VALID);
    for kid in [
        "shared".to_owned(),
        format!("{} ümlaut", bench.kid()),
        format!("{}-verifies", bench.kid()),
        format!("only-{algorithm}"),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{kid}"}}"#);
        let token = bench.sign(&header, &bench.claims("by-kid", ""));
        bench.good(&format!("kid {kid}"), token);
    }
    match algorithm.family() {
        Family::Rsa => {
            let header = format!(r#"{{"alg":"{algorithm}","kid":"rsa-3072"}}"#);
            let signed = format!("{}.{}", t::encode(header), t::encode(bench.claims("3072", "")));
            let signature = t::encode(t::other_signature(algorithm, signed.as_bytes()));
            bench.good("a key of 3072 bits", format!("{signed}.{signature}"));
        }
        Family::P256 | Family::P384 => {
            let signed =
                format!("{}.{}", t::encode(bench.header("")), t::encode(bench.claims("twin", "")));
            let signature = t::signature(algorithm, signed.as_bytes());
            let (_order, twin) = t::ecdsa_twin(algorithm, &signature);
            bench.good("the other s", format!("{signed}.{}", t::encode(&signature)));
            bench.good("the one s", format!("{signed}.{}", t::encode(&twin)));
        }
        Family::Ed25519 | Family::Secret(_) => {}
    }
}

fn headers(bench: &mut Bench) {
    let foreign = t::other_key_for(bench.algorithm);
    for (name, header) in [
        ("typ JWT", bench.header(r#","typ":"JWT""#)),
        ("typ application/at+JWT", bench.header(r#","typ":"application/at+JWT""#)),
        ("another jwk is not looked at", bench.header(&format!(r#","jwk":{foreign}"#))),
        ("jku is not looked at", bench.header(r#","jku":"https://evil.example/jwks""#)),
        ("x5c is not looked at", bench.header(r#","x5c":["MII"],"x5u":"http://169.254.169.254/""#)),
        ("unknown members", bench.header(r#","cty":"x","":{"alg":"none"}"#)),
        (
            "members in another order, with blanks",
            format!("\r\n{{ \"kid\" : \"{}\" ,\t\"alg\":\"{}\" }} ", bench.kid(), bench.algorithm),
        ),
        (
            "escaped names and values",
            format!(
                r#"{{"\u0061lg":"{}","k\u0069d":"{}"}}"#,
                escaped(bench.algorithm),
                bench.kid()
            ),
        ),
    ] {
        let token = bench.sign(&header, &bench.claims("header", ""));
        bench.good(name, token);
    }
}

/// The name with its first letter escaped.
fn escaped(algorithm: Algorithm) -> String {
    let name = algorithm.as_str();
    let first = name.as_bytes().first().copied().unwrap_or_default();
    format!("\\u{first:04x}{}", name.get(1..).unwrap_or_default())
}

fn payloads(bench: &mut Bench) {
    let depth = MAX_DEPTH - 1;
    let deep = format!(r#","a":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    for (name, more) in [
        ("as deep as allowed", deep.as_str()),
        ("members of equal names apart", r#","a":{"x":1,"b":{"x":1}},"b":[{"x":1},{"x":2}]"#),
        ("every kind of value", r#","a":[null,true,-1,1.5,1e3,"",{}],"ä":"\u00e4\ud83d\ude00""#),
        ("times with fractions", r#","nbf":1.7e9,"iat":1700000000.5"#),
        ("scopes and roles as lists", r#","scp":["a","b"],"groups":["x"]"#),
        ("the marks of an ID token", r#","nonce":"n","at_hash":"h""#),
    ] {
        let named = bench.header("");
        let nameless = format!(r#"{{"typ":"JWT","alg":"{}"}}"#, bench.algorithm);
        let bare = format!(r#"{{"alg":"{}"}}"#, bench.algorithm);
        for (form, header) in [("kid", named), ("no kid, typ", nameless), ("no kid", bare)] {
            let token = bench.sign(&header, &bench.claims("claims", more));
            bench.good(&format!("{name}, {form}"), token);
        }
    }
    let claims = bench.claims("audiences", "");
    let list = format!(r#"["other","{AUDIENCE}"]"#);
    let token = bench.sign(&bench.header(""), &claims.replace(&format!("\"{AUDIENCE}\""), &list));
    bench.good("one audience of several", token);
    let token = bench.sign(&bench.header(""), &claims.replace("https://all", r"https:\/\/all"));
    bench.good("an escaped issuer", token);
    let token = bench.sign(&bench.header(""), &claims.replace(&EXPIRY.to_string(), "4.1024448e9"));
    bench.good("an expiry with an exponent", token);
    let blanks = format!(
        " {{\n\t\"iss\" : \"{ALL}\",\"aud\":[\"{AUDIENCE}\"],\r\"sub\":\"{}\", \"exp\":{EXPIRY}.0,\"tenant_id\":\"{TENANT}\" }}\n",
        bench.algorithm
    );
    let token = bench.sign(&bench.header(""), &blanks);
    bench.good("blanks everywhere", token);
    if matches!(bench.algorithm, Algorithm::Rs256 | Algorithm::Es256) {
        let sized = |filler: usize| {
            bench.sign(
                &bench.header(""),
                &bench.claims(&"s".repeat(64), &format!(r#","a":"{}""#, "a".repeat(filler))),
            )
        };
        let room = MAX_TOKEN_BYTES - sized(0).len();
        let longest = (room / 4 * 3..).map(sized).find(|token| token.len() >= MAX_TOKEN_BYTES - 1);
        let token = longest.filter(|token| token.len() <= MAX_TOKEN_BYTES).unwrap();
        bench.good("as long as allowed", token);
    }
}

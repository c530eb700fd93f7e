//! An export of the audit, line by line, under the keys that signed the seeds: whoever verifies one has it from anywhere.
//! Knows nothing of how inputs are made.

use gatehouse_audit::Verifier;
use gatehouse_authn::KeySet;

const KEYS: &[u8] = include_bytes!("../../cli/tests/data/audit-jwks.json");

/// An export verifies or is refused with the first thing that is wrong; one that verifies says as many rows and seals as
/// its signed head.
///
/// # Panics
/// Where that does not hold.
pub fn export(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(keys) = KeySet::parse(KEYS) else { return false };
    let mut verifier = Verifier::new(&keys, None);
    for line in text.lines() {
        if let Err(broken) = verifier.line(line) {
            assert!(!broken.to_string().is_empty(), "refused without a reason");
            return false;
        }
    }
    let Ok(verified) = verifier.finish() else { return false };
    // Nobody but who signs our heads says how much there is.
    let signed = verified.head.as_ref().or(verified.begin.as_ref());
    let signed = signed.map_or((0, 0), |head| (head.seq, head.total));
    assert_eq!((verified.seals, verified.rows), signed);
    true
}

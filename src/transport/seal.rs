//! A seal over a message: HMAC (RFC 2104) with SHA-256, cut to half its length. Shows that whoever made it knows the
//! key; hides nothing, and does not know what is sealed.

use sha2::{Digest, Sha256};

/// The length of a seal.
pub const SEAL_BYTES: usize = 16;

const BLOCK: usize = 64;

/// The seal of a message under a key.
pub fn seal(key: &[u8; 32], message: &[u8]) -> [u8; SEAL_BYTES] {
    let mut short = [0; SEAL_BYTES];
    short.copy_from_slice(&hmac(key, message)[..SEAL_BYTES]);
    short
}

/// Compares without stopping at the first difference, so that the time it takes tells nothing.
pub fn is_seal(key: &[u8; 32], message: &[u8], offered: &[u8]) -> bool {
    let right = seal(key, message);
    offered.len() == right.len() && right.iter().zip(offered).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |with: u8| {
        let mut block = [with; BLOCK];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_published_one() {
        // RFC 4231, test cases 1 and 2.
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(hmac(&[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_changed_message_key_or_seal_does_not_fit() {
        let (key, other) = ([1; 32], [2; 32]);
        let mut made = seal(&key, b"message");
        assert!(is_seal(&key, b"message", &made));
        assert!(!is_seal(&key, b"massage", &made) && !is_seal(&other, b"message", &made));
        assert!(!is_seal(&key, b"message", &made[1..]) && !is_seal(&key, b"message", &[]));
        made[15] ^= 1;
        assert!(!is_seal(&key, b"message", &made));
    }
}

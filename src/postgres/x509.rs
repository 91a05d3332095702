//! The two things that rustls does not tell about a certificate. Pure.
//!
//! * In: a certificate in DER.
//! * Out: its `tls-server-end-point` hash (RFC 5929), and whether it names itself as its issuer.
//! * Never: a decision about trust; a panic, whatever the bytes are.

use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;

/// Object identifiers in DER, without tag and length.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The hash of the whole certificate by the hash of its signature; SHA-256 instead of MD5 and SHA-1. `None` for a
/// signature that has no single hash (Ed25519): RFC 5929 leaves that undefined, and PostgreSQL does not bind then.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, body, _) = element(certificate)?;
    let (_, _, rest) = element(body)?;
    let (tag, algorithm, _) = element(rest)?;
    let (OID, id, parameters) = element(algorithm).filter(|_| tag == SEQUENCE)? else { return None };
    let bits = match (id.strip_prefix(RSA), id.strip_prefix(ECDSA_SHA2)) {
        // md5, sha1, sha256, sha384, sha512 WithRSAEncryption
        (Some([4 | 5 | 11]), _) | (_, Some([2])) => 256,
        (Some([12]), _) | (_, Some([3])) => 384,
        (Some([13]), _) | (_, Some([4])) => 512,
        (Some([10]), _) => pss_bits(parameters)?,
        _ if id == ECDSA_SHA1 => 256,
        _ => return None,
    };
    Some(match bits {
        384 => Sha384::digest(certificate).to_vec(),
        512 => Sha512::digest(certificate).to_vec(),
        _ => Sha256::digest(certificate).to_vec(),
    })
}

/// The hash in the parameters of RSASSA-PSS: `SEQUENCE { [0] SEQUENCE { OID … } … }`, SHA-1 where it is left out.
fn pss_bits(parameters: &[u8]) -> Option<u16> {
    let (_, fields, _) = element(parameters)?;
    let Some((0xa0, hash, _)) = element(fields) else { return Some(256) };
    let (_, algorithm, _) = element(hash)?;
    let (_, id, _) = element(algorithm)?;
    match id.strip_prefix(SHA2)? {
        [1] => Some(256),
        [2] => Some(384),
        [3] => Some(512),
        _ => None,
    }
}

/// Whether issuer and subject are the same.
pub(super) fn is_self_issued(certificate: &[u8]) -> bool {
    let names = || {
        let (_, body, _) = element(certificate)?;
        let (_, fields, _) = element(body)?;
        // An explicit version comes first, where it is not 1.
        let fields = match element(fields)? {
            (0xa0, _, rest) => rest,
            _ => fields,
        };
        let (_, _serial, rest) = element(fields)?;
        let (_, _algorithm, rest) = element(rest)?;
        let (_, issuer, rest) = element(rest)?;
        let (_, _validity, rest) = element(rest)?;
        let (_, subject, _) = element(rest)?;
        Some(issuer == subject)
    };
    names().unwrap_or(false)
}

/// Tag, content and what follows of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

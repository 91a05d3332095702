//! Two properties of a certificate that rustls does not expose. Pure.
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
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
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
pub(crate) fn is_self_issued(certificate: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::postgres::fixture::authority;

    fn made_by(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let der = made_by(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(end_point(&der), Some(Sha256::digest(&der).to_vec()));
        let der = made_by(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(end_point(&der), Some(Sha384::digest(&der).to_vec()));
        assert_eq!(end_point(&made_by(&rcgen::PKCS_ED25519)), None);
    }

    /// The skeleton of a certificate with this algorithm.
    fn signed_by(algorithm: &[u8]) -> Vec<u8> {
        let sequence = |content: &[u8]| [&[SEQUENCE, u8::try_from(content.len()).unwrap()], content].concat();
        sequence(&[sequence(b""), sequence(algorithm)].concat())
    }

    #[test]
    fn every_algorithm_of_rsa_has_its_hash() {
        let oid = |id: &[u8]| [&[OID, u8::try_from(id.len()).unwrap()], id].concat();
        let rsa = |last: u8| oid(&[RSA, &[last]].concat());
        for (last, len) in [(4, 32), (5, 32), (11, 32), (12, 48), (13, 64)] {
            assert_eq!(end_point(&signed_by(&rsa(last))).unwrap().len(), len, "{last}");
        }
        let sha512 = oid(&[SHA2, &[3]].concat());
        let len = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let hash = [&[SEQUENCE, len(&sha512)], &*sha512].concat();
        let hash = [&[0xa0, len(&hash)], &*hash].concat();
        let parameters = [&[SEQUENCE, len(&hash)], &*hash].concat();
        assert_eq!(end_point(&signed_by(&[rsa(10), parameters].concat())).unwrap().len(), 64);
        assert_eq!(end_point(&signed_by(&oid(&[1, 2, 3]))), None);
    }

    #[test]
    fn a_certificate_that_names_itself_is_told() {
        assert!(is_self_issued(&made_by(&rcgen::PKCS_ECDSA_P256_SHA256)));
        let (pem, _) = authority().sign(&crate::postgres::fixture::leaf(&["a"]));
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        assert!(!is_self_issued(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes: Vec<u8>, at in 0usize..400, byte: u8) {
            end_point(&bytes);
            is_self_issued(&bytes);
            static DER: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| made_by(&rcgen::PKCS_ECDSA_P256_SHA256));
            let mut der = DER.clone();
            let at = at % der.len();
            der[at] = byte;
            end_point(&der);
            is_self_issued(&der);
        }
    }
}

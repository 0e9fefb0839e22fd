//! The certificate by which clients know a server.

use core::fmt;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;

use crate::Error;

/// A certificate chain and the private key of its first certificate.
pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: [u8; 32],
}

impl ServerIdentity {
    /// An identity out of a chain, the server's own certificate first, and its private key.
    ///
    /// # Errors
    /// [`Error::Identity`] if the chain is empty or its first certificate can't be read.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let own = chain
            .first()
            .ok_or_else(|| Error::Identity("the certificate chain is empty".to_owned()))?;
        let spki = ParsedCertificate::try_from(own)
            .map_err(|error| Error::Identity(format!("the certificate can't be read: {error}")))?
            .subject_public_key_info();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
        let mut pin = [0; 32];
        pin.copy_from_slice(digest.as_ref());
        Ok(Self { chain, key, pin })
    }

    /// SHA-256 of the certificate's `SubjectPublicKeyInfo` (RFC 5280 section 4.1, whole DER element):
    /// what stands in base64 behind `?pin=sha256:` of the address.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    pub(crate) fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }
}

impl fmt::Debug for ServerIdentity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

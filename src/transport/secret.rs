//! The cluster secret: carried by every call, checked in constant time before anything else looks at
//! it. Does not know where it comes from.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{self, Either, Ready};
use http::{Request, Response};
use sha2::{Digest, Sha256};
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::epoch::Epochs;
use super::guests::Pass;
use super::seal::{SEAL_BYTES, is_seal, seal};

const HEADER: &str = "authorization";
const SCHEME: &str = "Bearer ";

/// Why a text cannot be a cluster secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too easily guessed.
    #[error("the cluster secret has {0} characters; use at least 16, best a join token's")]
    Short(usize),
    /// It could not be sent.
    #[error("the cluster secret has characters that cannot be sent; use printable ASCII without spaces")]
    Characters,
}

/// The secret that every node and client of a cluster knows. Never printed.
#[derive(Clone)]
pub struct Secret {
    header: MetadataValue<Ascii>,
    digest: Arc<[u8; 32]>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl Secret {
    /// Checks and wraps a secret; white space around it belongs to the file it stood in.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if text.len() < 16 {
            return Err(SecretError::Short(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Characters);
        }
        let full = format!("{SCHEME}{text}");
        let mut header: MetadataValue<Ascii> = full.parse().map_err(|_| SecretError::Characters)?;
        header.set_sensitive(true);
        Ok(Self { header, digest: Arc::new(digest(full.as_bytes())) })
    }

    /// The seal of a message that is sent without the secret.
    pub(super) fn seal(&self, message: &[u8]) -> [u8; SEAL_BYTES] {
        seal(&self.digest, message)
    }

    /// Was this message sealed by one who knows the secret?
    pub(super) fn sealed(&self, message: &[u8], offered: &[u8]) -> bool {
        is_seal(&self.digest, message, offered)
    }

    /// Compares digests without stopping at the first difference, so that the time it takes tells
    /// nothing about the secret.
    fn fits(&self, offered: &[u8]) -> bool {
        let offered = digest(offered);
        self.digest.iter().zip(offered).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// Puts the secret on each call of a client and, between members, the epoch.
#[derive(Debug, Clone)]
pub struct WithSecret {
    secret: Option<Secret>,
    epochs: Option<Epochs>,
}

impl WithSecret {
    /// Calls made through it carry `secret`.
    pub fn new(secret: Secret) -> Self {
        Self::if_known(Some(secret))
    }

    /// For a client that may not know the secret: without it, all but health is refused to its calls.
    pub fn if_known(secret: Option<Secret>) -> Self {
        Self { secret, epochs: None }
    }

    /// Calls made through it also say in which epoch they are made.
    #[must_use]
    pub fn in_epoch(self, epochs: Epochs) -> Self {
        Self { epochs: Some(epochs), ..self }
    }
}

impl Interceptor for WithSecret {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(secret) = &self.secret {
            request.metadata_mut().insert(HEADER, secret.header.clone());
        }
        if let Some(epochs) = &self.epochs {
            epochs.stamp(request.metadata_mut());
        }
        Ok(request)
    }
}

/// Lets calls in that carry the secret, and answers all others with `unauthenticated`.
#[derive(Debug, Clone)]
pub struct SecretLayer {
    secret: Secret,
    open: Arc<[String]>,
}

impl SecretLayer {
    /// Every call needs the secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, open: Arc::default() }
    }

    /// Calls whose path begins with one of these need none (`/grpc.health.v1.Health/`).
    #[must_use]
    pub fn open(mut self, prefixes: &[&str]) -> Self {
        self.open = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        self
    }
}

impl<S> Layer<S> for SecretLayer {
    type Service = SecretService<S>;

    fn layer(&self, inner: S) -> SecretService<S> {
        SecretService { inner, check: self.clone() }
    }
}

/// A service behind a [`SecretLayer`].
#[derive(Debug, Clone)]
pub struct SecretService<S> {
    inner: S,
    check: SecretLayer,
}

impl<S, B> Service<Request<B>> for SecretService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let open = self.check.open.iter().any(|prefix| path.starts_with(prefix.as_str()));
        let offered = request.headers().get(HEADER);
        let fits = offered.is_some_and(|offered| self.check.secret.fits(offered.as_bytes()));
        if fits && !request.extensions().get::<Pass>().is_none_or(Pass::prove) {
            let why = "too many connections are open here; close some, or ask another node";
            return Either::Right(future::ready(Ok(Status::resource_exhausted(why).into_http())));
        }
        if fits || open {
            return Either::Left(self.inner.call(request));
        }
        let why =
            if offered.is_some() { "the cluster secret is wrong" } else { "the cluster secret is missing" };
        let refusal = Status::new(Code::Unauthenticated, format!("denied: {why}; use this cluster's"));
        Either::Right(future::ready(Ok(refusal.into_http())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_are_short_or_cannot_be_sent_are_refused() {
        assert_eq!(Secret::new("short").err(), Some(SecretError::Short(5)));
        assert_eq!(Secret::new("0123456789 abcdef").err(), Some(SecretError::Characters));
        assert_eq!(Secret::new("0123456789äbcdef").err(), Some(SecretError::Characters));
    }

    #[test]
    fn a_secret_is_not_printed_and_fits_itself_alone() {
        let secret = Secret::new("0123456789abcdef").unwrap();
        assert!(!format!("{secret:?} {:?}", WithSecret::new(secret.clone())).contains("0123"));
        assert!(secret.fits(b"Bearer 0123456789abcdef"));
        for other in [&b"Bearer 0123456789abcdeg"[..], b"0123456789abcdef", b"", b"Bearer 0123456789abcdef "]
        {
            assert!(!secret.fits(other));
        }
    }
}

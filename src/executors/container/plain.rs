//! Plain questions over an engine's socket, for answers that are read leniently: Podman names states, and facts
//! of itself, that a client made for Docker takes for an error.

use std::path::Path;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// What was asked for is not there.
    Missing,
    /// Something else.
    Other(String),
}

impl Refused {
    pub(super) fn words(self) -> String {
        match self {
            Refused::Missing => "the engine does not know it".to_owned(),
            Refused::Other(why) => why,
        }
    }
}

/// Asks for `path`.
pub(super) async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Refused> {
    let failed = |error: &dyn std::fmt::Display| Refused::Other(format!("{}: {error}", socket.display()));
    let stream = UnixStream::connect(socket).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = hyper::Request::get(path)
        .header("host", "engine")
        .header("connection", "close")
        .body(Empty::new())
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
    if status.as_u16() == 404 {
        return Err(Refused::Missing);
    }
    if !status.is_success() {
        return Err(failed(&String::from_utf8_lossy(&bytes).trim()));
    }
    serde_json::from_slice(&bytes).map_err(|error| failed(&error))
}

/// A value as it stands in a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let mut all = String::new();
    for byte in text.as_bytes() {
        if plain(byte) {
            all.push(char::from(*byte));
        } else {
            all.push_str(&format!("%{byte:02X}"));
        }
    }
    all
}

//! Images of a registry (OCI distribution specification 1.1, which Docker's registry speaks): documents and layers by
//! digest, below a repository of the tenant's own, `<tenant>/<name>`. What arrives is bounded and digested while it does.
//! Blocks: each call waits for its answer on the thread that makes it. Knows nothing of what is kept.

use std::{fs::File, future::Future, io::Write, path::Path, sync::Arc, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    Digest, ImageRef,
    oci::{self, Layer},
};
use gatehouse_outbound::{self as outbound, Client, Guard, Origin, Trust};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::{runtime::Handle, time::timeout};

use super::Error;

/// How long a document, or word of a layer, may take from the first packet to the last byte.
const DOCUMENT: Duration = Duration::from_secs(10);
/// How long a layer may take.
const LAYER: Duration = Duration::from_secs(600);
/// How long a layer's next part may take.
const SILENCE: Duration = Duration::from_secs(10);
/// The most header fields, and the most bytes of them, that an answer may have.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 * 1024;

/// Where the registry is, and who we are there.
#[derive(Clone)]
pub struct Address {
    /// Scheme, host and port. TLS, but for loopback.
    pub origin: Origin,
    /// The operator's certificates, beside Mozilla's.
    pub trust: Trust,
    /// `Authorization`'s value: Basic.
    pub authorization: Option<Arc<str>>,
}

/// A registry.
pub struct Registry {
    address: Address,
    guard: Guard,
    client: Client,
    runtime: Handle,
}

/// One image's repository at the registry: everything is asked for below it.
pub struct Repository<'a> {
    registry: &'a Registry,
    reference: &'a ImageRef,
    path: String,
}

impl Registry {
    /// The registry at `address`; its calls are made by `runtime`, which must have other threads than those that wait.
    pub fn new(address: Address, runtime: Handle) -> Self {
        // Named by the operator: it may be on a private network, and on loopback without TLS.
        let guard = Guard::new([address.origin.clone()], Vec::new());
        let agent = concat!("gatehouse/", env!("CARGO_PKG_VERSION"));
        let client = Client::new(address.trust.clone(), agent);
        Self { address, guard, client, runtime }
    }

    /// The repository of what `tenant` calls `reference`. Both are parsed: neither can lead to another's.
    pub fn repository<'a>(&'a self, tenant: TenantId, reference: &'a ImageRef) -> Repository<'a> {
        let path = format!("/v2/{tenant}/{}", reference.name);
        Repository { registry: self, reference, path }
    }

    /// Asks for `path`, and has `take` read the answer, all within `bound`.
    fn ask<T>(
        &self,
        method: &Method,
        path: &str,
        bound: Duration,
        take: impl AsyncFnOnce(Response<Incoming>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let exchange = async {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, self.address.origin.authority())
                .header(header::ACCEPT, ACCEPT)
                .header(header::CONNECTION, "close");
            if let Some(value) = &self.address.authorization {
                request = request.header(header::AUTHORIZATION, &**value);
            }
            let request = request.body(Empty::<Bytes>::new()).map_err(away)?;
            let stream = self.client.connect(&self.guard, &self.address.origin).await;
            let stream = stream.map_err(|error: outbound::Error| away(error))?;
            let mut builder = hyper::client::conn::http1::Builder::new();
            builder.max_headers(HEADERS).max_buf_size(HEAD_BYTES);
            let shaken = builder.handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = shaken.map_err(away)?;
            let answer = async {
                let response = sender.send_request(request).await.map_err(away)?;
                take(response).await
            };
            // The connection runs here and nowhere else.
            let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                ended = &mut connection => ended.map_err(away)?,
            }
            answer.await
        };
        self.wait(async { timeout(bound, exchange).await.map_err(away)? })
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

impl Repository<'_> {
    /// The document that is kept as a manifest (or index) under `digest`: exactly those bytes.
    pub fn manifest(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.document("manifests", digest)?;
        oci::check_digest("the manifest", digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// A small blob; whoever reads it compares its digest.
    pub fn blob_document(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.document("blobs", digest)
    }

    /// Whether the registry has the blob in this repository: without its word nothing that is kept is this tenant's.
    pub fn vouches_for(&self, digest: Digest) -> Result<(), Error> {
        let path = format!("{}/blobs/{digest}", self.path);
        let heard = async |response: Response<Incoming>| self.judge(&response);
        self.registry.ask(&Method::HEAD, &path, DOCUMENT, heard)
    }

    /// Writes the layer to a new file at `aside`, if it is the one that is named.
    pub fn layer(&self, layer: &Layer, aside: &Path) -> Result<(), Error> {
        let io = |source| Error::io(format!("writing layer {}", layer.blob), source);
        let mut file = File::create_new(aside).map_err(io)?;
        let path = format!("{}/blobs/{}", self.path, layer.blob);
        let taken = async |response: Response<Incoming>| {
            self.judge(&response)?;
            let (mut body, mut hash, mut size) = (response.into_body(), Sha256::new(), 0_u64);
            while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(away)? {
                let Ok(data) = frame.map_err(away)?.into_data() else { continue };
                size += data.len() as u64;
                if size > layer.blob_bytes {
                    break;
                }
                hash.update(&data);
                file.write_all(&data).map_err(io)?;
            }
            oci::check_size("a layer", layer.blob_bytes, size)?;
            Ok(Digest::from_bytes(hash.finalize().into()))
        };
        let digest = self.registry.ask(&Method::GET, &path, LAYER, taken)?;
        oci::check_digest("a layer", layer.blob, digest)?;
        Ok(())
    }

    fn document(&self, kind: &str, digest: Digest) -> Result<Vec<u8>, Error> {
        let path = format!("{}/{kind}/{digest}", self.path);
        let taken = async |response: Response<Incoming>| {
            self.judge(&response)?;
            let (mut body, mut bytes) = (response.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(away)?.into_data() else { continue };
                bytes.extend_from_slice(&data);
                if bytes.len() as u64 > oci::MAX_DOCUMENT_BYTES {
                    // The check that follows sees that it is too long.
                    break;
                }
            }
            Ok(bytes)
        };
        self.registry.ask(&Method::GET, &path, DOCUMENT, taken)
    }

    /// Missing is for ever, since a digest is; all else may be better in a while.
    fn judge(&self, response: &Response<Incoming>) -> Result<(), Error> {
        match response.status() {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => Err(Error::Missing(self.reference.clone())),
            other => Err(Error::Away(format!("it answers {other}"))),
        }
    }
}

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/octet-stream";

fn away(error: impl std::error::Error) -> Error {
    // The address is ours and is in our own log alone: who reads the end of an execution learns that much.
    tracing::warn!(error = %gatehouse_service::exit::chain(&error), "the registry of images");
    Error::Away("it does not answer as it should".to_owned())
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("origin", &self.address.origin).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Eq for Address {}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin && self.authorization == other.authorization
    }
}

//! Calls any RPC with any bytes, as a client of another language would: by path, without generated code.

use std::time::Duration;

use prost_reflect::{DynamicMessage, MethodDescriptor};
use proto::policy::Access;
use tests::Pair;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Nothing that is answered with an empty message takes this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// An error that ends an opened stream comes at once.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = prost::bytes::Buf::remaining(buffer);
        Ok(Some(prost::bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

/// One RPC of the contract.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) method: MethodDescriptor,
    pub(crate) access: &'static Access,
}

impl Rpc {
    /// As in "/task.v1.TaskService/GetTask".
    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.method.parent_service().full_name(), self.method.name())
    }

    /// The package, which is the domain of its errors.
    pub(crate) fn package(&self) -> String {
        self.method.parent_service().package_name().to_owned()
    }

    /// Calls it on the server that has it with these bytes and metadata; checks that what is answered is its message.
    pub(crate) async fn call(
        &self,
        pair: &Pair,
        bytes: &[u8],
        metadata: &[(&'static str, &str)],
    ) -> Result<(), Status> {
        let server = if self.package() == "auth.v1" { pair.auth.channel() } else { pair.task.channel() };
        let answered = call(server, &self.path(), self.method.is_server_streaming(), bytes, metadata).await?;
        if let Some(answer) = answered {
            let path = self.path();
            let read = DynamicMessage::decode(self.method.output(), answer.as_slice());
            read.unwrap_or_else(|error| panic!("{path} answers something that is no answer of it: {error}"));
        }
        Ok(())
    }
}

/// Every RPC of both packages, sorted by path.
pub(crate) fn rpcs() -> Vec<Rpc> {
    let services = proto::descriptor_pool().services();
    let mut all: Vec<_> = services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let access = proto::policy::lookup(&path).unwrap_or_else(|| panic!("{path}: give it an access policy"));
            Rpc { method, access }
        })
        .collect();
    all.sort_by_key(Rpc::path);
    all
}

/// Calls the RPC at `path`; answers the message, or the first of a stream if one comes at once.
pub(crate) async fn call(
    channel: Channel,
    path: &str,
    streams: bool,
    bytes: &[u8],
    metadata: &[(&'static str, &str)],
) -> Result<Option<Vec<u8>>, Status> {
    let mut request = Request::new(bytes.to_vec());
    for (name, value) in metadata {
        let value: MetadataValue<Ascii> = value.parse().unwrap();
        request.metadata_mut().append(*name, value);
    }
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap_or_else(|error| panic!("{path}: no connection: {error}"));
    let uri = path.parse().unwrap();
    let calling = async {
        if !streams {
            return client.unary(request, uri, Raw).await.map(|answer| Some(answer.into_inner()));
        }
        let mut stream = client.server_streaming(request, uri, Raw).await?.into_inner();
        match tokio::time::timeout(STREAM_PATIENCE, stream.message()).await {
            Ok(first) => first,
            // Open and silent.
            Err(_) => Ok(None),
        }
    };
    tokio::time::timeout(PATIENCE, calling).await.unwrap_or_else(|_| panic!("{path}: no answer within {PATIENCE:?}"))
}

/// `authorization` for a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

//! The RPCs of descriptor sets: which methods exist and which of them stream. Metrics labels stay bounded and streams keep their
//! own rules about time because of this table.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// One RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Full name of the proto service: `package.v1.Service`.
    pub service: Arc<str>,
    /// Name of the method.
    pub method: Arc<str>,
    /// Whether either side streams.
    pub streaming: bool,
}

/// All RPCs by path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MethodTable {
    by_path: Arc<HashMap<String, Method>>,
    unknown: Method,
}

impl MethodTable {
    /// Reads encoded `FileDescriptorSet`s. Fails when one cannot be decoded.
    pub fn from_descriptor_sets(sets: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut by_path = HashMap::new();
        for set in sets {
            let files = FileDescriptorSet::decode(*set)?.file;
            for file in &files {
                for service in &file.service {
                    let package = file.package();
                    let full = if package.is_empty() {
                        service.name().to_owned()
                    } else {
                        format!("{package}.{}", service.name())
                    };
                    let name: Arc<str> = full.into();
                    for method in &service.method {
                        let streaming = method.client_streaming() || method.server_streaming();
                        let entry = Method { service: Arc::clone(&name), method: method.name().into(), streaming };
                        by_path.insert(format!("/{name}/{}", method.name()), entry);
                    }
                }
            }
        }
        let unknown = Method { service: "unknown".into(), method: "unknown".into(), streaming: false };
        Ok(Self { by_path: Arc::new(by_path), unknown })
    }

    /// The method of a request path; one and the same placeholder (`unknown`) for every path that is none.
    pub fn lookup(&self, path: &str) -> &Method {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }

    /// Whether the path is an RPC of the descriptor sets.
    pub fn contains(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Every path, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_methods_and_whether_they_stream() {
        let table = MethodTable::from_descriptor_sets(&[tonic_health::pb::FILE_DESCRIPTOR_SET]).unwrap();
        assert!(!table.lookup("/grpc.health.v1.Health/Check").streaming);
        assert!(table.lookup("/grpc.health.v1.Health/Watch").streaming);
        assert_eq!(&*table.lookup("/grpc.health.v1.Health/Nope").service, "unknown");
        assert!(MethodTable::from_descriptor_sets(&[b"\xff"]).is_err());
    }
}

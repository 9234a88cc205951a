//! The contract: generated types of `auth.v1`, `task.v1` and `access.v1`, who may call what, and what a valid request is.
//!
//! The .proto files next to this crate's `src` are the source of everything here and the documentation of the API:
//!
//! - [`auth`], [`task`], [`access`]: messages, clients and server traits. RPCs that a server does not implement answer
//!   `UNIMPLEMENTED`.
//! - [`policy`]: the access policy of each RPC and the catalogue of permissions.
//! - [`validate`]: the `buf.validate` rules of a request as code.
//! - [`field_mask`]: checks an update mask against a resource.
//! - [`time`]: protobuf times to and from `chrono`.
//!
//! Fields marked `debug_redact` (passwords, tokens, secrets, e-mail addresses) never appear in `Debug` output.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub mod field_mask;
pub mod policy;
pub mod time;
pub mod validate;

mod reason;

/// The option `access` and the catalogue of permissions.
pub mod access {
    /// Version 1 of the option.
    pub mod v1 {
        tonic::include_proto!("access.v1");
    }
}

/// Users, roles, tokens, service accounts, audit.
pub mod auth {
    /// Version 1 of the API.
    pub mod v1 {
        #![expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
        tonic::include_proto!("auth.v1");

        /// The encoded `google.protobuf.FileDescriptorSet` of this package and its imports: what the auth service reflects.
        pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/auth_v1.bin"));
    }
}

/// Tasks and their ownership.
pub mod task {
    /// Version 1 of the API.
    pub mod v1 {
        #![expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
        tonic::include_proto!("task.v1");

        /// The encoded `google.protobuf.FileDescriptorSet` of this package and its imports: what the task service reflects.
        pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/task_v1.bin"));
    }
}

mod redact {
    //! `Debug` of messages with secrets.
    include!(concat!(env!("OUT_DIR"), "/redact.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of all packages and their imports, without comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the build made these bytes and has decoded them")]
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set of the build")
});

/// The descriptors of all packages, decoded once.
pub fn descriptor_pool() -> &'static DescriptorPool {
    &POOL
}

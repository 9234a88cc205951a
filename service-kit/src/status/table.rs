//! The error table: a closed enum of reasons, each with its name, code and constant text.

use tonic::Code;

/// One entry of a service's error table. Implemented by [`crate::reasons!`] only.
pub trait Reason: Copy + Send + Sync + 'static {
    /// `google.rpc.ErrorInfo.domain`: the proto package.
    const DOMAIN: &'static str;

    /// UPPER_SNAKE name, as `google.rpc.ErrorInfo.reason`.
    fn name(self) -> &'static str;

    /// The gRPC status code.
    fn code(self) -> Code;

    /// The constant public text.
    fn message(self) -> &'static str;

    /// Every reason of the table, the common ones included.
    fn all() -> &'static [Self];

    /// The entry for a reason that every service has.
    fn common(reason: CommonReason) -> Self;
}

/// The reasons that every table includes, under the same variant names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommonReason {
    /// Bad input; the fields stand in `BadRequest`.
    InvalidArgument,
    /// The database or another service is away; comes with `RetryInfo`.
    Unavailable,
    /// The call's deadline passed.
    DeadlineExceeded,
    /// Concurrent changes were in the way even after retries.
    ConcurrentChange,
    /// The RPC is not there yet.
    NotImplemented,
    /// A defect; details are in the log under the request id.
    Internal,
}

impl CommonReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::InvalidArgument,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::ConcurrentChange,
        Self::NotImplemented,
        Self::Internal,
    ];

    /// See [`Reason::name`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "VALIDATION_FAILED",
            Self::Unavailable => "DATABASE_UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::ConcurrentChange => "TRANSACTION_CONFLICT",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::Internal => "INTERNAL",
        }
    }

    /// See [`Reason::code`].
    pub const fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::ConcurrentChange => Code::Aborted,
            Self::NotImplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }

    /// See [`Reason::message`].
    pub const fn message(self) -> &'static str {
        match self {
            Self::InvalidArgument => "The request is not valid.",
            Self::Unavailable => "The service is not available at the moment. Try again.",
            Self::DeadlineExceeded => "The deadline passed before the work was done.",
            Self::ConcurrentChange => "Concurrent changes were in the way. Try again.",
            Self::NotImplemented => "This method is not available in this version.",
            Self::Internal => "Something went wrong in the service.",
        }
    }
}

/// What is wrong with a table: names that are not UPPER_SNAKE or not unique, texts that are no sentence, `Ok` as a code. Empty for
/// a good table; every service tests its own with it.
pub fn table_errors<R: Reason>() -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for reason in R::all() {
        let name = reason.name();
        let upper_snake = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && name.len() <= 63;
        if !upper_snake {
            errors.push(format!("{name}: reason names are UPPER_SNAKE, at most 63 characters"));
        }
        if !seen.insert(name) {
            errors.push(format!("{name}: stands twice in the table"));
        }
        if !reason.message().ends_with('.') || reason.message().len() > 200 {
            errors.push(format!("{name}: the text is a short sentence that ends in a full stop"));
        }
        if reason.code() == Code::Ok {
            errors.push(format!("{name}: OK is no error"));
        }
    }
    errors
}

/// Declares a service's whole error table. Each entry: `Variant = "UPPER_SNAKE", Code, "Public text.";` with a doc comment. The
/// variants of [`CommonReason`] are added to it.
#[macro_export]
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        $vis:vis enum $table:ident($domain:literal) {
            $( $(#[$entry_meta:meta])* $variant:ident = $name:literal, $code:ident, $message:literal; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $table {
            $( $(#[$entry_meta])* $variant, )*
            /// Bad input; the fields stand in `BadRequest`.
            InvalidArgument,
            /// The database or another service is away; comes with `RetryInfo`.
            Unavailable,
            /// The call's deadline passed.
            DeadlineExceeded,
            /// Concurrent changes were in the way even after retries.
            ConcurrentChange,
            /// The RPC is not there yet.
            NotImplemented,
            /// A defect; details are in the log under the request id.
            Internal,
        }

        impl $table {
            const fn as_common(self) -> ::core::option::Option<$crate::status::CommonReason> {
                match self {
                    $( Self::$variant => ::core::option::Option::None, )*
                    Self::InvalidArgument => ::core::option::Option::Some($crate::status::CommonReason::InvalidArgument),
                    Self::Unavailable => ::core::option::Option::Some($crate::status::CommonReason::Unavailable),
                    Self::DeadlineExceeded => ::core::option::Option::Some($crate::status::CommonReason::DeadlineExceeded),
                    Self::ConcurrentChange => ::core::option::Option::Some($crate::status::CommonReason::ConcurrentChange),
                    Self::NotImplemented => ::core::option::Option::Some($crate::status::CommonReason::NotImplemented),
                    Self::Internal => ::core::option::Option::Some($crate::status::CommonReason::Internal),
                }
            }
        }

        impl $crate::status::Reason for $table {
            const DOMAIN: &'static str = $domain;

            fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )*
                    _ => self.as_common().map_or("INTERNAL", $crate::status::CommonReason::name),
                }
            }

            fn code(self) -> $crate::status::Code {
                match self {
                    $( Self::$variant => $crate::status::Code::$code, )*
                    _ => self.as_common().map_or($crate::status::Code::Internal, $crate::status::CommonReason::code),
                }
            }

            fn message(self) -> &'static str {
                match self {
                    $( Self::$variant => $message, )*
                    _ => self.as_common().map_or("", $crate::status::CommonReason::message),
                }
            }

            fn all() -> &'static [Self] {
                &[
                    $( Self::$variant, )*
                    Self::InvalidArgument,
                    Self::Unavailable,
                    Self::DeadlineExceeded,
                    Self::ConcurrentChange,
                    Self::NotImplemented,
                    Self::Internal,
                ]
            }

            fn common(reason: $crate::status::CommonReason) -> Self {
                match reason {
                    $crate::status::CommonReason::InvalidArgument => Self::InvalidArgument,
                    $crate::status::CommonReason::Unavailable => Self::Unavailable,
                    $crate::status::CommonReason::DeadlineExceeded => Self::DeadlineExceeded,
                    $crate::status::CommonReason::ConcurrentChange => Self::ConcurrentChange,
                    $crate::status::CommonReason::NotImplemented => Self::NotImplemented,
                    $crate::status::CommonReason::Internal => Self::Internal,
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::reasons! {
        /// A table with every fault.
        enum Faulty("faulty.v1") {
            /// Lower case, no sentence.
            A = "lower", Ok, "no stop";
            /// A common name again.
            B = "INTERNAL", Internal, "Fine.";
        }
    }

    crate::reasons! {
        /// Common entries only.
        enum Empty("empty.v1") {}
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(table_errors::<Faulty>().len(), 4, "{:?}", table_errors::<Faulty>());
        assert_eq!(table_errors::<Empty>(), Vec::<String>::new());
        for common in CommonReason::ALL {
            assert_eq!(Empty::common(common).name(), common.name());
        }
    }
}

//! What could not be resolved, and until when it is not tried again (RFC 9520).
